#include "infer/ops/cpu/sparse_rows.h"

#include <string.h>

enum {
    PART = 256,           /* columns: whole blocks of every type */
    SERIAL_BYTES = 32768, /* of rows: below this a second thread has nothing to gain */
    AHEAD = 2, /* rows whose bytes are asked for in advance: active rows lie apart, which the processor cannot foresee */
    LINE = 64,
};

struct job {
    const struct sparse_rows *s;
    int64_t n_active;
    void (*axpy)(float *y, float a, const void *row, enum dtype type, int64_t n);
};

static void prefetch(const char *p, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += LINE)
        __builtin_prefetch(p + at);
}

/* Parts [begin, end) of the columns. */
static void columns_run(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct job *job = ctx;
    const struct sparse_rows *s = job->s;
    int64_t first = begin * PART, last = end * PART < s->n ? end * PART : s->n;
    size_t row_bytes = dtype_row_bytes(s->type, s->ld), offset = dtype_row_bytes(s->type, first);
    int64_t block = dtype_info(s->type)->block_elements;
    size_t bytes = dtype_row_bytes(s->type, (last + block - 1) / block * block) - offset;
    const char *from = (const char *)s->rows + offset;
    if (!s->accumulate)
        memset(s->y + first, 0, (size_t)(last - first) * sizeof *s->y);
    for (int64_t i = 0; i < AHEAD && i < job->n_active; i++)
        prefetch(from + (size_t)s->active[i] * row_bytes, bytes);
    for (int64_t i = 0; i < job->n_active; i++) {
        if (i + AHEAD < job->n_active)
            prefetch(from + (size_t)s->active[i + AHEAD] * row_bytes, bytes);
        job->axpy(s->y + first, s->x[s->active[i]], from + (size_t)s->active[i] * row_bytes, s->type, last - first);
    }
}

int64_t sparse_rows_run(const struct sparse_rows *s, struct thread_pool *pool,
                        void (*axpy)(float *y, float a, const void *row, enum dtype type, int64_t n))
{
    struct job job = {s, 0, axpy};
    for (int64_t i = 0; i < s->n_rows; i++) { /* without a branch, which would be mispredicted often */
        s->active[job.n_active] = (int32_t)i;
        job.n_active += s->x[i] != 0;
    }
    int64_t parts = (s->n + PART - 1) / PART, threads = pool_size(pool);
    if (threads == 1 || (size_t)job.n_active * dtype_row_bytes(s->type, s->ld) < SERIAL_BYTES)
        columns_run(&job, 0, parts, 0);
    else
        pool_for(pool, parts, (parts + threads - 1) / threads, columns_run, &job);
    return job.n_active;
}
