#include "tools/bench_train.h"

#include <argp.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "infer/base/random.h"
#include "optim/adamw.h"
#include "optim/clip.h"
#include "tools/arguments.h"
#include "tools/command.h"
#include "train/matmul.h"
#include "train/step.h"

#define MAX_STEPS 1000

static const struct shape {
    const char *name;
    struct model_config model;
    int rows, seq_len;
} shapes[] = {
    {"10m", {.num_hidden_layers = 10, .hidden_size = 256, .num_attention_heads = 4, .kv_lora_rank = 128, .qk_nope_head_dim = 64, .qk_rope_head_dim = 32,
             .v_head_dim = 64, .intermediate_size = 1024, .vocab_size = 8192, .max_position_embeddings = 256, .rope_theta = 1e5f, .rms_norm_eps = 1e-6f,
             .initializer_range = 0.02f}, 8, 256},
    {"110m", {.num_hidden_layers = 12, .hidden_size = 768, .num_attention_heads = 12, .kv_lora_rank = 256, .qk_nope_head_dim = 64, .qk_rope_head_dim = 32,
              .v_head_dim = 64, .intermediate_size = 3072, .vocab_size = 32768, .max_position_embeddings = 512, .rope_theta = 1e5f, .rms_norm_eps = 1e-6f,
              .initializer_range = 0.02f}, 4, 512},
};
#define N_SHAPES ((int)(sizeof shapes / sizeof *shapes))

struct arguments {
    const struct shape *shape;
    int steps, threads;
    bool json;
};

static const struct argp_option options[] = {
    {"model", 'm', "NAME", 0, "10m (B=8, T=256; default) or 110m (B=4, T=512)", 0},
    {"steps", 's', "N", 0, "timed steps after one warm-up (default 5)", 0},
    {"threads", 't', "N", 0, "threads; 0: one per processor (default)", 0},
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
            argp_error(state, "--model is '%s', expected 10m or 110m", arg);
        return 0;
    case 's':
        a->steps = (int)argument_range(state, "steps", arg, 1, MAX_STEPS);
        return 0;
    case 't': a->threads = argument_whole(state, "threads", arg); return 0;
    case 'j': a->json = true; return 0;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument '%s'", arg); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {options, parse, NULL,
    "Time whole training steps (forward, backward, clipping, AdamW) in float32 on random tokens: median and best tokens per second. PLM_MATMUL=own "
    "leaves oneDNN out.\vExample: plm bench train --model 10m --threads 2", 0, 0, 0};

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Matrix weights times 6 per token, and causal attention: 3 products' worth forward and backward. */
static double flop_per_step(const struct shape *s)
{
    const struct model_config *c = &s->model;
    const double d = c->hidden_size, heads = c->num_attention_heads, qk = model_qk_head_dim(c), v = c->v_head_dim;
    const double layer = d * heads * qk + d * model_latent_dim(c) + c->kv_lora_rank * heads * (c->qk_nope_head_dim + v) + heads * v * d + 2 * d * c->intermediate_size;
    const double matrices = c->num_hidden_layers * layer + c->vocab_size * d;
    return (6 * matrices + 3 * c->num_hidden_layers * heads * s->seq_len * (qk + v)) * s->rows * s->seq_len;
}

struct workspace {
    struct step step;
    struct batch batch;
    float *m, *v, *nll;
    double *partials;
};

static int workspace_create(struct workspace *w, const struct shape *s, const struct ops *ops, struct thread_pool *pool, struct plm_status *st)
{
    const size_t positions = (size_t)s->rows * (size_t)s->seq_len;
    int code = step_create(&w->step, &s->model, s->rows, s->seq_len, 1, 1, ops, pool, st);
    if (!code)
        code = batch_create(&w->batch, s->rows, s->seq_len, st);
    if (code)
        return code;
    w->m = calloc((size_t)w->step.table.padded, sizeof *w->m);
    w->v = calloc((size_t)w->step.table.padded, sizeof *w->v);
    w->nll = calloc(positions, sizeof *w->nll);
    w->partials = calloc((size_t)norm_partials(w->step.table.padded), sizeof *w->partials);
    if (!w->m || !w->v || !w->nll || !w->partials)
        return status_no_memory(st, 2 * (size_t)w->step.table.padded * sizeof *w->m, "optimizer state");
    for (size_t i = 0; i < positions; i++) {
        w->batch.tokens[i] = (int32_t)(random_u64(1, RANDOM_TEST, 0, i) % (uint64_t)s->model.vocab_size);
        w->batch.targets[i] = (int32_t)(random_u64(1, RANDOM_TEST, 1, i) % (uint64_t)s->model.vocab_size);
        w->batch.weight[i] = 1;
        w->batch.doc_start[i] = 0;
    }
    return PLM_OK;
}

static void workspace_free(struct workspace *w)
{
    step_destroy(&w->step);
    batch_free(&w->batch);
    free(w->m);
    free(w->v);
    free(w->nll);
    free(w->partials);
}

static void train_once(struct workspace *w, int update, struct thread_pool *pool)
{
    struct step *s = &w->step;
    const double weight = (double)w->batch.rows * w->batch.seq_len;
    const struct adamw adamw = adamw_default();
    const struct adamw_range all = {0, s->table.padded, s->weights, s->grads, w->m, w->v};
    step_zero_gradients(s);
    step_forward(s, &w->batch);
    step_backward(s, &w->batch, w->batch.weight, w->nll);
    const double norm = sqrt(norm_sum_squares(s->grads, s->table.padded, w->partials, pool)) / weight;
    adamw_update(&adamw, &s->table, &all, update, 3e-4, clip_factor(norm, 1) / weight, pool);
}

int bench_train(int argc, char **argv)
{
    struct arguments a = {.shape = &shapes[0], .steps = 5};
    struct plm_status st = {0};
    struct matmul matmul;
    struct thread_pool *pool = NULL;
    struct workspace w = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    matmul_select(&matmul);
    int code = pool_create(&pool, a.threads, &st);
    if (!code)
        code = workspace_create(&w, a.shape, &matmul.ops, pool, &st);
    if (code) {
        workspace_free(&w);
        pool_destroy(pool);
        return command_fail(&st);
    }
    double seconds[MAX_STEPS];
    for (int i = -1; i < a.steps; i++) {
        const double start = seconds_now();
        train_once(&w, i + 2, pool);
        if (i >= 0)
            seconds[i] = seconds_now() - start;
    }
    qsort(seconds, (size_t)a.steps, sizeof *seconds, compare);
    const double tokens = (double)a.shape->rows * a.shape->seq_len, median = seconds[a.steps / 2], flop = flop_per_step(a.shape);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    if (a.json) {
        json_t *root = json_pack("{s:s, s:i, s:s, s:s, s:I, s:f, s:f, s:f, s:f, s:I}", "model", a.shape->name, "threads", pool_size(pool), "kernels", matmul.ops.name,
                                 "matmul", matmul.library, "parameters", (json_int_t)w.step.table.parameters, "tokens_per_s", tokens / median, "best_tokens_per_s",
                                 tokens / seconds[0], "gflop_per_step", flop / 1e9, "gflop_per_s", flop / median / 1e9, "peak_rss_mib", (json_int_t)(usage.ru_maxrss / 1024));
        json_dumpf(root, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(root);
    } else {
        printf("%s: %.2f M parameters, B=%d, T=%d, float32, %d threads, %s kernels, %s matrix products\n", a.shape->name, (double)w.step.table.parameters / 1e6, a.shape->rows,
               a.shape->seq_len, pool_size(pool), matmul.ops.name, matmul.library);
        printf("%.0f tokens/s (best %.0f), %.1f GFLOP/s, peak memory %ld MiB\n", tokens / median, tokens / seconds[0], flop / median / 1e9, usage.ru_maxrss / 1024);
    }
    workspace_free(&w);
    pool_destroy(pool);
    return 0;
}
