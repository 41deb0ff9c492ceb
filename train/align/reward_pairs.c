#include "train/align/reward_pairs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/base/random.h"
#include "train/align/pairs.h"

static int add_pair(struct reward_set *set, const struct pair_sequences *p, int64_t i, struct plm_status *st)
{
    const int64_t first = i * p->per_pair, parts[2] = {first + p->at[PART_CHOSEN], first + p->at[PART_REJECTED]};
    int code = PLM_OK;
    for (int k = 0; k < 2 && !code; k++)
        code = reward_sequence_add(&set->e, p->e.tokens.data + p->e.begin[parts[k]], example_length(&p->e, parts[k]), st);
    set->n += !code;
    return code;
}

/* A number that all rows with the same prompt have in common (FNV-1a). */
static uint64_t prompt_key(const struct row *row)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (int i = 0; i < row->n_messages; i++) {
        for (size_t k = 0; k < row->messages[i].content_bytes; k++)
            h = (h ^ (unsigned char)row->messages[i].content[k]) * 0x100000001b3u;
        h = (h ^ 0xFF) * 0x100000001b3u;
    }
    return h;
}

/* The pairs of some sources; those of a share of the prompts go to held_out. */
static int read_pairs(struct reward_set *train, struct reward_set *held_out, double share, const struct example_source *sources, int n, const struct reward_config *c,
                      const struct pair_context *context, bool report, struct plm_status *st)
{
    struct pair_set set = {0};
    struct pair_sequences p = {0};
    int code = pairs_read_sources(&set, sources, n, ROW_PAIR, c->skip_bad, c->seed, st);
    if (!code)
        code = pair_sequences_build(&p, &set, context, st);
    for (int64_t i = 0; i < p.n && !code; i++) {
        const bool out = share > 0 && random_uniform(c->seed, RANDOM_SPLIT, 0, prompt_key(&set.rows.rows[p.row[i]])) < share;
        code = add_pair(out ? held_out : train, &p, i, st);
    }
    if (!code && report && set.rows.bad)
        log_warn("'%s': %lld malformed rows skipped; the first: %s", sources[0].path, (long long)set.rows.bad, set.rows.first_bad);
    if (!code && report && p.dropped_long)
        log_warn("'%s'%s: %lld of %lld pairs left out: one of their sequences has more than seq_len (%d) tokens", sources[0].path, n > 1 ? " and the other sources" : "",
                 (long long)p.dropped_long, (long long)set.rows.n, c->seq_len);
    pair_sequences_free(&p);
    pair_set_free(&set);
    return code;
}

int reward_data_open(struct reward_data *d, const struct reward_config *c, const struct chat_template *chat, const struct tokenizer *tokenizer, bool report,
                     struct plm_status *st)
{
    const struct pair_context context = {.chat = chat, .tokenizer = tokenizer, .max_len = c->seq_len};
    *d = (struct reward_data){.held_out = calloc((size_t)c->n_eval + 1, sizeof *d->held_out)};
    if (!d->held_out)
        return status_no_memory(st, ((size_t)c->n_eval + 1) * sizeof *d->held_out, "the held-out pairs");
    struct reward_set *split = &d->held_out[0];
    int code = read_pairs(&d->train, split, c->held_out, c->sources, c->n_sources, c, &context, report, st);
    if (!code && d->train.n == 0)
        code = status_set(st, PLM_EINVAL, "'%s': no pairs to learn from; all are too long for seq_len (%d), or held out", c->sources[0].path, c->seq_len);
    if (!code && c->held_out > 0 && split->n == 0)
        code = status_set(st, PLM_EINVAL, "pairs.held_out %g leaves no pair to evaluate on; raise it, or set it to 0", c->held_out);
    if (!code && c->held_out > 0) {
        split->name = "held-out";
        d->n_held_out = 1;
    }
    for (int i = 0; i < c->n_eval && !code; i++) {
        struct reward_set *set = &d->held_out[d->n_held_out++];
        set->name = c->eval[i].name;
        code = read_pairs(set, NULL, 0, &c->eval[i].source, 1, c, &context, report, st);
        if (!code && set->n == 0)
            code = status_set(st, PLM_EINVAL, "'%s': all pairs are too long for seq_len (%d)", c->eval[i].source.path, c->seq_len);
    }
    for (int i = 0; i < d->n_held_out && !code; i++)
        if (c->eval_max && d->held_out[i].n > c->eval_max)
            d->held_out[i].n = c->eval_max;
    if (!code && report)
        log_info("%lld pairs, %lld tokens to learn from", (long long)d->train.n, (long long)(d->train.e.begin[d->train.e.n] - d->train.e.n));
    for (int i = 0; i < d->n_held_out && !code && report; i++)
        log_info("%lld pairs to evaluate on: %s", (long long)d->held_out[i].n, d->held_out[i].name);
    return code;
}

void reward_data_free(struct reward_data *d)
{
    examples_free(&d->train.e);
    for (int i = 0; d->held_out && i < d->n_held_out; i++)
        examples_free(&d->held_out[i].e);
    free(d->held_out);
    *d = (struct reward_data){0};
}

int reward_data_hash(const struct reward_data *d, const struct reward_config *c, char hex[SHA256_HEX], struct plm_status *st)
{
    const struct examples *e = &d->train.e;
    char parts[3][SHA256_HEX];
    int code = reward_config_hash(c, parts[0], st);
    if (!code)
        code = sha256_bytes(e->begin, ((size_t)e->n + 1) * sizeof *e->begin, parts[1], st);
    if (!code)
        code = sha256_bytes(e->tokens.data, (size_t)e->begin[e->n] * sizeof *e->tokens.data, parts[2], st);
    return code ? code : sha256_bytes(parts, sizeof parts, hex, st);
}
