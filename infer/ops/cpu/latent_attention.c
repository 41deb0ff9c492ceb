#include "infer/ops/cpu/latent_attention.h"

#include <math.h>
#include <string.h>

enum {
    PART_ROWS = 240,   /* most rows of a part */
    PART_STEP = 48,    /* parts begin at multiples of it: whole tiles of every kernel */
    TILE_ROWS = 48,    /* rows converted at a time by latent_part_gemm; a multiple of nr of most kernels */
    SERIAL_WORK = 1 << 18, /* multiply-adds below which waking the threads costs more than they save */
};

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

static size_t floats64(int64_t n)
{
    return round64((size_t)n * sizeof(float));
}

/* Hands out the scratch memory piece by piece, 64-byte aligned. */
static float *take(unsigned char **at, int64_t n)
{
    float *p = (float *)(void *)*at;
    *at += floats64(n);
    return p;
}

/* --- one part, by the tile of the matrix product --- */

/* Heads are worked on in groups of equal size, at most mr. */
static int head_group(const struct gemm_kernel *kernel, int n_head)
{
    int groups = (n_head + kernel->mr - 1) / kernel->mr;
    return (n_head + groups - 1) / groups;
}

static int tile_panels(const struct gemm_kernel *kernel)
{
    return (TILE_ROWS + kernel->nr - 1) / kernel->nr;
}

size_t latent_part_gemm_bytes(const struct latent_kernel *kernel, int n_head, int dim)
{
    const struct gemm_kernel *gemm = kernel->gemm;
    const int64_t group = head_group(gemm, n_head), padded = (n_head + group - 1) / group * group;
    return 64 + floats64(padded * dim) + floats64((int64_t)TILE_ROWS * dim) + floats64((int64_t)gemm->nr * dim) +
           floats64(padded * tile_panels(gemm) * gemm->nr) + floats64((int64_t)TILE_ROWS * group);
}

/* Logits of one head in one tile to probabilities against the new maximum; what was summed so far follows the maximum. */
static void softmax_tile(const struct latent_kernel *kernel, const struct latent_part *part, int head, float *p, int count)
{
    const int rank = part->item->rank;
    float top = kernel->max(p, count), *z = part->z + (int64_t)head * rank;
    if (!(top > part->max[head])) {
        if (part->max[head] == -INFINITY && top == -INFINITY) { /* -inf less -inf is not a number */
            memset(p, 0, (size_t)count * sizeof *p);
            return;
        }
    } else {
        float factor = expf(part->max[head] - top);
        for (int i = 0; i < rank; i++)
            z[i] *= factor;
        part->sum[head] *= factor;
        part->max[head] = top;
    }
    part->sum[head] += kernel->exp_sum(p, p, count, 1, part->max[head]);
}

void latent_part_gemm(const struct latent_kernel *kernel, const struct latent_part *part, void *scratch)
{
    const struct latent_attention *a = part->item;
    const struct gemm_kernel *gemm = kernel->gemm;
    const int heads = a->n_head, rank = a->rank, dim = a->rank + a->rope, nr = gemm->nr, group = head_group(gemm, heads);
    const int64_t ld = (int64_t)tile_panels(gemm) * nr, part_rows = part->end - part->begin;
    const int64_t padded = (heads + group - 1) / group * group;
    const float one = 1;
    struct latent_prepared *prepared = scratch;
    unsigned char *at = (unsigned char *)scratch + 64;
    float *q = take(&at, padded * dim), *x = take(&at, (int64_t)TILE_ROWS * dim), *panel = take(&at, (int64_t)nr * dim);
    float *s = take(&at, padded * ld), *p = take(&at, (int64_t)TILE_ROWS * group);
    for (int h = 0; prepared->item != a && h < heads; h += group)
        gemm->pack_rows(q + (int64_t)h * dim, group, a->q + (int64_t)h * dim, dim, heads - h < group ? heads - h : group, dim);
    prepared->item = a;
    for (int h = 0; h < heads; h++) {
        part->max[h] = -INFINITY;
        part->sum[h] = 0;
    }
    memset(part->z, 0, (size_t)heads * (size_t)rank * sizeof *part->z);
    for (int64_t row = part->begin; row < part->end; row += TILE_ROWS) {
        const int count = part->end - row < TILE_ROWS ? (int)(part->end - row) : TILE_ROWS;
        for (int j = 0; j < count; j++)
            gemm->to_f32(x + (int64_t)j * dim, (const char *)a->rows + (size_t)(row + j) * a->row_bytes, a->type, dim);
        for (int j = 0; j < count; j += nr) {
            const int cols = count - j < nr ? count - j : nr;
            gemm->pack_rows(panel, nr, x + (int64_t)j * dim, dim, cols, dim);
            for (int h = 0; h < heads; h += group)
                gemm->tile(dim, q + (int64_t)h * dim, group, panel, nr, s + h * ld + j, ld, heads - h < group ? heads - h : group,
                           cols, &a->scale, false);
        }
        for (int h = 0; h < heads; h++) {
            float *logits = s + h * ld;
            for (int j = 0; a->bias && j < count; j++)
                logits[j] += a->bias[row + j];
            if (part->logits)
                memcpy(part->logits + h * part_rows + (row - part->begin), logits, (size_t)count * sizeof *logits);
            softmax_tile(kernel, part, h, logits, count);
        }
        for (int h = 0; h < heads; h += group) {
            const int rows = heads - h < group ? heads - h : group;
            gemm->pack_rows(p, group, s + h * ld, ld, rows, count);
            for (int r = 0; r < rank; r += nr)
                gemm->tile(count, p, group, x + r, dim, part->z + (int64_t)h * rank + r, rank, rows, rank - r < nr ? rank - r : nr,
                           &one, true);
        }
    }
}

/* --- all parts, and their sum --- */

static int64_t count_parts(int64_t n)
{
    return (n + PART_ROWS - 1) / PART_ROWS;
}

struct head_total {
    float max, inverse_sum; /* over all parts; inverse_sum 0 when everything is masked */
};

struct job {
    const struct latent_kernel *kernel;
    const struct latent_attention *items;
    struct latent_part *parts;
    const int64_t *first_part; /* (n_items + 1) */
    struct head_total *totals; /* (n_items, n_head) */
    unsigned char *scratch;    /* per thread */
    size_t scratch_bytes;
};

static size_t part_scratch_bytes(const struct latent_kernel *kernel, int n_head, int dim)
{
    return round64(kernel->part ? kernel->part_scratch_bytes(kernel, n_head, dim) : latent_part_gemm_bytes(kernel, n_head, dim));
}

static void run_parts(void *ctx, int64_t begin, int64_t end, int worker)
{
    const struct job *j = ctx;
    void (*part)(const struct latent_kernel *, const struct latent_part *, void *) =
        j->kernel->part ? j->kernel->part : latent_part_gemm;
    for (int64_t i = begin; i < end; i++)
        part(j->kernel, &j->parts[i], j->scratch + (size_t)worker * j->scratch_bytes);
}

/* Heads of all items, one after the other: item i / n_head, head i % n_head. */
static void merge_heads(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct job *j = ctx;
    const int heads = j->items->n_head;
    for (int64_t i = begin; i < end; i++) {
        const int64_t h = i % heads;
        const struct latent_attention *a = &j->items[i / heads];
        const struct latent_part *first = j->parts + j->first_part[i / heads], *last = j->parts + j->first_part[i / heads + 1];
        float top = first->max[h], sum = 0, *z = a->z + h * a->rank;
        for (const struct latent_part *p = first; p < last; p++)
            top = p->max[h] > top ? p->max[h] : top;
        for (const struct latent_part *p = first; p < last; p++)
            sum += p->max[h] == -INFINITY ? 0 : p->sum[h] * expf(p->max[h] - top);
        const float inverse = top == -INFINITY ? 0 : 1 / sum;
        j->totals[i] = (struct head_total){top, inverse};
        memset(z, 0, (size_t)a->rank * sizeof *z);
        for (const struct latent_part *p = first; p < last; p++)
            if (p->max[h] != -INFINITY)
                j->kernel->axpy(z, inverse * expf(p->max[h] - top), p->z + h * a->rank, DTYPE_F32, a->rank);
    }
}

static void add_weights(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct job *j = ctx;
    float p[PART_ROWS];
    for (int64_t i = begin; i < end; i++) {
        const struct latent_part *part = &j->parts[i];
        const int64_t rows = part->end - part->begin;
        const struct head_total *total = j->totals + (part->item - j->items) * part->item->n_head;
        for (int h = 0; part->logits && h < part->item->n_head; h++) {
            if (total[h].max == -INFINITY)
                continue;
            j->kernel->exp_sum(p, part->logits + h * rows, rows, 1, total[h].max);
            j->kernel->axpy(part->item->weight + part->begin, total[h].inverse_sum, p, DTYPE_F32, rows);
        }
    }
}

size_t latent_attention_bytes(const struct latent_kernel *kernel, int n_head, int rank, int rope, int64_t total_rows, int n_items,
                              int threads)
{
    const int64_t parts = total_rows / PART_ROWS + n_items; /* at least the sum of all count_parts */
    const size_t part = sizeof(struct latent_part) + 2 * floats64(n_head) + floats64((int64_t)n_head * rank);
    return (size_t)threads * part_scratch_bytes(kernel, n_head, rank + rope) + (size_t)parts * (part + floats64(n_head) + 64) +
           (size_t)total_rows * (size_t)n_head * sizeof(float) + round64(((size_t)n_items + 1) * sizeof(int64_t)) +
           round64((size_t)n_items * (size_t)n_head * sizeof(struct head_total)) + 64;
}

void latent_attention_run(const struct latent_kernel *kernel, const struct latent_attention *items, int n_items,
                          struct thread_pool *pool, void *scratch)
{
    if (n_items < 1)
        return;
    const int heads = items->n_head, rank = items->rank, dim = rank + items->rope;
    int64_t n_parts = 0, total = 0;
    bool weights = false;
    struct job j = {.kernel = kernel, .items = items, .scratch = scratch};
    j.scratch_bytes = part_scratch_bytes(kernel, heads, dim);
    for (int i = 0; i < pool_size(pool); i++)
        *(struct latent_prepared *)(void *)(j.scratch + (size_t)i * j.scratch_bytes) = (struct latent_prepared){NULL};
    unsigned char *at = j.scratch + (size_t)pool_size(pool) * j.scratch_bytes;
    int64_t *first_part = (int64_t *)(void *)at;
    at += round64(((size_t)n_items + 1) * sizeof *first_part);
    j.first_part = first_part;
    j.totals = (struct head_total *)(void *)at;
    at += round64((size_t)n_items * (size_t)heads * sizeof *j.totals);
    for (int i = 0; i < n_items; i++) {
        first_part[i] = n_parts;
        n_parts += count_parts(items[i].n);
        total += items[i].n;
        weights |= items[i].weight != NULL;
    }
    first_part[n_items] = n_parts;
    j.parts = (struct latent_part *)(void *)at;
    at += round64((size_t)n_parts * sizeof *j.parts);
    for (int i = 0; i < n_items; i++) {
        /* Parts of about equal length, so that threads finish together. */
        const int64_t count = count_parts(items[i].n);
        int64_t length = (items[i].n + count - 1) / count, begin = 0;
        length = (length + PART_STEP - 1) / PART_STEP * PART_STEP;
        for (int64_t p = 0; p < count; p++, begin += length) {
            struct latent_part *part = &j.parts[first_part[i] + p];
            const int64_t end = begin + length < items[i].n ? begin + length : items[i].n;
            *part = (struct latent_part){.item = &items[i], .begin = begin, .end = end};
            part->max = take(&at, heads);
            part->sum = take(&at, heads);
            part->z = take(&at, (int64_t)heads * rank);
            if (items[i].weight)
                part->logits = take(&at, heads * (end - begin));
        }
    }
    if (total * heads * (dim + rank) < SERIAL_WORK)
        pool = NULL;
    pool_for(pool, n_parts, 1, run_parts, &j);
    pool_for(pool, (int64_t)n_items * heads, heads > 4 ? 4 : heads, merge_heads, &j);
    if (weights)
        pool_for(pool, n_parts, 4, add_weights, &j);
}
