#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/random.h"
#include "infer/model/session.h"
#include "infer/model/model.h"
#include "infer/ops/neuron_major.h"
#include "tools/activity.h"
#include "tools/arguments.h"
#include "tools/bench_model.h"
#include "tools/bench_peak.h"
#include "tools/cache_options.h"
#include "tools/command.h"
#include "tools/open_model.h"

#define MAX_POINTS 16
#define LIMIT_RUNS 5
#define LIMIT_BYTES ((size_t)320 << 20)
#define DECODE_STEPS 16 /* timed steps of a decode point, after one to warm up */

struct arguments {
    const char *model;
    long long batch[MAX_POINTS], depth[MAX_POINTS];
    int n_batch, n_depth, prefill;
    bool json;
    struct plm_session_options session;
};

static const struct argp_option options[] = {
    {"batch", 'b', "LIST", 0, "sequences that decode together, at no depth (default 1,2,4,8,16,32,64,128,256)", 0},
    {"depth", 'd', "LIST", 0, "tokens already in the cache when one sequence decodes (default 0)", 0},
    {"prefill", 'p', "N", 0, "length of the prompt that is prefilled at each depth (default 512; 0: none)", 0},
    {"threads", 't', "N", 0, "threads; 0: one per processor (default)", 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static int parse_list(struct argp_state *state, const char *name, char *arg, long long *out, long long low)
{
    int n = 0;
    for (char *part = strtok(arg, ","); part; part = strtok(NULL, ",")) {
        if (n == MAX_POINTS)
            argp_error(state, "--%s has more than %d entries", name, MAX_POINTS);
        out[n++] = argument_range(state, name, part, low, 1 << 20);
    }
    return n;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &a->session; return 0;
    case 'b': a->n_batch = parse_list(state, "batch", arg, a->batch, 1); return 0;
    case 'd': a->n_depth = parse_list(state, "depth", arg, a->depth, 0); return 0;
    case 'p': a->prefill = argument_whole(state, "prefill", arg); return 0;
    case 't': a->session.n_threads = argument_whole(state, "threads", arg); return 0;
    case 'j': a->json = true; return 0;
    case ARGP_KEY_ARG: argument_only(state, "MODEL", arg, &a->model); return 0;
    case ARGP_KEY_END:
        if (!a->model)
            argp_error(state, "MODEL is required");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cache_argp, 0, "Cache:", 1}, {0}};

static const struct argp parser = {options, parse, "MODEL",
    "Time decoding by the number of sequences and by depth, and prefill by depth, on random tokens. " MODEL_HELP "\v"
    "Example: plm bench decode model.gguf --batch 1,64 --depth 0,4096 --cache-type f16", children, 0, 0};

struct bench {
    const struct plm_model *model;
    struct engine *engine;
    struct sequence_options sequence;
    float *logits; /* (largest batch, V) */
    json_t *rows;
    double read_limit; /* GB/s of a plain read, measured beforehand */
    double peak;       /* GOP/s of the multiply-adds used, likewise */
    const char *peak_name;
    bool json, dense;
};

static int32_t random_token(const struct bench *b, uint64_t i)
{
    return (int32_t)(random_u64(1, RANDOM_TEST, 2, i) % (uint64_t)b->model->config.vocab_size);
}

/* Append n random tokens; seconds it took. */
static int append(struct bench *b, struct sequence *s, int64_t n, double *seconds, struct plm_status *st)
{
    int32_t *tokens = malloc((size_t)(n ? n : 1) * sizeof *tokens);
    if (!tokens)
        return status_no_memory(st, (size_t)n * sizeof *tokens, "tokens");
    for (int64_t i = 0; i < n; i++)
        tokens[i] = random_token(b, (uint64_t)i);
    const double start = seconds_now();
    int code = n ? engine_step(b->engine, &(struct engine_item){.sequence = s, .tokens = tokens, .n = n, .logits = b->logits}, 1, st) : PLM_OK;
    *seconds = seconds_now() - start;
    free(tokens);
    return code;
}

static int compare(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* Median seconds of a step in which each of n sequences takes one token. */
static int time_decode(struct bench *b, struct sequence **s, int n, double *seconds, struct plm_status *st)
{
    struct engine_item *items = calloc((size_t)n, sizeof *items);
    int32_t *tokens = calloc((size_t)n, sizeof *tokens);
    double times[DECODE_STEPS];
    int code = items && tokens ? PLM_OK : status_no_memory(st, (size_t)n * sizeof *items, "a batch");
    for (int step = -1; step < DECODE_STEPS && !code; step++) {
        for (int i = 0; i < n; i++) {
            tokens[i] = random_token(b, (uint64_t)(1000 + step * n + i));
            items[i] = (struct engine_item){.sequence = s[i], .tokens = &tokens[i], .n = 1, .logits = b->logits + (size_t)i * (size_t)b->model->config.vocab_size};
        }
        const double start = seconds_now();
        code = engine_step(b->engine, items, n, st);
        if (step >= 0)
            times[step] = seconds_now() - start;
    }
    if (!code) {
        qsort(times, DECODE_STEPS, sizeof *times, compare);
        *seconds = times[DECODE_STEPS / 2];
    }
    free(items);
    free(tokens);
    return code;
}

/* The bytes of the weights that a step of one token must read: every matrix, of ffn_down what belongs to active neurons. The embedding
 * counts once, as the output head. */
static double weight_bytes(const struct bench *b)
{
    const struct model_config *c = &b->model->config;
    const struct model_weights *w = &b->model->weights;
    double bytes = (double)w->embed.rows * (double)dtype_row_bytes(w->embed.type, w->embed.cols);
    for (int layer = 0; layer < c->num_hidden_layers; layer++)
        for (int role = TENSOR_ATTN_NORM; role < TENSOR_FINAL_NORM; role++) {
            const struct weight *m = &w->layers[layer].at[role];
            struct neuron_layout l;
            int64_t active, neurons;
            engine_activity(b->engine, layer, &active, &neurons);
            const double all = (double)m->rows * (double)dtype_row_bytes(m->type, m->cols);
            if (role == TENSOR_DOWN && !b->dense && neurons && neuron_major_layout(&l, m->type, m->rows, m->cols))
                bytes += all - (double)l.row * (double)m->cols * (1 - (double)active / (double)neurons);
            else
                bytes += all;
        }
    return bytes;
}

/* Multiply-adds of a token of a prompt with the matrices of the layers; attention and the expansion of earlier keys come on top. */
static double layer_madds(const struct bench *b)
{
    const struct model_weights *w = &b->model->weights;
    double madds = 0;
    for (int layer = 0; layer < b->model->config.num_hidden_layers; layer++)
        for (int role = TENSOR_ATTN_NORM; role < TENSOR_FINAL_NORM; role++)
            madds += w->layers[layer].at[role].rows > 1 ? (double)w->layers[layer].at[role].rows * (double)w->layers[layer].at[role].cols : 0;
    return madds;
}

/* rate: bytes read in a second when decoding one sequence, operations in a second when prefilling; 0: neither. */
static void report(struct bench *b, const char *what, int64_t sequences, int64_t depth, double tokens_per_s, double relative, double rate)
{
    const bool prefill = !strcmp(what, "prefill");
    const double of_limit = rate / (1e9 * (prefill ? b->peak : b->read_limit));
    if (b->json) {
        json_t *row = json_pack("{s:s, s:I, s:I, s:f}", "what", what, "sequences", (json_int_t)sequences, "depth", (json_int_t)depth, "tokens_per_s",
                                tokens_per_s);
        if (rate > 0) {
            json_object_set_new(row, prefill ? "gop_per_s" : "gb_per_s", json_real(rate / 1e9));
            json_object_set_new(row, prefill ? "of_peak" : "of_read_limit", json_real(of_limit));
        }
        json_array_append_new(b->rows, row);
        return;
    }
    printf("%-8s %9lld %7lld %12.1f", what, (long long)sequences, (long long)depth, tokens_per_s);
    if (relative > 0)
        printf(" %8.2fx", relative);
    else if (rate > 0)
        printf(" %9s", "");
    if (rate > 0)
        printf(" %7.1f %-5s %5.0f %%", rate / 1e9, prefill ? "GOP/s" : "GB/s", 100 * of_limit);
    putchar('\n');
}

static int measure_batches(struct bench *b, const struct arguments *a, struct plm_status *st)
{
    double one = 0;
    for (int i = 0; i < a->n_batch; i++) {
        const int n = (int)a->batch[i];
        struct sequence **s = calloc((size_t)n, sizeof *s);
        struct sequence_options o = b->sequence;
        o.capacity = DECODE_STEPS + 8;
        double seconds = 0;
        int code = s ? PLM_OK : status_no_memory(st, (size_t)n * sizeof *s, "sequences");
        for (int k = 0; k < n && !code; k++)
            code = sequence_create(&s[k], b->engine, &o, st);
        if (!code)
            code = time_decode(b, s, n, &seconds, st);
        for (int k = 0; k < n && s; k++)
            sequence_destroy(s[k]);
        free(s);
        if (code)
            return code;
        one = n == 1 ? 1 / seconds : one;
        report(b, "decode", n, 0, n / seconds, one > 0 ? n / seconds / one : 0, n == 1 ? weight_bytes(b) / seconds : 0);
    }
    return PLM_OK;
}

static int measure_depths(struct bench *b, const struct arguments *a, struct plm_status *st)
{
    for (int i = 0; i < a->n_depth; i++) {
        struct sequence *s = NULL;
        struct sequence_options o = b->sequence;
        o.capacity = a->depth[i] + a->prefill + DECODE_STEPS + 8;
        const struct model_config *c = &b->model->config;
        const size_t slot_bytes = dtype_row_bytes(o.type, c->kv_lora_rank) + dtype_row_bytes(o.type, c->qk_rope_head_dim);
        double fill, prefill = 0, seconds = 0;
        int code = sequence_create(&s, b->engine, &o, st);
        if (!code)
            code = append(b, s, a->depth[i], &fill, st);
        if (!code)
            code = time_decode(b, &s, 1, &seconds, st);
        const double cache_bytes = code ? 0 : (double)sequence_slots(s) * (double)slot_bytes;
        if (!code && a->prefill && o.policy.policy == POLICY_FULL) /* a compressed sequence takes further tokens one by one */
            code = append(b, s, a->prefill, &prefill, st);
        sequence_destroy(s);
        if (code)
            return code;
        report(b, "decode", 1, a->depth[i], 1 / seconds, 0, (weight_bytes(b) + cache_bytes) / seconds);
        if (prefill > 0)
            report(b, "prefill", 1, a->depth[i], a->prefill / prefill, 0, 2 * layer_madds(b) * a->prefill / prefill);
    }
    return PLM_OK;
}

static int open_engine(struct bench *b, const struct arguments *a, struct plm_status *st)
{
    long long widest = 1, deepest = 0;
    for (int i = 0; i < a->n_batch; i++)
        widest = a->batch[i] > widest ? a->batch[i] : widest;
    for (int i = 0; i < a->n_depth; i++)
        deepest = a->depth[i] > deepest ? a->depth[i] : deepest;
    struct engine_options eo = {.n_threads = a->session.n_threads, .dense = a->session.dense, .max_batch = (int)widest, .context = deepest + a->prefill + DECODE_STEPS + 8};
    int code = sequence_options_by_name(&b->sequence, &a->session, st);
    if (code)
        return code;
    eo.policies = b->sequence.policy.policy != POLICY_FULL;
    b->logits = malloc((size_t)widest * (size_t)b->model->config.vocab_size * sizeof *b->logits);
    if (!b->logits)
        return status_no_memory(st, (size_t)widest * (size_t)b->model->config.vocab_size * sizeof *b->logits, "logits");
    return engine_create(&b->engine, b->model, &eo, st);
}

/* A plain read of the embedding, the largest matrix, or as much of it as is enough, and the peak of the multiply-adds that prefill uses: the
 * medians of several. */
static int measure_limits(struct bench *b, const struct arguments *a, struct plm_status *st)
{
    const struct weight *w = &b->model->weights.embed;
    size_t bytes = (size_t)w->rows * dtype_row_bytes(w->type, w->cols);
    const unsigned char *from = (const unsigned char *)w->data + (64 - (uintptr_t)w->data % 64) % 64;
    double rates[LIMIT_RUNS], peaks[LIMIT_RUNS];
    struct thread_pool *pool;
    bytes = (bytes - 64 < LIMIT_BYTES ? bytes - 64 : LIMIT_BYTES) / 64 * 64;
    int code = pool_create(&pool, a->session.n_threads, st);
    for (int run = -1; run < LIMIT_RUNS && !code; run++) {
        const double rate = bench_read_rate(from, bytes, pool);
        const double peak = bench_type_peak(ops_select(OPS_BEST), b->model->weights.layers[0].at[TENSOR_UP].type, pool, &b->peak_name);
        if (run >= 0)
            rates[run] = rate, peaks[run] = peak;
    }
    pool_destroy(pool);
    b->read_limit = code ? 0 : bench_median(rates, LIMIT_RUNS);
    b->peak = code ? 0 : bench_median(peaks, LIMIT_RUNS);
    return code;
}

int bench_decode(int argc, char **argv)
{
    struct arguments a = {.batch = {1, 2, 4, 8, 16, 32, 64, 128, 256}, .n_batch = 9, .depth = {0}, .n_depth = 1, .prefill = 512};
    struct plm_status st = {0};
    struct plm_model *model = NULL;
    struct bench b = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    int code = open_model(&model, a.model, NULL, &st);
    b.model = model, b.json = a.json, b.dense = a.session.dense, b.rows = json_array();
    if (!code)
        code = open_engine(&b, &a, &st);
    if (!code)
        code = measure_limits(&b, &a, &st);
    if (!code && !a.json)
        printf("plain read of memory: %.1f GB/s; %s multiply-adds: %.0f GOP/s\n\n%-8s %9s %7s %12s %9s %13s %8s\n", b.read_limit, b.peak_name, b.peak, "",
               "sequences", "depth", "tokens/s", "of one", "rate", "of limit");
    if (!code && b.sequence.policy.policy == POLICY_FULL)
        code = measure_batches(&b, &a, &st);
    if (!code)
        code = measure_depths(&b, &a, &st);
    if (!code && a.json) {
        json_t *all = json_pack("{s:f, s:s, s:f, s:O}", "read_limit_gb_per_s", b.read_limit, "peak_of", b.peak_name, "peak_gop_per_s", b.peak,
                                "rows", b.rows);
        activity_add(all, b.engine);
        json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(all);
    } else if (!code) {
        putchar('\n');
        activity_print(b.engine);
    }
    json_decref(b.rows);
    free(b.logits);
    engine_destroy(b.engine);
    plm_model_close(model);
    return code ? command_fail(&st) : 0;
}
