#include "train/ops/attention_backward.h"

#include <string.h>

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }

static size_t tile_bytes(int64_t max_keys) { return round64(sizeof(float) * ATTENTION_TILE * (size_t)max_keys); }

static size_t scratch_per_thread(const struct ops *ops, int64_t max_keys)
{
    return 2 * tile_bytes(max_keys) + round64(ops->gemm_scratch_bytes());
}

size_t attention_backward_scratch_bytes(const struct ops *ops, int64_t max_keys, int threads)
{
    return scratch_per_thread(ops, max_keys) * (size_t)threads;
}

struct job {
    const struct attention *a;
    const struct attention_grad *g;
    const struct ops *ops;
    const struct train_ops *train_ops;
    unsigned char *scratch;
    int64_t max_keys;
};

/* Turn p (scores) into probabilities and dp into the gradient of the scores, both (tile rows, keys), zero where masked. */
static void score_gradient(const struct job *j, const struct attention_tile *t, float *p, float *dp)
{
    const struct attention *a = j->a;
    const int64_t keys = t->hi - t->lo, ld_out = (int64_t)a->n_head * a->v;
    const float scale = attention_scale(a);
    for (int64_t i = 0; i < t->end - t->begin; i++, p += keys, dp += keys) {
        int64_t from, to, row = t->seq * a->q_len + t->begin + i;
        attention_visible(a, t, i, &from, &to);
        j->ops->exp_sum(p + from, p + from, to - from, scale, a->lse[row * a->n_head + t->head]);
        float dot = j->ops->dot(j->g->d_out + row * ld_out + t->head * a->v, a->out + row * ld_out + t->head * a->v, a->v);
        j->train_ops->softmax_backward(dp + from, p + from, dp + from, dot, scale, to - from);
        memset(p, 0, (size_t)from * sizeof *p);
        memset(dp, 0, (size_t)from * sizeof *dp);
        memset(p + to, 0, (size_t)(keys - to) * sizeof *p);
        memset(dp + to, 0, (size_t)(keys - to) * sizeof *dp);
    }
}

static void tile_backward(const struct job *j, const struct attention_tile *t, float *p, float *dp, void *gemm_scratch)
{
    const struct attention *a = j->a;
    const struct attention_grad *g = j->g;
    const int64_t keys = t->hi - t->lo, rows = t->end - t->begin, ld_out = (int64_t)a->n_head * a->v;
    const int64_t row0 = t->seq * a->q_len + t->begin, key0 = t->seq * a->q_len + t->lo;
    const int64_t at_q = row0 * a->ldq + (int64_t)t->head * (a->nope + a->rope), at_kv = key0 * a->ldkv + (int64_t)t->head * (a->nope + a->v);
    const int64_t ld_d_pe = (int64_t)a->n_head * a->rope;
    const float *d_out = g->d_out + row0 * ld_out + t->head * a->v;

    attention_scores(a, t, j->ops, p, gemm_scratch);
    j->ops->gemm_serial(&(struct gemm){.m = rows, .n = keys, .k = a->v, .trans_b = true, .alpha = 1, .a = d_out, .lda = ld_out,
                                       .b = a->kv + at_kv + a->nope, .ldb = a->ldkv, .c = dp, .ldc = keys}, gemm_scratch);
    score_gradient(j, t, p, dp);

    /* dV += P^T dO; dK_nope += dS^T Q_nope; dK_pe += dS^T Q_pe */
    struct gemm to_keys = {.m = keys, .k = rows, .trans_a = true, .accumulate = true, .alpha = 1, .lda = keys, .ldc = a->ldkv};
    to_keys.n = a->v, to_keys.a = p, to_keys.b = d_out, to_keys.ldb = ld_out, to_keys.c = g->d_kv + at_kv + a->nope;
    j->ops->gemm_serial(&to_keys, gemm_scratch);
    to_keys.n = a->nope, to_keys.a = dp, to_keys.b = a->q + at_q, to_keys.ldb = a->ldq, to_keys.c = g->d_kv + at_kv;
    j->ops->gemm_serial(&to_keys, gemm_scratch);
    to_keys.n = a->rope, to_keys.b = a->q + at_q + a->nope;
    to_keys.c = g->d_k_pe + key0 * ld_d_pe + t->head * a->rope, to_keys.ldc = ld_d_pe;
    j->ops->gemm_serial(&to_keys, gemm_scratch);

    /* dQ_nope = dS K_nope; dQ_pe = dS K_pe */
    struct gemm to_queries = {.m = rows, .k = keys, .alpha = 1, .a = dp, .lda = keys, .ldc = a->ldq};
    to_queries.n = a->nope, to_queries.b = a->kv + at_kv, to_queries.ldb = a->ldkv, to_queries.c = g->d_q + at_q;
    j->ops->gemm_serial(&to_queries, gemm_scratch);
    to_queries.n = a->rope, to_queries.b = a->k_pe + key0 * a->ld_pe, to_queries.ldb = a->ld_pe, to_queries.c += a->nope;
    j->ops->gemm_serial(&to_queries, gemm_scratch);
}

/* All tiles of one (sequence, head): they add to the same keys, so they stay in one thread and in order. */
static void head_backward(void *ctx, int64_t begin, int64_t end, int worker)
{
    const struct job *j = ctx;
    const struct attention *a = j->a;
    unsigned char *scratch = j->scratch + (size_t)worker * scratch_per_thread(j->ops, j->max_keys);
    const int64_t per_head = attention_tiles(a) / (a->n_seq * a->n_head);
    for (int64_t i = begin; i < end; i++) {
        const int64_t seq = i / a->n_head, head = i % a->n_head;
        for (int64_t r = seq * a->q_len; r < (seq + 1) * a->q_len; r++) {
            memset(j->g->d_kv + r * a->ldkv + head * (a->nope + a->v), 0, (size_t)(a->nope + a->v) * sizeof(float));
            memset(j->g->d_k_pe + (r * a->n_head + head) * a->rope, 0, (size_t)a->rope * sizeof(float));
        }
        for (int64_t tile = 0; tile < per_head; tile++) {
            struct attention_tile t = attention_tile_at(a, i * per_head + tile);
            tile_backward(j, &t, (float *)(void *)scratch, (float *)(void *)(scratch + tile_bytes(j->max_keys)),
                          scratch + 2 * tile_bytes(j->max_keys));
        }
    }
}

void attention_backward(const struct attention *a, const struct attention_grad *g, const struct ops *ops,
                        const struct train_ops *train_ops, struct thread_pool *pool, void *scratch, int64_t max_keys)
{
    struct job j = {a, g, ops, train_ops, scratch, max_keys};
    pool_for(pool, a->n_seq * a->n_head, 1, head_backward, &j);
}
