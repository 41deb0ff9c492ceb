#include "tools/bench_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/random.h"
#include "infer/model/model.h"
#include "tools/arguments.h"
#include "tools/command.h"
#include "train/export.h"

#define LEVEL 8.0f   /* of element 0, once normed */
#define STREAM 100.0f /* standard deviation of the embedding */
#define NOISE_PERIOD 1048573 /* a prime: rows of any width see the noise at every phase */

struct arguments {
    const char *out, *shape;
    enum dtype type;
    double active; /* share of neurons */
};

static const struct argp_option options[] = {
    {"out", 'o', "FILE", 0, "the GGUF file to write (required)", 0},
    {"shape", 's', "NAME", 0, "10m (default) or 1.8b, the released model's", 0},
    {"type", 't', "TYPE", 0, "of the matrices: f32, f16, bf16, q8_0 (default), ...", 0},
    {"active", 'a', "PERCENT", 0, "share of neurons that squared ReLU leaves active (default 50: what chance gives)", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'o': a->out = arg; return 0;
    case 's': a->shape = arg; return 0;
    case 't':
        a->type = dtype_by_name(arg);
        if (a->type == DTYPE_COUNT)
            argp_error(state, "--type '%s' is unknown", arg);
        return 0;
    case 'a':
        a->active = argument_number(state, "active", arg) / 100;
        if (!(a->active > 0 && a->active < 1))
            argp_error(state, "--active is '%s', expected a number between 0 and 100", arg);
        return 0;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument '%s'", arg); return 0;
    case ARGP_KEY_END:
        if (!a->out)
            argp_error(state, "--out FILE is required");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {options, parse, NULL,
    "Write a GGUF file of a PLM with random weights: for measuring speed, not for text.\v"
    "Example: plm bench model --shape 1.8b --type q8_0 --out random.gguf", 0, 0, 0};

static bool shape_by_name(struct model_config *c, const char *name)
{
    *c = model_config_default();
    if (!strcmp(name, "10m")) {
        c->num_hidden_layers = 10, c->hidden_size = 256, c->num_attention_heads = 4, c->kv_lora_rank = 128, c->qk_nope_head_dim = 64;
        c->qk_rope_head_dim = 32, c->v_head_dim = 64, c->intermediate_size = 1024, c->vocab_size = 8192, c->max_position_embeddings = 20480;
        return true;
    }
    if (!strcmp(name, "1.8b")) {
        c->num_hidden_layers = 32, c->hidden_size = 2048, c->num_attention_heads = 16, c->kv_lora_rank = 512, c->qk_nope_head_dim = 128;
        c->qk_rope_head_dim = 64, c->v_head_dim = 128, c->intermediate_size = 8192, c->vocab_size = 151936, c->max_position_embeddings = 20480;
        return true;
    }
    return false;
}

/* A neuron's input is normal with standard deviation 1, plus its weight for element 0 of the normed residual stream, which is LEVEL:
 * the embedding puts it there, and what the layers add to the rest is little. Then `threshold` is exceeded by the share
 * of neurons asked for. */
static double threshold_for(double active)
{
    double low = -8, high = 8;
    for (int i = 0; i < 60; i++) {
        const double x = (low + high) / 2;
        if (erfc(x / sqrt(2)) / 2 > active)
            low = x;
        else
            high = x;
    }
    return low;
}

/* Rows are slices of one stretch of normal noise, at offsets that never repeat in step. */
static void fill_row(float *row, const float *noise, const struct tensor_desc *d, int64_t r, double threshold)
{
    const bool adds = d->role == TENSOR_O || d->role == TENSOR_DOWN; /* to the residual stream */
    const float std = d->role == TENSOR_EMBED ? STREAM : adds && r == 0 ? 0 : 1 / sqrtf((float)d->cols);
    int64_t at = (r * 7919 + d->offset) % NOISE_PERIOD;
    for (int64_t i = 0; i < d->cols; i++, at = at + 1 == NOISE_PERIOD ? 0 : at + 1)
        row[i] = d->n_dims == 1 ? 1 : std * noise[at];
    if (d->role == TENSOR_EMBED)
        row[0] = LEVEL * STREAM;
    else if (d->role == TENSOR_UP)
        row[0] = -(float)threshold / LEVEL;
}

static int write_tensors(struct gguf_writer *w, const struct tensor_table *t, enum dtype type, double threshold, struct plm_status *st)
{
    int64_t widest = 0;
    for (int i = 0; i < t->n_tensors; i++)
        widest = t->tensors[i].cols > widest ? t->tensors[i].cols : widest;
    float *noise = malloc(NOISE_PERIOD * sizeof *noise), *row = malloc((size_t)widest * sizeof *row);
    void *stored = malloc((size_t)widest * sizeof *row);
    int code = noise && row && stored ? PLM_OK : status_no_memory(st, NOISE_PERIOD * sizeof *noise, "random weights");
    for (int i = 0; i < NOISE_PERIOD && !code; i++)
        noise[i] = (float)random_normal(1, RANDOM_TEST, 0, (uint64_t)i);
    for (int i = 0; i < t->n_tensors && !code; i++) {
        const struct tensor_desc *d = &t->tensors[i];
        const enum dtype stored_as = d->n_dims == 1 ? DTYPE_F32 : type;
        for (int64_t r = 0; r < d->rows && !code; r++) {
            fill_row(row, noise, d, r, threshold);
            dtype_from_f32(stored_as, stored, row, d->cols);
            code = gguf_write(w, stored, dtype_row_bytes(stored_as, d->cols), st);
        }
    }
    free(noise);
    free(row);
    free(stored);
    return code;
}

int bench_model(int argc, char **argv)
{
    struct arguments a = {.shape = "10m", .type = DTYPE_Q8_0, .active = 0.5};
    struct plm_status st = {0};
    struct model_config c;
    struct tensor_table t = {0};
    struct gguf_writer *w = NULL;
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    int code = shape_by_name(&c, a.shape) ? PLM_OK : status_set(&st, PLM_EINVAL, "no shape '%s': expected 10m or 1.8b", a.shape);
    if (!code)
        code = tensor_table_build(&t, &c, 1, &st);
    if (!code)
        code = gguf_create(&w, a.out, &st);
    if (!code)
        code = export_put_config(w, &c, a.type, "random", &st);
    if (!code)
        code = export_put_no_tokenizer(w, &st);
    for (int i = 0; i < t.n_tensors && !code; i++) {
        const struct tensor_desc *d = &t.tensors[i];
        const int64_t shape[2] = {d->n_dims == 2 ? d->rows : d->cols, d->cols};
        if (d->n_dims == 2 && !dtype_row_bytes(a.type, d->cols))
            code = status_set(&st, PLM_EUNSUPPORTED, "rows of %lld elements are no multiple of %s's blocks", (long long)d->cols, dtype_info(a.type)->name);
        else
            code = gguf_declare(w, d->gguf_name, d->n_dims == 1 ? DTYPE_F32 : a.type, d->n_dims, shape, &st);
    }
    if (!code)
        code = write_tensors(w, &t, a.type, threshold_for(a.active), &st);
    if (code)
        gguf_discard(w);
    else
        code = gguf_finish(w, &st);
    if (!code)
        printf("%s: %.2f M parameters, %s, random weights\n", a.out, (double)t.parameters / 1e6, dtype_info(a.type)->name);
    tensor_table_free(&t);
    return code ? command_fail(&st) : 0;
}
