#include "tools/bench_weights.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/threads.h"
#include "tools/arguments.h"
#include "tools/bench_peak.h"

enum {
    RUNS = 7,
    IN = 2048,          /* as of ffn_up in PLM-1.8B */
    OUT_MANY = 1024,    /* rows of weights against many rows of activations */
    MANY = 512,
};
#define BYTES_ONE ((size_t)384 << 20) /* of weights against one row of activations: more than caches hold */

struct buffers {
    float *a, *c;
    void *weights;
};

static int64_t weight_rows(enum dtype type, int64_t m)
{
    return m == 1 ? (int64_t)(BYTES_ONE / dtype_row_bytes(type, IN)) : OUT_MANY;
}

/* Every row of the weights the same normal-looking numbers: what they are does not matter, only where they come from. */
static int buffers_create(struct buffers *b, enum dtype type, int64_t m, struct plm_status *st)
{
    int64_t n = weight_rows(type, m);
    size_t row_bytes = dtype_row_bytes(type, IN), bytes = (size_t)n * row_bytes;
    *b = (struct buffers){malloc((size_t)m * IN * sizeof(float)), calloc((size_t)(m * n), sizeof(float)),
                          aligned_alloc(64, (bytes + 63) / 64 * 64)};
    if (!b->a || !b->c || !b->weights)
        return status_no_memory(st, bytes, "the matrices of the benchmark");
    for (int64_t i = 0; i < m * IN; i++)
        b->a[i] = (float)(i * 7919 % 257) / 257 - 0.5f;
    dtype_from_f32(type, b->weights, b->a, IN);
    for (int64_t j = 1; j < n; j++)
        memcpy((char *)b->weights + (size_t)j * row_bytes, b->weights, row_bytes);
    return PLM_OK;
}

static void buffers_free(struct buffers *b)
{
    free(b->a);
    free(b->c);
    free(b->weights);
}

static double product_seconds(const struct gemm *g, const struct ops *ops, struct thread_pool *pool)
{
    double start = seconds_now();
    ops->gemm(g, pool);
    return seconds_now() - start;
}

/* One line of the table: m rows in the three precisions. */
static int measure_rows(const struct bench_weights *options, int64_t m, const struct ops *ops, struct thread_pool *pool,
                        json_t *list, struct plm_status *st)
{
    static const char *const precisions[] = {"full", "high", "fast"};
    struct buffers b;
    int code = buffers_create(&b, options->type, m, st);
    int64_t n = weight_rows(options->type, m);
    size_t bytes = (size_t)n * dtype_row_bytes(options->type, IN) / 64 * 64;
    double seconds[3][RUNS], limit[RUNS];
    const char *limit_name = "read";
    struct gemm g = {.m = m, .n = n, .k = IN, .trans_b = true, .alpha = 1, .a = b.a, .lda = IN, .b = b.weights, .ldb = IN,
                     .b_type = options->type, .c = b.c, .ldc = n};
    for (int run = -1; run < RUNS && !code; run++) { /* the first is not counted */
        double now = m == 1 ? bench_read_rate(b.weights, bytes, pool) : bench_type_peak(ops, options->type, pool, &limit_name);
        for (int p = 0; p < 3; p++) {
            g.precision = (enum precision)p;
            double s = product_seconds(&g, ops, pool);
            if (run >= 0)
                seconds[p][run] = s;
        }
        if (run >= 0)
            limit[run] = now;
    }
    for (int p = 0; p < 3 && !code; p++) {
        double s = bench_median(seconds[p], RUNS), most = bench_median(limit, RUNS);
        double gops = 2e-9 * (double)m * (double)n * IN / s, rate = 1e-9 * (double)bytes / s,
               share = (m == 1 ? rate : gops) / most;
        if (list)
            json_array_append_new(list, json_pack("{s:I, s:s, s:f, s:f, s:s, s:f, s:f}", "rows", (json_int_t)m, "precision",
                                                  precisions[p], "gops", gops, "weights_gbs", rate, "limit", limit_name,
                                                  "limit_rate", most, "of_limit", share));
        else
            printf("%5d %-9s %9.1f %9.2f   %-4s %9.1f %8.0f%%\n", (int)m, precisions[p], gops, rate, limit_name, most,
                   100 * share);
    }
    buffers_free(&b);
    return code;
}

int bench_weights_run(const struct bench_weights *options, const struct ops *ops, struct thread_pool *pool, struct plm_status *st)
{
    const char *type = dtype_info(options->type)->name;
    int threads = pool_size(pool), code = PLM_OK;
    json_t *list = options->json ? json_array() : NULL;
    if (options->json && !list)
        return status_no_memory(st, 0, "the results");
    if (!options->json)
        printf("%s weights, %d thread%s, %s\n\n%5s %-9s %9s %9s   %-14s %9s\n", type, threads, threads == 1 ? "" : "s", ops->name,
               "rows", "precision", "GOP/s", "GB/s", "limit", "of limit");
    if (options->rows)
        code = measure_rows(options, options->rows, ops, pool, list, st);
    else if (!(code = measure_rows(options, 1, ops, pool, list, st)))
        code = measure_rows(options, MANY, ops, pool, list, st);
    if (!code && options->json) {
        json_t *all = json_pack("{s:s, s:i, s:s, s:O}", "type", type, "threads", threads, "ops", ops->name, "products", list);
        if (!all || json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6)))
            code = status_set(st, PLM_EIO, "cannot write the results to standard output");
        printf("\n");
        json_decref(all);
    }
    json_decref(list);
    return code;
}
