#include "train/align/reference.h"

#include <jansson.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/align/pair_objective.h"
#include "train/files.h"
#include "train/sequences.h"

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
static int cache_key(const struct trainer *t, const float *weights, const struct examples *e, char hex[SHA256_HEX], struct plm_status *st)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    const size_t tokens = (size_t)e->begin[e->n];
    char *config = model_config_to_json(&t->step.config);
    bool ok = c && config && EVP_DigestInit_ex(c, EVP_sha256(), NULL) == 1 && EVP_DigestUpdate(c, config, strlen(config)) == 1;
    for (int i = 0; i < t->step.table.n_tensors && ok && weights; i++) /* tensor by tensor: padding depends on the number of ranks */
        ok = EVP_DigestUpdate(c, weights + t->step.table.tensors[i].offset, (size_t)tensor_elements(&t->step.table.tensors[i]) * sizeof *weights) == 1;
    ok = ok && EVP_DigestUpdate(c, t->tokenizer_sha256, SHA256_HEX) == 1;
    ok = ok && EVP_DigestUpdate(c, e->begin, ((size_t)e->n + 1) * sizeof *e->begin) == 1;
    ok = ok && EVP_DigestUpdate(c, e->tokens.data, tokens * sizeof *e->tokens.data) == 1;
    ok = ok && EVP_DigestUpdate(c, e->target.data, tokens) == 1;
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

static int cache_keys(struct cache_keys *k, const struct trainer *t, const float *weights, const struct examples *e, struct plm_status *st)
{
    int code = weights ? cache_key(t, weights, e, k->whole, st) : PLM_OK;
    return code ? code : cache_key(t, NULL, e, k->sequences, st);
}

/* Of the numbers themselves, as they are read back: an edited or damaged file is none. */
static bool check_sum(const double *log_probs, int64_t n, char hex[SHA256_HEX])
{
    return sha256_bytes((const char *)log_probs, (size_t)n * sizeof *log_probs, hex, NULL) == PLM_OK;
}

/* Fill log_probs from the file; false when it is not there, of another key (`name` of it), or not whole. */
static bool read_cache(const char *path, const char *name, const char *key, int64_t n, double *log_probs)
{
    json_t *root = json_load_file(path, 0, NULL);
    const char *found = json_string_value(json_object_get(root, name));
    const json_t *list = json_object_get(root, "log_probs");
    bool ok = found && strcmp(found, key) == 0 && json_array_size(list) == (size_t)n;
    for (int64_t i = 0; i < n && ok; i++) {
        const json_t *x = json_array_get(list, (size_t)i);
        ok = json_is_number(x) && isfinite(json_number_value(x));
        log_probs[i] = ok ? json_number_value(x) : 0;
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
        json_array_append_new(list, json_real(log_probs[i]));
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

int reference_cached(struct trainer *t, const float *weights, const struct pair_sequences *pairs, const char *path, double *log_probs, bool *hit,
                     struct plm_status *st)
{
    struct cache_keys keys;
    const int64_t n = pairs->e.n;
    int there = 0;
    int code = comm_agree(t->comm, cache_keys(&keys, t, weights ? weights : t->step.weights, &pairs->e, st), st);
    if (!code)
        code = read_shared(t, path, "key", keys.whole, n, log_probs, &there, st);
    *hit = there;
    if (code || there)
        return code;
    code = reference_compute(t, weights, &pairs->e, NULL, n, log_probs, NULL, st);
    return code ? code : comm_agree(t->comm, t->comm->rank == 0 ? write_cache(path, &keys, n, log_probs, st) : PLM_OK, st);
}

int reference_reload(struct trainer *t, const struct pair_sequences *pairs, const char *path, double *log_probs, struct plm_status *st)
{
    struct cache_keys keys;
    int there = 0;
    int code = comm_agree(t->comm, cache_keys(&keys, t, NULL, &pairs->e, st), st);
    if (!code)
        code = read_shared(t, path, "sequences", keys.sequences, pairs->e.n, log_probs, &there, st);
    if (!code && !there)
        code = status_set(st, PLM_EFORMAT, "'%s' is not there, is damaged, or belongs to other pairs, templates or another tokenizer: the round cannot go on without the "
                          "reference's "
                          "log-probabilities it began with", path);
    return code;
}
