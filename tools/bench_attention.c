#include "tools/bench_attention.h"

#include <argp.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/random.h"
#include "infer/ops/ops.h"
#include "tools/arguments.h"
#include "tools/bench_peak.h"
#include "tools/command.h"

enum { RUNS = 7, MAX_ROWS = 1 << 20 };
static const double RUN_SECONDS = 10e-3;        /* a run repeats its work for about so long */
static const size_t MEMORY_BYTES = 256ull << 20; /* rows of a kind: as many layers as fit, so that they come from memory */

static const struct shape {
    const char *name;
    int n_head, rank, rope, layers;
} shapes[] = {{"1.8b", 16, 512, 64, 32}, {"10m", 4, 128, 32, 10}};
#define N_SHAPES ((int)(sizeof shapes / sizeof *shapes))

static const int64_t depths[] = {512, 4096, 16384};
static const enum dtype types[] = {DTYPE_F16, DTYPE_Q8_0, DTYPE_F32};
#define N_DEPTHS ((int)(sizeof depths / sizeof *depths))
#define N_TYPES ((int)(sizeof types / sizeof *types))

struct arguments {
    const struct shape *shape;
    int64_t rows; /* 0: all depths */
    int threads;
    bool json;
};

static const struct argp_option options[] = {
    {"model", 'm', "NAME", 0, "1.8b (16 heads, rank 512, rope 64; default) or 10m (4 heads, rank 128, rope 32)", 0},
    {"rows", 'n', "N", 0, "rows of the cache (default: 512, 4096 and 16384)", 0},
    {"threads", 't', "N", 0, "threads (default: one per processor)", 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'm':
        a->shape = NULL;
        for (int i = 0; i < N_SHAPES; i++)
            if (!strcmp(shapes[i].name, arg))
                a->shape = &shapes[i];
        if (!a->shape)
            argp_error(state, "--model is '%s', expected 1.8b or 10m", arg);
        return 0;
    case 'n': a->rows = argument_range(state, "rows", arg, 1, MAX_ROWS); return 0;
    case 't': a->threads = (int)argument_range(state, "threads", arg, 1, 4096); return 0;
    case 'j': a->json = true; return 0;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument '%s'", arg); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {options, parse, NULL,
    "Speed of the absorbed attention of one layer over a latent cache, by depth and row type: GFLOP/s against the measured FMA peak, GB/s "
    "against a plain read of the same bytes, and the time of two float32 matrix products with a softmax between them for comparison. Rows come "
    "from memory, as between the layers of a model. Medians of several runs that take turns. PLM_OPS=avx2 or portable measures slower "
    "instruction sets.\vExample: plm bench attention --model 1.8b --threads 2", 0, 0, 0};

struct bench {
    const struct ops *ops;
    struct thread_pool *pool;
    struct latent_attention item; /* rows of the layer to take next */
    unsigned char *rows;          /* (layers, n, row_bytes) */
    size_t layer_bytes;
    int layers, next;
    float *scores;                /* (n_head, n) for the two products */
    void *scratch;
};

static void next_layer(struct bench *b)
{
    b->next = (b->next + 1) % b->layers;
    b->item.rows = b->rows + (size_t)b->next * b->layer_bytes;
}

static void one_pass(struct bench *b)
{
    next_layer(b);
    b->ops->latent_attention(&b->item, 1, b->pool, b->scratch);
}

/* The same with the matrix product of the table: scores, softmax, sums. float32 rows only. */
static void two_products(struct bench *b)
{
    const struct latent_attention *a = &b->item;
    const int64_t dim = a->rank + a->rope;
    next_layer(b);
    b->ops->gemm(&(struct gemm){.m = a->n_head, .n = a->n, .k = dim, .trans_b = true, .alpha = 1, .a = a->q, .lda = dim, .b = a->rows,
                                .ldb = dim, .c = b->scores, .ldc = a->n}, b->pool);
    for (int h = 0; h < a->n_head; h++) {
        float *p = b->scores + h * a->n, sum = b->ops->exp_sum(p, p, a->n, a->scale, a->scale * b->ops->max(p, a->n));
        b->ops->scale(p, 1 / sum, a->n);
    }
    b->ops->gemm(&(struct gemm){.m = a->n_head, .n = a->rank, .k = a->n, .alpha = 1, .a = b->scores, .lda = a->n, .b = a->rows, .ldb = dim,
                                .c = a->z, .ldc = a->rank}, b->pool);
}

static double time_calls(struct bench *b, void (*call)(struct bench *))
{
    double start = seconds_now(), seconds;
    int calls = 0;
    do {
        call(b);
        calls++;
        seconds = seconds_now() - start;
    } while (seconds < RUN_SECONDS);
    return seconds / calls;
}

struct result {
    double peak, read, seconds, products; /* GFLOP/s, GB/s, s, s (0: not measured) */
};

/* Room for the rows of as many layers as fit MEMORY_BYTES, all the same random rows. */
static int fill_rows(struct bench *b, struct plm_status *st)
{
    const struct latent_attention *a = &b->item;
    const int dim = a->rank + a->rope;
    b->layer_bytes = ((size_t)a->n * a->row_bytes + 63) / 64 * 64;
    b->layers = b->layer_bytes < MEMORY_BYTES ? (int)(MEMORY_BYTES / b->layer_bytes) : 1;
    b->rows = aligned_alloc(64, (size_t)b->layers * b->layer_bytes);
    float *row = malloc((size_t)dim * sizeof *row);
    if (!b->rows || !row) {
        free(row);
        return status_no_memory(st, (size_t)b->layers * b->layer_bytes, "the rows of the benchmark");
    }
    for (int64_t j = 0; j < a->n; j++) {
        for (int i = 0; i < dim; i++)
            row[i] = (float)random_normal(1, RANDOM_TEST, 1, (uint64_t)(j * dim + i));
        dtype_from_f32(a->type, b->rows + (size_t)j * a->row_bytes, row, dim);
    }
    for (int layer = 1; layer < b->layers; layer++)
        memcpy(b->rows + (size_t)layer * b->layer_bytes, b->rows, (size_t)a->n * a->row_bytes);
    free(row);
    return PLM_OK;
}

static int measure(struct bench *b, struct result *r, struct plm_status *st)
{
    const size_t all = (size_t)b->layers * b->layer_bytes;
    double peak[RUNS], read[RUNS], seconds[RUNS], products[RUNS] = {0};
    const bool with_products = b->item.type == DTYPE_F32;
    if (with_products && !(b->scores = malloc((size_t)b->item.n_head * (size_t)b->item.n * sizeof *b->scores)))
        return status_no_memory(st, (size_t)b->item.n_head * (size_t)b->item.n * sizeof *b->scores, "the scores of the benchmark");
    one_pass(b); /* not timed */
    for (int run = 0; run < RUNS; run++) {
        peak[run] = bench_fma_peak(b->ops, b->pool);
        read[run] = bench_read_rate(b->rows, all, b->pool);
        seconds[run] = time_calls(b, one_pass);
        if (with_products)
            products[run] = time_calls(b, two_products);
    }
    *r = (struct result){bench_median(peak, RUNS), bench_median(read, RUNS), bench_median(seconds, RUNS), bench_median(products, RUNS)};
    return PLM_OK;
}

static int bench_rows(const struct arguments *arguments, const struct ops *ops, struct thread_pool *pool, enum dtype type, int64_t n,
                      struct result *r, struct plm_status *st)
{
    const struct shape *s = arguments->shape;
    const int dim = s->rank + s->rope;
    const size_t scratch = (ops->latent_attention_scratch_bytes(s->n_head, s->rank, s->rope, n, 1, pool_size(pool)) + 63) / 64 * 64;
    float *q = malloc((size_t)s->n_head * (size_t)dim * sizeof *q), *z = malloc((size_t)s->n_head * (size_t)s->rank * sizeof *z);
    struct bench b = {.ops = ops, .pool = pool, .scratch = aligned_alloc(64, scratch),
                      .item = {.n_head = s->n_head, .rank = s->rank, .rope = s->rope, .q = q, .row_bytes = dtype_row_bytes(type, dim),
                               .type = type, .n = n, .scale = 1 / sqrtf((float)dim), .z = z}};
    int code = PLM_OK;
    if (!q || !z || !b.scratch)
        code = status_no_memory(st, scratch, "the work space of the benchmark");
    for (int i = 0; !code && i < s->n_head * dim; i++)
        q[i] = (float)random_normal(1, RANDOM_TEST, 2, (uint64_t)i);
    if (!code)
        code = fill_rows(&b, st);
    if (!code)
        code = measure(&b, r, st);
    free(q);
    free(z);
    free(b.scratch);
    free(b.rows);
    free(b.scores);
    return code;
}

/* One line of the table, or one object of the array. */
static int report(const struct arguments *a, enum dtype type, int64_t n, const struct result *r, json_t *array, struct plm_status *st)
{
    const struct shape *s = a->shape;
    const double flops = 2.0 * s->n_head * (2 * s->rank + s->rope) * (double)n, rate = 1e-9 * flops / r->seconds;
    const double bytes = (double)dtype_row_bytes(type, s->rank + s->rope) * (double)n, read = 1e-9 * bytes / r->seconds;
    if (array) {
        json_t *row = json_pack("{s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "type", dtype_info(type)->name, "rows", (json_int_t)n,
                                "microseconds", 1e6 * r->seconds, "gflops", rate, "peak_gflops", r->peak, "gbytes_per_second", read,
                                "read_gbytes_per_second", r->read, "all_layers_milliseconds", 1e3 * r->seconds * s->layers);
        if (row && r->products > 0)
            json_object_set_new(row, "two_products_microseconds", json_real(1e6 * r->products));
        return json_array_append_new(array, row) ? status_no_memory(st, 0, "the results") : PLM_OK;
    }
    printf("%-5s %6lld %9.1f %9.2f %9.1f %9.1f %7.0f%% %7.2f %7.2f %7.0f%%", dtype_info(type)->name, (long long)n, 1e6 * r->seconds,
           1e3 * r->seconds * s->layers, rate, r->peak, 100 * rate / r->peak, read, r->read, 100 * read / r->read);
    if (r->products > 0)
        printf(" %9.1f %6.2f", 1e6 * r->products, r->products / r->seconds);
    printf("\n");
    return PLM_OK;
}

static int compare(const struct arguments *a, const struct ops *ops, struct thread_pool *pool, struct plm_status *st)
{
    json_t *array = a->json ? json_array() : NULL;
    int code = PLM_OK;
    if (!a->json) {
        printf("%s: %d heads, rank %d, rope %d; %d thread%s, %s; us per layer, ms for %d layers, GFLOP/s, GB/s\n\n", a->shape->name,
               a->shape->n_head, a->shape->rank, a->shape->rope, a->threads, a->threads == 1 ? "" : "s", ops->name, a->shape->layers);
        printf("%-5s %6s %9s %9s %9s %9s %8s %7s %7s %8s %9s %6s\n", "type", "rows", "us", "ms", "GFLOP/s", "FMA peak", "own/peak", "GB/s",
               "read", "own/read", "2 gemm us", "/ own");
    }
    for (int t = 0; !code && t < N_TYPES; t++)
        for (int d = 0; !code && d < (a->rows ? 1 : N_DEPTHS); d++) {
            struct result r = {0};
            const int64_t n = a->rows ? a->rows : depths[d];
            code = bench_rows(a, ops, pool, types[t], n, &r, st);
            if (!code)
                code = report(a, types[t], n, &r, array, st);
        }
    if (!code && a->json) {
        json_t *all = json_pack("{s:s, s:i, s:s, s:O}", "model", a->shape->name, "threads", a->threads, "ops", ops->name, "attention", array);
        if (json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6)))
            code = status_set(st, PLM_EIO, "cannot write the results to standard output");
        printf("\n");
        json_decref(all);
    }
    json_decref(array);
    return code;
}

int bench_attention(int argc, char **argv)
{
    struct arguments a = {.shape = shapes, .threads = threads_available()};
    if (argp_parse(&parser, argc, argv, 0, NULL, &a))
        return 1;
    struct plm_status st = {0};
    struct thread_pool *pool;
    if (pool_create(&pool, a.threads, &st))
        return command_fail(&st);
    const int code = compare(&a, ops_select(OPS_BEST), pool, &st);
    pool_destroy(pool);
    return code ? command_fail(&st) : 0;
}
