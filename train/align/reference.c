#include "train/align/reference.h"

#include <jansson.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/clock.h"
#include "train/align/pair_objective.h"
#include "train/files.h"
#include "train/sequences.h"
#include "train/signals.h"

enum { PIECE = 256 };        /* sequences between two looks at signals */
#define WRITE_SECONDS 60     /* between two writes, plus what is left of a piece: what a killed sweep loses */
#define UNKNOWN ((double)NAN)

int reference_compute(struct trainer *t, const float *weights, const struct examples *e, const int64_t *list, int64_t n, double *log_probs, float *per_token,
                      struct plm_status *st)
{
    struct step *s = &t->step;
    struct micro_batches m = {0};
    struct batch batch = {0};
    float *tokens = per_token ? per_token : malloc(((size_t)e->begin[e->n] + 1) * sizeof *tokens);
    int64_t *all = malloc(((size_t)n + 1) * sizeof *all);
    int code = tokens && all ? PLM_OK : status_no_memory(st, (size_t)e->begin[e->n] * sizeof *tokens, "reference log-probabilities");
    for (int64_t i = 0; i < n && !code; i++)
        all[i] = list ? list[i] : i;
    if (!code)
        code = micro_batches_pack(&m, e, all, all, n, s->max_rows, s->max_len, st);
    if (!code)
        code = batch_create(&batch, s->max_rows, s->max_len, st);
    code = comm_agree(t->comm, code, st);
    if (weights)
        weights_bind_arena(&s->bound, &s->table, weights);
    if (!code)
        code = sequences_log_probs(s, e, &m, &batch, t->nll, tokens, t->comm, st);
    if (weights)
        weights_bind_arena(&s->bound, &s->table, s->weights);
    for (int64_t i = 0; i < n && !code; i++)
        log_probs[all[i]] = sequence_log_prob(e, all[i], tokens);
    micro_batches_free(&m);
    batch_free(&batch);
    free(all);
    if (!per_token)
        free(tokens);
    return code;
}

/* SHA-256 of what the log-probabilities depend on: model and tokenizer (weights NULL: left out), and the sequences. */
static int cache_key(const struct trainer *t, const float *weights, const struct reference_wanted *w, char hex[SHA256_HEX], struct plm_status *st)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    const struct examples *e = w->e;
    const size_t tokens = (size_t)e->begin[e->n];
    char *config = model_config_to_json(&t->step.config);
    bool ok = c && config && EVP_DigestInit_ex(c, EVP_sha256(), NULL) == 1 && EVP_DigestUpdate(c, config, strlen(config)) == 1;
    for (int i = 0; i < t->step.table.n_tensors && ok && weights; i++) /* tensor by tensor: padding depends on the number of ranks */
        ok = EVP_DigestUpdate(c, weights + t->step.table.tensors[i].offset, (size_t)tensor_elements(&t->step.table.tensors[i]) * sizeof *weights) == 1;
    ok = ok && EVP_DigestUpdate(c, t->tokenizer_sha256, SHA256_HEX) == 1;
    ok = ok && EVP_DigestUpdate(c, e->begin, ((size_t)e->n + 1) * sizeof *e->begin) == 1;
    ok = ok && EVP_DigestUpdate(c, e->tokens.data, tokens * sizeof *e->tokens.data) == 1;
    ok = ok && EVP_DigestUpdate(c, e->target.data, tokens) == 1;
    if (w->list)
        ok = ok && EVP_DigestUpdate(c, w->list, (size_t)w->n * sizeof *w->list) == 1;
    ok = ok && EVP_DigestFinal_ex(c, digest, &n) == 1;
    EVP_MD_CTX_free(c);
    free(config);
    if (!ok)
        return status_set(st, PLM_EINTERNAL, "SHA-256 failed");
    for (unsigned int i = 0; i < n; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    return PLM_OK;
}

struct cache_keys {
    char whole[SHA256_HEX], sequences[SHA256_HEX]; /* with and without the weights */
};

static int cache_keys(struct cache_keys *k, const struct trainer *t, const float *weights, const struct reference_wanted *w, struct plm_status *st)
{
    int code = weights ? cache_key(t, weights, w, k->whole, st) : PLM_OK;
    return code ? code : cache_key(t, NULL, w, k->sequences, st);
}

/* Of the numbers themselves, as they are read back: an edited or damaged file is none. */
static bool check_sum(const double *log_probs, int64_t n, char hex[SHA256_HEX])
{
    return sha256_bytes((const char *)log_probs, (size_t)n * sizeof *log_probs, hex, NULL) == PLM_OK;
}

/* Fill log_probs from the file, NaN for those it does not have yet; false when it is not there, of another key (`name` of it), or damaged. */
static bool read_cache(const char *path, const char *name, const char *key, int64_t n, double *log_probs)
{
    json_t *root = json_load_file(path, 0, NULL);
    const char *found = json_string_value(json_object_get(root, name));
    const json_t *list = json_object_get(root, "log_probs");
    bool ok = found && strcmp(found, key) == 0 && json_array_size(list) == (size_t)n;
    for (int64_t i = 0; i < n && ok; i++) {
        const json_t *x = json_array_get(list, (size_t)i);
        ok = json_is_null(x) || (json_is_number(x) && isfinite(json_number_value(x)));
        log_probs[i] = json_is_number(x) ? json_number_value(x) : UNKNOWN;
    }
    char sum[SHA256_HEX];
    const char *wanted = json_string_value(json_object_get(root, "sha256"));
    ok = ok && wanted && check_sum(log_probs, n, sum) && strcmp(sum, wanted) == 0;
    json_decref(root);
    return ok;
}

static int write_cache(const char *path, const struct cache_keys *k, int64_t n, const double *log_probs, struct plm_status *st)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(list, isnan(log_probs[i]) ? json_null() : json_real(log_probs[i]));
    char sum[SHA256_HEX];
    json_t *root = check_sum(log_probs, n, sum) ? json_pack("{s:s, s:s, s:s, s:O}", "key", k->whole, "sequences", k->sequences, "sha256", sum, "log_probs", list) : NULL;
    char *text = root && json_array_size(list) == (size_t)n ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    int code = text ? file_replace(path, text, strlen(text), st) : status_no_memory(st, (size_t)n * 24, "reference log-probabilities as text");
    free(text);
    json_decref(list);
    json_decref(root);
    return code;
}

/* What rank 0 finds in the file, on every rank. */
static int read_shared(struct trainer *t, const char *path, const char *name, const char *key, int64_t n, double *log_probs, int *there, struct plm_status *st)
{
    *there = t->comm->rank == 0 && read_cache(path, name, key, n, log_probs);
    int code = comm_broadcast(t->comm, there, sizeof *there, 0, st);
    return code || !*there ? code : comm_broadcast(t->comm, log_probs, (size_t)n * sizeof *log_probs, 0, st);
}

/* The sequences wanted from number `from` on, up to PIECE of n in all; 0 when every one of them is known. */
static int64_t next_piece(const struct reference_wanted *w, int64_t n, int64_t from, const double *log_probs, int64_t *piece)
{
    const int64_t end = from + PIECE < n ? from + PIECE : n;
    bool missing = false;
    for (int64_t i = from; i < end; i++) {
        piece[i - from] = w->list ? w->list[i] : i;
        missing = missing || isnan(log_probs[piece[i - from]]);
    }
    return missing ? end - from : 0;
}

/* The log-probabilities of one piece, whose sequences are copied: what all ranks add up is the piece, not the round. */
static int sweep_piece(struct trainer *t, const float *weights, const struct examples *e, const int64_t *piece, int64_t k, double *log_probs, struct plm_status *st)
{
    struct examples part = {0};
    double found[PIECE];
    int code = PLM_OK;
    for (int64_t i = 0; i < k && !code; i++)
        code = examples_add(&part, e->tokens.data + e->begin[piece[i]], example_length(e, piece[i]), e->target.data + e->begin[piece[i]], 0, st);
    code = comm_agree(t->comm, code, st);
    if (!code)
        code = reference_compute(t, weights, &part, NULL, k, found, NULL, st);
    for (int64_t i = 0; i < k && !code; i++) {
        log_probs[piece[i]] = found[i];
        if (!isfinite(found[i])) /* the same on every rank */
            code = status_set(st, PLM_EINVAL, "the reference's log-probability of sequence %lld is %g: its weights are damaged", (long long)piece[i], found[i]);
    }
    examples_free(&part);
    return code;
}

/* All pieces that have something unknown. The pieces' limits are always the same: a sweep that goes on computes what an uninterrupted one does, to the bit. */
static int sweep(struct trainer *t, const float *weights, const struct reference_wanted *w, const struct cache_keys *keys, const char *path, double *log_probs,
                 int64_t *computed, bool *stopped, struct plm_status *st)
{
    const int64_t n = w->list ? w->n : w->e->n;
    int64_t piece[PIECE];
    double written = seconds_now();
    int code = PLM_OK;
    for (int64_t from = 0; from < n && !code && !*stopped; from += PIECE) {
        const int64_t k = next_piece(w, n, from, log_probs, piece);
        if (!k)
            continue;
        code = sweep_piece(t, weights, w->e, piece, k, log_probs, st);
        *computed += k;
        double stop = signals_stop_requested() != 0;
        if (!code)
            code = comm_sum_doubles(t->comm, &stop, 1, st);
        *stopped = stop > 0 && from + PIECE < n;
        if (!code && t->comm->rank == 0 && !*stopped && seconds_now() - written > WRITE_SECONDS) {
            code = write_cache(path, keys, w->e->n, log_probs, st);
            written = seconds_now();
        }
        code = comm_agree(t->comm, code, st);
    }
    return code;
}

int reference_cached(struct trainer *t, const float *weights, const struct reference_wanted *wanted, const char *path, double *log_probs, int64_t *computed,
                     bool *stopped, struct plm_status *st)
{
    struct cache_keys keys;
    const int64_t n = wanted->e->n;
    int there = 0;
    *computed = 0;
    *stopped = false;
    int code = comm_agree(t->comm, cache_keys(&keys, t, weights ? weights : t->step.weights, wanted, st), st);
    if (!code)
        code = read_shared(t, path, "key", keys.whole, n, log_probs, &there, st);
    for (int64_t i = 0; i < n && !there; i++)
        log_probs[i] = wanted->list ? 0 : UNKNOWN;
    for (int64_t i = 0; i < wanted->n && wanted->list && !there; i++)
        log_probs[wanted->list[i]] = UNKNOWN;
    if (!code)
        code = sweep(t, weights, wanted, &keys, path, log_probs, computed, stopped, st);
    if (!code && *computed)
        code = comm_agree(t->comm, t->comm->rank == 0 ? write_cache(path, &keys, n, log_probs, st) : PLM_OK, st);
    return code;
}

int reference_reload(struct trainer *t, const struct reference_wanted *wanted, const char *path, double *log_probs, struct plm_status *st)
{
    struct cache_keys keys;
    int there = 0;
    int code = comm_agree(t->comm, cache_keys(&keys, t, NULL, wanted, st), st);
    if (!code)
        code = read_shared(t, path, "sequences", keys.sequences, wanted->e->n, log_probs, &there, st);
    for (int64_t i = 0; i < wanted->e->n && !code && there; i++)
        there = !isnan(log_probs[i]);
    if (!code && !there)
        code = status_set(st, PLM_EFORMAT, "'%s' is not there, is not complete, is damaged, or belongs to other pairs, templates or another tokenizer: the round cannot go on without the "
                          "reference's "
                          "log-probabilities it began with", path);
    return code;
}
