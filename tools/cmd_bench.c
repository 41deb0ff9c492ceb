/* plm bench: what this machine can do and how much of it the kernels reach. */
#include <argp.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef HAVE_DNNL
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#endif

#include "infer/base/threads.h"
#include "infer/ops/ops.h"
#include "tools/arguments.h"
#include "tools/bench_attention.h"
#include "tools/bench_peak.h"
#include "tools/bench_model.h"
#include "tools/bench_neurons.h"
#include "tools/bench_train.h"
#include "tools/bench_weights.h"
#include "tools/command.h"

enum { RUNS = 7, ROWS = 2048 /* B * T of a step */, HEAD_ROWS = 512 /* rows per chunk of the head */ };
static const double RUN_SECONDS = 4e-3; /* a run repeats its product for about so long */

/* A weight matrix of the 10 M model: 10 layers, hidden 256, 4 heads of 64 + 32, v 64, kv_lora 128, FFN 1024, vocabulary 8192. */
struct weight {
    const char *name;
    int64_t rows, out, in;
    int count; /* products with it in one step */
};

static const struct weight weights[] = {
    {"q", ROWS, 384, 256, 10},      {"kv_a", ROWS, 160, 256, 10},  {"kv_b", ROWS, 512, 128, 10},
    {"o", ROWS, 256, 256, 10},      {"ffn up", ROWS, 1024, 256, 10}, {"ffn down", ROWS, 256, 1024, 10},
    {"head", HEAD_ROWS, 8192, 256, ROWS / HEAD_ROWS},
};
enum { N_WEIGHTS = sizeof weights / sizeof *weights };

enum pass { FORWARD, GRAD_INPUT, GRAD_WEIGHT, N_PASSES };
static const char *const pass_names[N_PASSES] = {"Y = X W^T", "dX = dY W", "dW += dY^T X"};

static struct gemm pass_product(const struct weight *w, enum pass pass, const float *x, const float *y, float *c)
{
    struct gemm g = {.alpha = 1, .b_type = DTYPE_F32, .c = c};
    switch (pass) {
    case FORWARD: /* x: X (rows, in), y: W (out, in) */
        g.m = w->rows, g.n = w->out, g.k = w->in, g.trans_b = true;
        break;
    case GRAD_INPUT: /* x: dY (rows, out), y: W (out, in) */
        g.m = w->rows, g.n = w->in, g.k = w->out;
        break;
    default: /* x: dY (rows, out), y: X (rows, in) */
        g.m = w->out, g.n = w->in, g.k = w->rows, g.trans_a = true, g.accumulate = true;
    }
    g.a = x, g.lda = g.trans_a ? g.m : g.k;
    g.b = y, g.ldb = g.trans_b ? g.k : g.n;
    g.ldc = g.n;
    return g;
}

#ifdef HAVE_DNNL
static void dnnl_product(const struct gemm *g)
{
    dnnl_sgemm(g->trans_a ? 'T' : 'N', g->trans_b ? 'T' : 'N', g->m, g->n, g->k, g->alpha, g->a, g->lda, g->b, g->ldb,
               g->accumulate ? 1.0f : 0.0f, g->c, g->ldc);
}
#endif

struct gemm_options {
    int threads;
    int json;
    struct bench_weights weights; /* type DTYPE_COUNT: the products of a training step instead */
};

/* Seconds of one product, by our own operations or by oneDNN. The other library's threads must be asleep. */
static double time_product(const struct gemm *g, const struct ops *ops, struct thread_pool *pool, bool dnnl)
{
    double flops = 2.0 * (double)g->m * (double)g->n * (double)g->k, start = 0;
    int repeats = 1 + (int)(RUN_SECONDS * 60e9 * pool_size(pool) / flops);
    for (int i = -1; i < repeats; i++) { /* the first is not timed */
        if (i == 0)
            start = seconds_now();
#ifdef HAVE_DNNL
        if (dnnl) {
            dnnl_product(g);
            continue;
        }
#endif
        ops->gemm(g, pool);
    }
    double seconds = (seconds_now() - start) / repeats;
#ifdef HAVE_DNNL
    if (dnnl)
        omp_pause_resource_all(omp_pause_soft); /* its threads would spin on into our next run */
#else
    (void)dnnl;
#endif
    return seconds;
}

static int compare_products(const struct gemm_options *options, const struct ops *ops, struct thread_pool *pool,
                            struct plm_status *st)
{
    int64_t most = (int64_t)ROWS * 1024 > (int64_t)HEAD_ROWS * 8192 ? (int64_t)ROWS * 1024 : (int64_t)HEAD_ROWS * 8192;
    size_t bytes = (size_t)most * sizeof(float);
    float *x = aligned_alloc(64, bytes), *y = aligned_alloc(64, bytes), *c = aligned_alloc(64, bytes);
    json_t *rows = json_array();
    int code = PLM_OK;
    if (!x || !y || !c || !rows) {
        code = status_no_memory(st, 3 * bytes, "the matrices of the benchmark");
        goto out;
    }
    for (int64_t i = 0; i < most; i++) {
        x[i] = (float)(i % 257) / 257 - 0.5f;
        y[i] = (float)(i % 263) / 263 - 0.5f;
        c[i] = 0;
    }
#ifdef HAVE_DNNL
    const bool with_dnnl = true;
    omp_set_num_threads(options->threads);
#else
    const bool with_dnnl = false;
#endif
    double peaks[N_WEIGHTS * N_PASSES], flops = 0, own_seconds = 0, dnnl_seconds = 0;
    int n_peaks = 0;
    if (!options->json) {
        printf("%d thread%s, %s; GFLOP/s\n\n", options->threads, options->threads == 1 ? "" : "s", ops->name);
        printf("%-9s %-13s %5s %5s %5s %9s %9s %9s", "weight", "product", "m", "n", "k", "FMA peak", "own", "own/peak");
        if (with_dnnl)
            printf(" %9s %9s", "oneDNN", "own/its");
        printf("\n");
    }
    for (int i = 0; i < N_WEIGHTS; i++)
        for (int pass = 0; pass < N_PASSES; pass++) {
            struct gemm g = pass_product(&weights[i], (enum pass)pass, x, y, c);
            double own[RUNS], dnnl[RUNS] = {0}, now[RUNS], work = 2.0 * (double)g.m * (double)g.n * (double)g.k;
            for (int run = 0; run < RUNS; run++) {
                now[run] = bench_fma_peak(ops, pool);
                own[run] = time_product(&g, ops, pool, false);
                if (with_dnnl)
                    dnnl[run] = time_product(&g, ops, pool, true);
            }
            double own_median = bench_median(own, RUNS), dnnl_median = bench_median(dnnl, RUNS), rate = 1e-9 * work / own_median;
            double peak = bench_median(now, RUNS);
            peaks[n_peaks++] = peak;
            flops += weights[i].count * work;
            own_seconds += weights[i].count * own_median;
            dnnl_seconds += weights[i].count * dnnl_median;
            if (options->json) {
                json_t *row = json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:f}", "weight", weights[i].name, "product",
                                        pass_names[pass], "m", (json_int_t)g.m, "n", (json_int_t)g.n, "k", (json_int_t)g.k,
                                        "peak_gflops", peak, "gflops", rate);
                if (with_dnnl)
                    json_object_set_new(row, "dnnl_gflops", json_real(1e-9 * work / dnnl_median));
                json_array_append_new(rows, row);
                continue;
            }
            printf("%-9s %-13s %5d %5d %5d %9.1f %9.1f %8.0f%%", weights[i].name, pass_names[pass], (int)g.m, (int)g.n, (int)g.k,
                   peak, rate, 100 * rate / peak);
            if (with_dnnl)
                printf(" %9.1f %9.2f", 1e-9 * work / dnnl_median, dnnl_median / own_median);
            printf("\n");
        }
    double rate = 1e-9 * flops / own_seconds, peak = bench_median(peaks, n_peaks);
    if (options->json) {
        json_t *all = json_pack("{s:i, s:s, s:f, s:f, s:f, s:O}", "threads", options->threads, "ops", ops->name, "peak_gflops",
                                peak, "gflops", rate, "of_peak", rate / peak, "products", rows);
        if (with_dnnl)
            json_object_set_new(all, "dnnl_gflops", json_real(1e-9 * flops / dnnl_seconds));
        if (json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6)))
            code = status_set(st, PLM_EIO, "cannot write the results to standard output");
        printf("\n");
        json_decref(all);
    } else {
        printf("\nall products of a step: peak %.1f, own %.1f GFLOP/s, %.0f%% of the peak", peak, rate, 100 * rate / peak);
        if (with_dnnl)
            printf("; oneDNN %.1f, own/its %.2f", 1e-9 * flops / dnnl_seconds, dnnl_seconds / own_seconds);
        printf("\n");
    }
out:
    json_decref(rows);
    free(x);
    free(y);
    free(c);
    return code;
}

static error_t gemm_parse(int key, char *arg, struct argp_state *state)
{
    struct gemm_options *options = state->input;
    char *end;
    long n;
    switch (key) {
    case 't':
        n = strtol(arg, &end, 10);
        if (*end || end == arg || n < 1 || n > 4096)
            argp_error(state, "--threads is '%s', expected a number from 1 to 4096", arg);
        options->threads = (int)n;
        return 0;
    case 'j':
        options->json = 1;
        return 0;
    case 'y':
        options->weights.type = dtype_by_name(arg);
        if (options->weights.type == DTYPE_COUNT)
            argp_error(state, "--type '%s' is unknown; expected f32, f16, bf16, q8_0, q4_0, q4_k or q6_k", arg);
        return 0;
    case 'r':
        n = strtol(arg, &end, 10);
        if (*end || end == arg || n < 1 || n > 4096)
            argp_error(state, "--rows is '%s', expected a number from 1 to 4096", arg);
        options->weights.rows = (int)n;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument '%s'", arg);
        return 0;
    case ARGP_KEY_END:
        if (options->weights.rows && options->weights.type == DTYPE_COUNT)
            argp_error(state, "--rows needs --type: it is for products with weights of one type");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int bench_gemm(int argc, char **argv)
{
    static const struct argp_option table[] = {
        {"threads", 't', "N", 0, "threads to use (default: one per processor)", 0},
        {"type", 'y', "TYPE", 0, "measure products with weights of this type, at 1 and 512 rows of activations", 0},
        {"rows", 'r', "M", 0, "with --type: this number of rows instead", 0},
        {"json", 'j', NULL, 0, "print one JSON object instead of a table", 0},
        {0},
    };
    static const struct argp parser = {
        table, gemm_parse, NULL,
        "Speed of the matrix products of a training step of the 10 M model, against the measured FMA peak and, where plm was "
        "built with it, oneDNN. Medians of several runs; peak, own and oneDNN take turns. PLM_OPS=avx2 or portable measures "
        "slower instruction sets. With --type: products with stored weights of that type, one row against a plain read of the same "
        "bytes, many rows against the peak of the multiply-adds used."
        "\vExample:\n  plm bench gemm --threads 2\n  plm bench gemm --type q4_k",
        NULL, NULL, NULL};
    struct gemm_options options = {.threads = threads_available(), .weights = {.type = DTYPE_COUNT}};
    if (argp_parse(&parser, argc, argv, 0, NULL, &options))
        return 1;
    struct plm_status st = {0};
    struct thread_pool *pool;
    if (pool_create(&pool, options.threads, &st))
        return command_fail(&st);
    options.weights.json = options.json;
    int code = options.weights.type == DTYPE_COUNT ? compare_products(&options, ops_select(OPS_BEST), pool, &st)
                                                   : bench_weights_run(&options.weights, ops_select(OPS_BEST), pool, &st);
    pool_destroy(pool);
    return code ? command_fail(&st) : 0;
}

int command_bench(int argc, char **argv)
{
    static const struct command benchmarks[] = {{"train", "a whole training step, beside other trainers", bench_train},
                                                {"gemm", "matrix products of a training step against the FMA peak and oneDNN", bench_gemm},
                                                {"attention", "attention over latent rows at depth against the FMA peak and the memory", bench_attention},
                                                {"decode", "decoding by batch and depth, and prefill, of a model", bench_decode},
                                                {"rollouts", "completions sampled many together against one at a time", bench_rollouts},
                                                {"neurons", "active neurons of a text, and those that half of the weights rule out", bench_neurons},
                                                {"model", "write a model of random weights to measure", bench_model},
                                                {NULL, NULL, NULL}};
    return command_dispatch(benchmarks, "plm bench gemm --threads 2", argc, argv);
}
