#include "infer/model/attention.h"

#include <math.h>
#include <string.h>

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }

static size_t scratch_per_thread(const struct ops *ops, int64_t max_keys)
{
    return round64(sizeof(float) * ATTENTION_TILE * (size_t)max_keys) + round64(ops->gemm_scratch_bytes());
}

size_t attention_scratch_bytes(const struct ops *ops, int64_t max_keys, int threads)
{
    return scratch_per_thread(ops, max_keys) * (size_t)threads;
}

float attention_scale(const struct attention *a) { return (a->logit_factor > 0 ? a->logit_factor : 1.0f) / sqrtf((float)(a->nope + a->rope)); }

static int64_t tiles_per_head(const struct attention *a) { return (a->q_len + ATTENTION_TILE - 1) / ATTENTION_TILE; }

int64_t attention_tiles(const struct attention *a) { return a->n_seq * a->n_head * tiles_per_head(a); }

struct attention_tile attention_tile_at(const struct attention *a, int64_t i)
{
    int64_t per_head = tiles_per_head(a);
    /* Last tiles first: they see the most keys, so the short ones fill the gaps at the end of the parallel loop. */
    int64_t tile = per_head - 1 - i % per_head, rest = i / per_head;
    struct attention_tile t = {.seq = rest / a->n_head, .head = (int)(rest % a->n_head), .begin = tile * ATTENTION_TILE};
    t.end = t.begin + ATTENTION_TILE < a->q_len ? t.begin + ATTENTION_TILE : a->q_len;
    t.hi = a->past + t.end;
    if (a->first_key) {
        t.lo = t.hi;
        for (int64_t r = t.begin; r < t.end; r++) {
            int64_t first = a->first_key[t.seq * a->q_len + r];
            t.lo = first < t.lo ? first : t.lo;
        }
    }
    return t;
}

void attention_visible(const struct attention *a, const struct attention_tile *t, int64_t i, int64_t *from, int64_t *to)
{
    int64_t first = a->first_key ? a->first_key[t->seq * a->q_len + t->begin + i] : 0;
    *from = first - t->lo;
    *to = a->past + t->begin + i + 1 - t->lo;
}

void attention_scores(const struct attention *a, const struct attention_tile *t, const struct ops *ops, float *s,
                      void *gemm_scratch)
{
    int64_t keys = t->hi - t->lo, key0 = t->seq * (a->past + a->q_len) + t->lo;
    const float *q = a->q + (t->seq * a->q_len + t->begin) * a->ldq + (int64_t)t->head * (a->nope + a->rope);
    struct gemm g = {.m = t->end - t->begin, .n = keys, .k = a->nope, .trans_b = true, .alpha = 1, .a = q, .lda = a->ldq,
                     .b = a->kv + key0 * a->ldkv + (int64_t)t->head * (a->nope + a->v), .ldb = a->ldkv, .c = s, .ldc = keys};
    ops->gemm_serial(&g, gemm_scratch);
    g.k = a->rope, g.accumulate = true;
    g.a = q + a->nope;
    g.b = a->k_pe + key0 * a->ld_pe, g.ldb = a->ld_pe;
    ops->gemm_serial(&g, gemm_scratch);
}

struct job {
    const struct attention *a;
    const struct ops *ops;
    unsigned char *scratch;
    size_t per_thread;
    int64_t max_keys;
};

static void run_tile(const struct job *j, struct attention_tile t, float *s, void *gemm_scratch)
{
    const struct attention *a = j->a;
    const int64_t keys = t.hi - t.lo;
    const float scale = attention_scale(a);
    attention_scores(a, &t, j->ops, s, gemm_scratch);
    for (int64_t i = 0; i < t.end - t.begin; i++) {
        int64_t from, to, row = t.seq * a->q_len + t.begin + i;
        float *p = s + i * keys;
        attention_visible(a, &t, i, &from, &to);
        float shift = scale * j->ops->max(p + from, to - from);
        float sum = j->ops->exp_sum(p + from, p + from, to - from, scale, shift);
        j->ops->scale(p + from, 1 / sum, to - from);
        memset(p, 0, (size_t)from * sizeof *p);
        memset(p + to, 0, (size_t)(keys - to) * sizeof *p);
        if (a->lse)
            a->lse[row * a->n_head + t.head] = shift + logf(sum);
    }
    struct gemm g = {.m = t.end - t.begin, .n = a->v, .k = keys, .alpha = 1, .a = s, .lda = keys,
                     .b = a->kv + (t.seq * (a->past + a->q_len) + t.lo) * a->ldkv + (int64_t)t.head * (a->nope + a->v) + a->nope,
                     .ldb = a->ldkv, .c = a->out + (t.seq * a->q_len + t.begin) * a->n_head * a->v + (int64_t)t.head * a->v,
                     .ldc = (int64_t)a->n_head * a->v};
    j->ops->gemm_serial(&g, gemm_scratch);
}

static void run_tiles(void *ctx, int64_t begin, int64_t end, int worker)
{
    const struct job *j = ctx;
    float *s = (float *)(void *)(j->scratch + (size_t)worker * j->per_thread);
    void *gemm_scratch = (unsigned char *)s + round64(sizeof(float) * ATTENTION_TILE * (size_t)j->max_keys);
    for (int64_t i = begin; i < end; i++)
        run_tile(j, attention_tile_at(j->a, i), s, gemm_scratch);
}

void attention_forward(const struct attention *a, const struct ops *ops, struct thread_pool *pool, void *scratch,
                       int64_t max_keys)
{
    struct job j = {a, ops, scratch, scratch_per_thread(ops, max_keys), max_keys};
    pool_for(pool, attention_tiles(a), 1, run_tiles, &j);
}

/* ---- blocks of keys ---- */

#define PART_ROWS 256 /* queries of one head in a piece of work, at least: what is packed of the keys is used so often */

struct block_job {
    const struct attention *a;
    struct attention_block all; /* queries of head 0 */
    const struct ops *ops;
    unsigned char *scratch;
    size_t per_thread;
    int64_t rows; /* in a piece of work */
    bool narrow, first, last;
};

static size_t block_scratch_per_thread(const struct attention *a, int64_t n, const struct ops *ops)
{
    size_t wide = round64(sizeof(float) * PART_ROWS * (size_t)n) + round64(ops->gemm_scratch_bytes());
    size_t narrow = ops->attention_narrow ? round64(ops->attention_narrow_scratch_bytes(n, a->nope + a->rope, a->v)) : 0;
    return wide > narrow ? wide : narrow;
}

size_t attention_block_scratch_bytes(const struct attention *a, int64_t max_n, const struct ops *ops, int threads)
{
    return block_scratch_per_thread(a, max_n, ops) * (size_t)threads;
}

/* One block in float32. */
static void block_full(const struct attention_block *b, const struct ops *ops, float *s)
{
    void *gemm_scratch = (unsigned char *)s + round64(sizeof(float) * PART_ROWS * (size_t)b->n);
    const int64_t n = b->seen + b->m - 1 < b->n ? b->seen + b->m - 1 : b->n; /* that the last query sees */
    struct gemm g = {.m = b->m, .n = n, .k = b->width1, .trans_b = true, .alpha = 1, .a = b->q, .lda = b->ldq, .b = b->k1, .ldb = b->ld1,
                     .c = s, .ldc = n};
    ops->gemm_serial(&g, gemm_scratch);
    g.k = b->width2, g.accumulate = true, g.a = b->q + b->width1, g.b = b->k2, g.ldb = b->ld2;
    ops->gemm_serial(&g, gemm_scratch);
    for (int64_t i = 0; i < b->m; i++) {
        const int64_t seen = b->seen + i < n ? b->seen + i : n;
        float *p = s + i * n, *max = b->max + i * b->ld_state, *sum = b->sum + i * b->ld_state;
        memset(p + (seen > 0 ? seen : 0), 0, (size_t)(n - (seen > 0 ? seen : 0)) * sizeof *p);
        if (seen <= 0)
            continue;
        const float most = b->scale * ops->max(p, seen), before = *max;
        *max = most > before ? most : before;
        const float shrink = expf(before - *max);
        *sum = *sum * shrink + ops->exp_sum(p, p, seen, b->scale, *max);
        ops->scale(b->out + i * b->ldo, shrink, b->v);
    }
    g = (struct gemm){.m = b->m, .n = b->v, .k = n, .accumulate = true, .alpha = 1, .a = s, .lda = n, .b = b->value, .ldb = b->ld1,
                      .c = b->out, .ldc = b->ldo};
    ops->gemm_serial(&g, gemm_scratch);
}

/* Piece of work: one head and some queries. */
static void add_blocks(void *ctx, int64_t begin, int64_t end, int worker)
{
    const struct block_job *j = ctx;
    const struct attention *a = j->a;
    void *scratch = j->scratch + (size_t)worker * j->per_thread;
    for (int64_t piece = begin; piece < end; piece++) {
        const int64_t head = piece % a->n_head, row = piece / a->n_head * j->rows;
        struct attention_block b = j->all;
        b.m = a->q_len - row < j->rows ? a->q_len - row : j->rows;
        b.seen += row;
        b.q += row * b.ldq + head * (a->nope + a->rope);
        b.k1 += head * (a->nope + a->v), b.value += head * (a->nope + a->v);
        b.max += row * b.ld_state + head, b.sum += row * b.ld_state + head;
        b.out += row * b.ldo + head * a->v;
        for (int64_t i = 0; i < b.m && j->first; i++) {
            b.max[i * b.ld_state] = -INFINITY, b.sum[i * b.ld_state] = 0;
            memset(b.out + i * b.ldo, 0, (size_t)b.v * sizeof *b.out);
        }
        if (b.seen + b.m > 1 && j->narrow)
            j->ops->attention_narrow(&b, scratch);
        else if (b.seen + b.m > 1)
            block_full(&b, j->ops, scratch);
        for (int64_t i = 0; i < b.m && j->last; i++) {
            j->ops->scale(b.out + i * b.ldo, 1 / b.sum[i * b.ld_state], b.v);
            if (a->lse)
                a->lse[(row + i) * a->n_head + head] = b.max[i * b.ld_state] + logf(b.sum[i * b.ld_state]);
        }
    }
}

void attention_add_block(const struct attention *a, int64_t first, int64_t n, float *max, float *sum, bool narrow, const struct ops *ops,
                         struct thread_pool *pool, void *scratch)
{
    struct block_job j = {.a = a, .ops = ops, .scratch = scratch, .per_thread = block_scratch_per_thread(a, n, ops),
        .narrow = narrow && ops->attention_narrow, .first = first == 0, .last = first + n == a->past + a->q_len,
        .all = {.n = n, .seen = a->past + 1 - first, .width1 = a->nope, .width2 = a->rope, .v = a->v, .scale = attention_scale(a), .q = a->q,
                .ldq = a->ldq, .k1 = a->kv, .value = a->kv + a->nope, .ld1 = a->ldkv, .k2 = a->k_pe, .ld2 = a->ld_pe, .max = max, .sum = sum,
                .ld_state = a->n_head, .out = a->out, .ldo = (int64_t)a->n_head * a->v}};
    j.rows = j.narrow && a->n_head >= 4 * pool_size(pool) ? a->q_len : PART_ROWS;
    pool_for(pool, a->n_head * ((a->q_len + j.rows - 1) / j.rows), 1, add_blocks, &j);
}
