/* plm bench neurons: how many neurons a text leaves active, and how many of the others could be known before all of their weights are
 * read.
 *
 * The bound: of the q8_0 weights of ffn_up only the upper 4 bits are read, w = d (16 h + l). With E = 16 h + 7.5 in place of w / d, a
 * neuron's input is certainly not positive when  sum d a E + 7.5 sum d |a| <= 0  (exact), and probably not when
 * sum d a E + k s <= 0, s^2 = 21.25 sum d^2 a^2 (calibrated: l as uniform noise of variance 21.25). The lower halves of the rows so
 * ruled out need not be read. */
#include "tools/bench_neurons.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/forward.h"
#include "infer/model/model.h"
#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/open_model.h"

enum { BLOCK = 32, N_MARGINS = 4, MAX_TOKENS = 2048 };
static const double margins[N_MARGINS] = {1, 2, 3, 4};

struct arguments {
    const char *model, *text;
    int tokens, threads;
    bool json;
};

static const struct argp_option options[] = {
    {"tokens", 'n', "N", 0, "read so many tokens of the text (default 256)", 0},
    {"threads", 't', "N", 0, "threads; 0: one per processor (default)", 0},
    {"json", 'j', 0, 0, "print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'n': a->tokens = (int)argument_range(state, "tokens", arg, 1, MAX_TOKENS); return 0;
    case 't': a->threads = argument_whole(state, "threads", arg); return 0;
    case 'j': a->json = true; return 0;
    case ARGP_KEY_ARG:
        if (a->model)
            argument_only(state, "TEXT", arg, &a->text);
        else
            a->model = arg;
        return 0;
    case ARGP_KEY_END:
        if (!a->text)
            argp_error(state, "MODEL and a file of text are required");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {options, parse, "MODEL TEXT",
    "Count the active neurons of every layer on a text, and the neurons that a bound on half of their weights (the upper 4 bits of "
    "q8_0) rules out: one that is never wrong, and ones that are calibrated to 1 to 4 standard deviations, with the share of the "
    "squares' norm that those lose. " MODEL_HELP "\vExample: plm bench neurons model.gguf held-out.txt", NULL, NULL, NULL};

/* What is needed beside the activations of a layer, T tokens. */
struct study {
    const struct forward_pass *f;
    const struct layer_activations *act;
    float *estimate, *slack, *variance; /* (T, ff) */
    float *upper, *size, *square;       /* (ff, d) d E; (ff, d/32) d; d^2 */
    float *sum, *sum2;                  /* (T, d/32) of |a| and a^2 */
    void *row;                          /* one q8_0 row */
    float *wide;                        /* (d) */
};

struct result {
    double active, exact;
    double ruled_out[N_MARGINS], lost[N_MARGINS]; /* shares of neurons; of the norm of the squares */
};

static void study_layout(struct study *s, const struct model_config *c, int64_t tokens, struct arena *arena)
{
    const size_t t = (size_t)tokens, ff = (size_t)c->intermediate_size, d = (size_t)c->hidden_size, blocks = d / BLOCK, f = sizeof(float);
    s->estimate = arena_alloc(arena, t * ff, f);
    s->slack = arena_alloc(arena, t * ff, f);
    s->variance = arena_alloc(arena, t * ff, f);
    s->upper = arena_alloc(arena, ff * d, f);
    s->size = arena_alloc(arena, ff * blocks, f);
    s->square = arena_alloc(arena, ff * blocks, f);
    s->sum = arena_alloc(arena, t * blocks, f);
    s->sum2 = arena_alloc(arena, t * blocks, f);
    s->row = arena_alloc(arena, blocks, sizeof(struct block_q8_0));
    s->wide = arena_alloc(arena, d, f);
}

static void split_weights(const struct study *s, const struct weight *w)
{
    const int64_t blocks = w->cols / BLOCK;
    for (int64_t i = 0; i < w->rows; i++) {
        const void *stored = (const char *)w->data + (size_t)i * dtype_row_bytes(w->type, w->cols);
        s->f->ops->to_f32(s->wide, stored, w->type, w->cols);
        dtype_from_f32(DTYPE_Q8_0, s->row, s->wide, w->cols);
        for (int64_t b = 0; b < blocks; b++) {
            const struct block_q8_0 *block = (const struct block_q8_0 *)s->row + b;
            const float d = f16_to_f32(block->d);
            s->size[i * blocks + b] = d;
            s->square[i * blocks + b] = d * d;
            for (int k = 0; k < BLOCK; k++)
                s->upper[i * w->cols + b * BLOCK + k] = d * (float)((block->q[k] & ~15) + 7.5);
        }
    }
}

static void multiply(const struct study *s, float *c, const float *a, const float *b, int64_t tokens, int64_t rows, int64_t k)
{
    const struct gemm g = {.m = tokens, .n = rows, .k = k, .trans_b = true, .alpha = 1, .a = a, .lda = k, .b = b, .ldb = k, .c = c, .ldc = rows};
    s->f->ops->gemm(&g, s->f->pool);
}

static struct result layer_study(const struct study *s, int layer, int64_t tokens)
{
    const struct weight *w = &s->f->weights->layers[layer].at[TENSOR_UP];
    const int64_t d = w->cols, blocks = d / BLOCK, n = tokens * w->rows;
    split_weights(s, w);
    memset(s->sum, 0, (size_t)(tokens * blocks) * sizeof *s->sum);
    memset(s->sum2, 0, (size_t)(tokens * blocks) * sizeof *s->sum2);
    for (int64_t i = 0; i < tokens * d; i++) {
        const float a = s->act->b[i];
        s->sum[i / BLOCK] += fabsf(a);
        s->sum2[i / BLOCK] += a * a;
    }
    multiply(s, s->estimate, s->act->b, s->upper, tokens, w->rows, d);
    multiply(s, s->slack, s->sum, s->size, tokens, w->rows, blocks);
    multiply(s, s->variance, s->sum2, s->square, tokens, w->rows, blocks);
    struct result r = {0};
    double total = 0;
    for (int64_t i = 0; i < n; i++) {
        const double u = s->act->u[i], square = u > 0 ? u * u : 0;
        r.active += u > 0;
        r.exact += s->estimate[i] + 7.5 * s->slack[i] <= 0;
        total += square * square;
        for (int k = 0; k < N_MARGINS; k++)
            if (s->estimate[i] + margins[k] * sqrt(21.25 * s->variance[i]) <= 0) {
                r.ruled_out[k]++;
                r.lost[k] += square * square;
            }
    }
    r.active /= (double)n, r.exact /= (double)n;
    for (int k = 0; k < N_MARGINS; k++) {
        r.ruled_out[k] /= (double)n;
        r.lost[k] = total > 0 ? sqrt(r.lost[k] / total) : 0;
    }
    return r;
}

static void report(const struct result *r, int layer, json_t *list)
{
    if (list) {
        json_t *row = json_pack("{s:i, s:f, s:f}", "layer", layer, "active", r->active, "ruled_out_exact", r->exact), *calibrated = json_array();
        for (int k = 0; k < N_MARGINS; k++)
            json_array_append_new(calibrated, json_pack("{s:f, s:f, s:f}", "deviations", margins[k], "ruled_out", r->ruled_out[k], "lost", r->lost[k]));
        json_object_set_new(row, "calibrated", calibrated);
        json_array_append_new(list, row);
        return;
    }
    char name[16] = "mean";
    if (layer >= 0)
        snprintf(name, sizeof name, "%d", layer);
    printf("%5s %7.1f%% %7.1f%%", name, 100 * r->active, 100 * r->exact);
    for (int k = 0; k < N_MARGINS; k++)
        printf("  %6.1f%% %8.1e", 100 * r->ruled_out[k], r->lost[k]);
    putchar('\n');
}

/* All layers of the first `tokens` tokens, prefilled at once. */
static int study_model(const struct plm_model *m, const int32_t *ids, int64_t tokens, int threads, json_t *list, struct plm_status *st)
{
    const struct model_config *c = &m->config;
    struct thread_pool *pool;
    int code = pool_create(&pool, threads, st);
    if (code)
        return code;
    struct forward_pass f = {.config = c, .weights = &m->weights, .ops = ops_select(OPS_BEST), .pool = pool, .precision = PRECISION_HIGH,
                             .squares = PRECISION_HIGH, .n_seq = 1, .q_len = tokens, .max_keys = tokens};
    struct layer_activations act = {0};
    struct rope_table rope;
    struct study s = {.f = &f, .act = &act};
    struct arena arena = {0};
    float *out = NULL;
    for (int pass = 0; pass < 2 && !code; pass++) {
        rope_table_layout(&rope, c, tokens, &arena);
        layer_activations_layout(&act, c, tokens, &arena);
        act.m = arena_alloc(&arena, (size_t)tokens * (size_t)c->intermediate_size, sizeof(float));
        f.attention_scratch = arena_alloc(&arena, attention_scratch_bytes(f.ops, tokens, pool_size(pool)), 1);
        out = arena_alloc(&arena, (size_t)tokens * (size_t)c->hidden_size, sizeof(float));
        study_layout(&s, c, tokens, &arena);
        code = pass ? PLM_OK : arena_commit(&arena, 0, "the activations of the text (--tokens takes fewer)", st);
    }
    if (!code) {
        rope_table_fill(&rope, c);
        f.rope = &rope;
        forward_embed(&f, ids, tokens, act.x);
    }
    struct result mean = {0};
    for (int layer = 0; layer < c->num_hidden_layers && !code; layer++) {
        forward_layer(&f, layer, &act, act.latent, out);
        memcpy(act.x, out, (size_t)(tokens * c->hidden_size) * sizeof *out);
        const struct result r = layer_study(&s, layer, tokens);
        report(&r, layer, list);
        const double *from = (const double *)&r;
        for (size_t i = 0; i < sizeof r / sizeof *from; i++)
            ((double *)&mean)[i] += from[i] / c->num_hidden_layers;
    }
    if (!code && !list)
        report(&mean, -1, NULL);
    arena_free(&arena);
    pool_destroy(pool);
    return code;
}

int bench_neurons(int argc, char **argv)
{
    struct arguments a = {.tokens = 256};
    struct plm_status st = {0};
    struct plm_model *m = NULL;
    char *text = NULL;
    int32_t *ids = NULL;
    size_t length = 0, n = 0;
    json_t *list = NULL;
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    int code = open_model(&m, a.model, NULL, &st);
    if (!code && m->config.hidden_size % BLOCK)
        code = status_set(&st, PLM_EUNSUPPORTED, "rows of %d elements are no multiple of q8_0's blocks", m->config.hidden_size);
    if (!code)
        code = file_read_text(&text, &length, a.text, (size_t)256 << 20, &st);
    if (!code && !(ids = malloc((length + 1) * sizeof *ids)))
        code = status_no_memory(&st, length * sizeof *ids, "tokens");
    if (!code)
        code = plm_tokenize(m, text, length, false, ids, length + 1, &n, &st);
    if (!code && n == 0)
        code = status_set(&st, PLM_EINVAL, "'%s' is empty", a.text);
    if (!code) {
        n = n < (size_t)a.tokens ? n : (size_t)a.tokens;
        n = n < (size_t)m->config.max_position_embeddings ? n : (size_t)m->config.max_position_embeddings;
        list = a.json ? json_array() : NULL;
        if (!a.json)
            printf("%zu tokens; ruled out by half of the weights, and the share of the squares' norm that is lost\n\nlayer   active    exact  1 deviation "
                   "      2                 3                 4\n", n);
        code = study_model(m, ids, (int64_t)n, a.threads, list, &st);
    }
    if (!code && a.json) {
        json_dumpf(list, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
        putchar('\n');
    }
    json_decref(list);
    free(text);
    free(ids);
    plm_model_close(m);
    return code ? command_fail(&st) : 0;
}
