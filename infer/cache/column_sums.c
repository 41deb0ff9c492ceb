#include "infer/cache/column_sums.h"

#include <string.h>

#define TILE_QUERIES 64
#define TILE_KEYS 256 /* keys of one piece of work; a tile of logits is 64 kB */

struct column_sums column_sums_of_attention(const struct attention *a, int64_t seq)
{
    const int64_t query = seq * a->q_len, key = seq * (a->past + a->q_len);
    return (struct column_sums){.n_query = a->q_len, .past = a->past, .n_head = a->n_head, .width1 = a->nope, .width2 = a->rope,
        .scale = attention_scale(a), .q = a->q + query * a->ldq, .ldq = a->ldq, .k1 = a->kv + key * a->ldkv, .ld1 = a->ldkv,
        .head_stride = a->nope + a->v, .k2 = a->k_pe + key * a->ld_pe, .ld2 = a->ld_pe, .key_type = DTYPE_F32,
        .lse = a->lse + query * a->n_head, .ld_lse = a->n_head};
}

struct column_sums column_sums_heads(const struct column_sums *c, int head, int n_head)
{
    struct column_sums part = *c;
    part.n_head = n_head;
    part.q += (int64_t)head * (c->width1 + c->width2);
    part.k1 = (const char *)c->k1 + dtype_row_bytes(c->key_type, head * c->head_stride);
    part.lse += head;
    return part;
}

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }

static size_t scratch_per_thread(const struct ops *ops)
{
    return sizeof(float) * TILE_KEYS * (TILE_QUERIES + 1) + round64(ops->gemm_scratch_bytes());
}

size_t column_sums_scratch_bytes(const struct ops *ops, int threads) { return scratch_per_thread(ops) * (size_t)threads; }

struct job {
    const struct column_sums *c;
    const struct ops *ops;
    unsigned char *scratch;
    double *sums;
};

/* One head's probabilities of queries [q0, q0 + n_query) for keys [k0, k0 + n_key), added up by column into column. */
static void add_tile(const struct job *j, int head, int64_t q0, int64_t n_query, int64_t k0, int64_t n_key, float *s,
                     float *column, void *gemm_scratch)
{
    const struct column_sums *c = j->c;
    const struct ops *ops = j->ops;
    const float *q = c->q + q0 * c->ldq + (int64_t)head * (c->width1 + c->width2);
    struct gemm g = {.m = n_query, .n = n_key, .k = c->width1, .trans_b = true, .alpha = 1, .a = q, .lda = c->ldq,
                     .b = (const char *)c->k1 + (size_t)k0 * dtype_row_bytes(c->key_type, c->ld1) +
                     dtype_row_bytes(c->key_type, head * c->head_stride), .ldb = c->ld1, .b_type = c->key_type, .c = s,
                     .ldc = TILE_KEYS};
    ops->gemm_serial(&g, gemm_scratch);
    if (c->width2) {
        g.k = c->width2, g.accumulate = true, g.a = q + c->width1, g.ldb = c->ld2;
        g.b = (const char *)c->k2 + (size_t)k0 * dtype_row_bytes(c->key_type, c->ld2);
        ops->gemm_serial(&g, gemm_scratch);
    }
    memset(column, 0, (size_t)n_key * sizeof *column);
    for (int64_t i = 0; i < n_query; i++) {
        const int64_t visible = c->past + q0 + i + 1 - k0, n = visible < n_key ? visible : n_key;
        if (n <= 0)
            continue;
        float *p = s + i * TILE_KEYS;
        ops->exp_sum(p, p, n, c->scale, c->lse[(q0 + i) * c->ld_lse + head]);
        ops->add(column, p, n);
    }
}

static int64_t key_count(const struct column_sums *c) { return c->n_key ? c->n_key : c->past + c->n_query; }

static void add_columns(void *ctx, int64_t begin, int64_t end, int worker)
{
    const struct job *j = ctx;
    const struct column_sums *c = j->c;
    const int64_t keys = key_count(c);
    float *s = (float *)(void *)(j->scratch + (size_t)worker * scratch_per_thread(j->ops));
    float *column = s + TILE_KEYS * TILE_QUERIES;
    for (int64_t piece = begin; piece < end; piece++) {
        const int64_t k0 = piece * TILE_KEYS, n_key = keys - k0 < TILE_KEYS ? keys - k0 : TILE_KEYS;
        /* Earlier tiles of queries see none of these keys. */
        const int64_t first = k0 > c->past ? (k0 - c->past) / TILE_QUERIES * TILE_QUERIES : 0;
        for (int head = 0; head < c->n_head; head++)
            for (int64_t q0 = first; q0 < c->n_query; q0 += TILE_QUERIES) {
                const int64_t n_query = c->n_query - q0 < TILE_QUERIES ? c->n_query - q0 : TILE_QUERIES;
                add_tile(j, head, q0, n_query, k0, n_key, s, column, column + TILE_KEYS);
                for (int64_t k = 0; k < n_key; k++)
                    j->sums[k0 + k] += column[k];
            }
    }
}

void column_sums_add(const struct column_sums *c, const struct ops *ops, struct thread_pool *pool, void *scratch, double *sums)
{
    struct job j = {c, ops, scratch, sums};
    pool_for(pool, (key_count(c) + TILE_KEYS - 1) / TILE_KEYS, 1, add_columns, &j);
}
