#include "train/lora.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/random.h"
#include "infer/format/safetensors.h"
#include "train/files.h"

#define MAX_RANK (1 << 20)
#define TENSOR_PREFIX "base_model.model."
#define TENSORS_FILE "adapter_model.safetensors"
#define CONFIG_FILE "adapter_config.json"

/* The adapted roles, under the names of their modules. */
static const char *const modules[TENSOR_ROLES] = {
    [TENSOR_Q] = "q_proj", [TENSOR_KV_A] = "kv_a_proj_with_mqa", [TENSOR_KV_B] = "kv_b_proj", [TENSOR_O] = "o_proj", [TENSOR_UP] = "up_proj",
    [TENSOR_DOWN] = "down_proj",
};

/* A (rank, cols) and B (rows, rank) of the matrix d: entries 2i and 2i + 1 of the adapter's table, for the i-th adapted matrix. */
static void describe(struct tensor_desc *t, const struct tensor_desc *d, char half, int64_t rows, int64_t cols)
{
    const size_t stem = strlen(d->name) - strlen(".weight");
    *t = *d;
    snprintf(t->name, sizeof t->name, TENSOR_PREFIX "%.*s.lora_%c.weight", (int)stem, d->name, half);
    snprintf(t->gguf_name, sizeof t->gguf_name, "%s.lora_%c", d->gguf_name, half - 'A' + 'a');
    t->rows = rows, t->cols = cols, t->decay = true;
}

static int build_table(struct lora *l, int world_size, struct plm_status *st)
{
    struct tensor_table *t = &l->table;
    t->tensors = calloc(2 * (size_t)l->base->n_tensors, sizeof *t->tensors);
    if (!t->tensors)
        return status_no_memory(st, 2 * (size_t)l->base->n_tensors * sizeof *t->tensors, "the adapter's table");
    for (int i = 0; i < l->base->n_tensors; i++) {
        const struct tensor_desc *d = &l->base->tensors[i];
        if (!modules[d->role])
            continue;
        describe(&t->tensors[t->n_tensors++], d, 'A', l->options.rank, d->cols);
        describe(&t->tensors[t->n_tensors++], d, 'B', d->rows, l->options.rank);
    }
    for (int i = 0; i < t->n_tensors; i++) {
        t->tensors[i].offset = t->padded;
        t->parameters += tensor_elements(&t->tensors[i]);
        t->padded += (tensor_elements(&t->tensors[i]) + 15) / 16 * 16;
    }
    const int64_t unit = 16 * (int64_t)(world_size > 0 ? world_size : 1);
    t->padded = (t->padded + unit - 1) / unit * unit;
    return PLM_OK;
}

static void lay_out(struct lora *l)
{
    l->params = arena_alloc(&l->arena, (size_t)l->table.padded, sizeof(float));
    l->grads = arena_alloc(&l->arena, (size_t)l->table.padded, sizeof(float));
    l->frozen = arena_alloc(&l->arena, (size_t)l->base->padded, sizeof(float));
}

int lora_create(struct lora *l, const struct tensor_table *base, const struct lora_options *o, const float *weights, uint64_t seed, int world_size,
                struct plm_status *st)
{
    *l = (struct lora){.options = *o, .base = base};
    if (o->rank < 1 || o->rank > MAX_RANK)
        return status_set(st, PLM_EINVAL, "LoRA rank %d, expected 1 to %d (8 to 64 are usual)", o->rank, MAX_RANK);
    if (!(o->alpha > 0 && isfinite(o->alpha)))
        return status_set(st, PLM_EINVAL, "LoRA alpha %g, expected a number above 0 (twice the rank is usual)", o->alpha);
    int code = build_table(l, world_size, st);
    if (!code) {
        lay_out(l);
        code = arena_commit(&l->arena, 0, "the LoRA adapter and the weights it is added to", st);
    }
    if (code) {
        lora_destroy(l);
        return code;
    }
    lay_out(l);
    memcpy(l->frozen, weights, (size_t)base->padded * sizeof *weights);
    for (int i = 0; i < l->table.n_tensors; i += 2) { /* every A; B is zero, and so is what is added at the start */
        const struct tensor_desc *a = &l->table.tensors[i];
        const double deviation = 1 / sqrt((double)a->cols);
        for (int64_t e = 0; e < tensor_elements(a); e++)
            l->params[a->offset + e] = (float)(deviation * random_normal(seed, RANDOM_LORA, (uint32_t)i, (uint64_t)e));
    }
    return PLM_OK;
}

void lora_destroy(struct lora *l)
{
    tensor_table_free(&l->table);
    arena_free(&l->arena);
    *l = (struct lora){0};
}

static float scale(const struct lora *l) { return (float)(l->options.alpha / l->options.rank); }

/* What entry i of the adapter's table is a half of. */
static const struct tensor_desc *adapted(const struct lora *l, int i)
{
    return tensor_table_at(l->base, l->table.tensors[i].role, l->table.tensors[i].layer);
}

static bool all_zero(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (x[i] != 0)
            return false;
    return true;
}

void lora_merge(const struct lora *l, float *weights, const struct ops *ops, struct thread_pool *pool)
{
    memcpy(weights, l->frozen, (size_t)l->base->padded * sizeof *weights);
    for (int i = 0; i < l->table.n_tensors; i += 2) {
        const struct tensor_desc *a = &l->table.tensors[i], *b = a + 1, *w = adapted(l, i);
        if (all_zero(l->params + b->offset, tensor_elements(b)))
            continue; /* W0 bit for bit: adding 0 would turn a -0 into 0 */
        ops->gemm(&(struct gemm){.m = w->rows, .n = w->cols, .k = a->rows, .accumulate = true, .alpha = scale(l), .a = l->params + b->offset, .lda = b->cols,
                                 .b = l->params + a->offset, .ldb = a->cols, .b_type = DTYPE_F32, .c = weights + w->offset, .ldc = w->cols}, pool);
    }
}

void lora_gradients(struct lora *l, const float *weight_grads, const struct ops *ops, struct thread_pool *pool)
{
    for (int i = 0; i < l->table.n_tensors; i += 2) {
        const struct tensor_desc *a = &l->table.tensors[i], *b = a + 1, *w = adapted(l, i);
        const float *dw = weight_grads + w->offset;
        /* dA (rank, cols) = s B^T dW */
        ops->gemm(&(struct gemm){.m = a->rows, .n = a->cols, .k = w->rows, .trans_a = true, .alpha = scale(l), .a = l->params + b->offset, .lda = b->cols,
                                 .b = dw, .ldb = w->cols, .b_type = DTYPE_F32, .c = l->grads + a->offset, .ldc = a->cols}, pool);
        /* dB (rows, rank) = s dW A^T */
        ops->gemm(&(struct gemm){.m = b->rows, .n = b->cols, .k = w->cols, .trans_b = true, .alpha = scale(l), .a = dw, .lda = w->cols,
                                 .b = l->params + a->offset, .ldb = a->cols, .b_type = DTYPE_F32, .c = l->grads + b->offset, .ldc = b->cols}, pool);
    }
}

/* ---- files ---- */

static int file_path(char path[PATH_MAX], const char *dir, const char *name, struct plm_status *st)
{
    if (snprintf(path, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX)
        return status_set(st, PLM_ELIMIT, "the path '%.100s...' is too long", dir);
    return PLM_OK;
}

static int save_config(const struct lora *l, const char *path, const char *base_model, struct plm_status *st)
{
    json_t *targets = json_array();
    for (int role = 0; role < TENSOR_ROLES; role++)
        if (modules[role])
            json_array_append_new(targets, json_pack("s", modules[role]));
    json_t *root = json_pack("{s:s, s:s, s:s, s:i, s:f, s:f, s:o, s:s, s:b, s:b}", "peft_type", "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path",
                             base_model, "r", l->options.rank, "lora_alpha", l->options.alpha, "lora_dropout", 0.0, "target_modules", targets, "bias", "none",
                             "fan_in_fan_out", 0, "inference_mode", 1);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    int code = text ? file_replace(path, text, strlen(text), st) : status_set(st, PLM_EINVAL, "%s: the model's name '%s' is not UTF-8", path, base_model);
    free(text);
    return code;
}

int lora_save(const struct lora *l, const char *dir, const char *base_model, struct plm_status *st)
{
    char path[PATH_MAX];
    struct safetensors_writer *w = NULL;
    int code = file_path(path, dir, TENSORS_FILE, st);
    if (!code)
        code = safetensors_create(&w, path, st);
    if (code)
        return code;
    code = safetensors_set_metadata(w, "format", "pt", st); /* what Hugging Face's loader insists on */
    for (int i = 0; i < l->table.n_tensors && !code; i++) {
        const struct tensor_desc *d = &l->table.tensors[i];
        code = safetensors_declare(w, d->name, DTYPE_F32, 2, (const int64_t[]){d->rows, d->cols}, st);
    }
    for (int i = 0; i < l->table.n_tensors && !code; i++) {
        const struct tensor_desc *d = &l->table.tensors[i];
        code = safetensors_write(w, l->params + d->offset, (size_t)tensor_elements(d) * sizeof(float), st);
    }
    if (code) {
        safetensors_discard(w);
        return code;
    }
    code = safetensors_finish(w, st);
    if (!code)
        code = file_path(path, dir, CONFIG_FILE, st);
    return code ? code : save_config(l, path, base_model, st);
}

/* Rank and alpha as ours, and none of PEFT's variants, whose tensors mean something else. */
static int check_config(const struct lora *l, const char *path, struct plm_status *st)
{
    static const char *const variants[] = {"use_rslora", "use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "rank_pattern", "alpha_pattern",
                                           "layer_replication", "modules_to_save"};
    json_error_t error;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return error.line < 0 ? status_set(st, PLM_EIO, "%s", error.text)
                              : status_set(st, PLM_EFORMAT, "%s:%d:%d: %s", path, error.line, error.column, error.text);
    const json_t *type = json_object_get(root, "peft_type"), *bias = json_object_get(root, "bias");
    const json_t *rank = json_object_get(root, "r"), *alpha = json_object_get(root, "lora_alpha");
    int code = PLM_OK;
    if (!json_is_string(type) || strcmp(json_string_value(type), "LORA"))
        code = status_set(st, PLM_EFORMAT, "%s: peft_type is not \"LORA\"", path);
    else if (!json_is_integer(rank) || !json_is_number(alpha))
        code = status_set(st, PLM_EFORMAT, "%s: r (a whole number) and lora_alpha (a number) are required", path);
    else if (json_integer_value(rank) != l->options.rank || json_number_value(alpha) != l->options.alpha)
        code = status_set(st, PLM_EINVAL, "%s: r %lld and lora_alpha %g, but rank %d and alpha %g were asked for", path, (long long)json_integer_value(rank),
                          json_number_value(alpha), l->options.rank, l->options.alpha);
    else if (json_is_string(bias) && strcmp(json_string_value(bias), "none"))
        code = status_set(st, PLM_EUNSUPPORTED, "%s: bias is \"%s\", only \"none\" is supported", path, json_string_value(bias));
    for (size_t i = 0; i < sizeof variants / sizeof *variants && !code; i++) {
        const json_t *v = json_object_get(root, variants[i]);
        if (v && !json_is_false(v) && !json_is_null(v) && !(json_is_object(v) && json_object_size(v) == 0) && !(json_is_array(v) && json_array_size(v) == 0))
            code = status_set(st, PLM_EUNSUPPORTED, "%s: %s is set; only plain LoRA is supported", path, variants[i]);
    }
    json_decref(root);
    return code;
}

/* A tensor into params, which must be finite. */
static int load_tensor(const struct tensor_desc *d, const struct stored_tensor *s, float *params, const char *path, struct plm_status *st)
{
    dtype_to_f32(s->type, params, s->data, tensor_elements(d));
    for (int64_t e = 0; e < tensor_elements(d); e++)
        if (!isfinite(params[e]))
            return status_set(st, PLM_EFORMAT, "%s: tensor '%s': row %lld, column %lld is %g; the adapter is damaged, or training diverged", path, d->name,
                              (long long)(e / d->cols), (long long)(e % d->cols), (double)params[e]);
    return PLM_OK;
}

static int load_tensors(const struct lora *l, const struct safetensors *file, float *params, const char *path, struct plm_status *st)
{
    int code = PLM_OK;
    for (int i = 0; i < file->n_tensors && !code; i++)
        if (!tensor_table_find(&l->table, file->tensors[i].name))
            code = status_set(st, PLM_EFORMAT, "%s: tensor '%s' belongs to no adapted matrix of this model", path, file->tensors[i].name);
    for (int i = 0; i < l->table.n_tensors && !code; i++) {
        const struct tensor_desc *d = &l->table.tensors[i];
        const struct stored_tensor *s = safetensors_find(file, d->name);
        if (!s)
            code = status_set(st, PLM_EFORMAT, "%s: tensor '%s' is missing; expected adapters of all linear layers", path, d->name);
        else if (s->n_dims != 2 || s->shape[0] != d->rows || s->shape[1] != d->cols)
            code = status_set(st, PLM_EFORMAT, "%s: tensor '%s' has %d dimensions, the first %lld, expected (%lld, %lld)", path, d->name, s->n_dims,
                              (long long)(s->n_dims ? s->shape[0] : 0), (long long)d->rows, (long long)d->cols);
        else
            code = load_tensor(d, s, params + d->offset, path, st);
    }
    return code;
}

int lora_load(struct lora *l, const char *dir, struct plm_status *st)
{
    char path[PATH_MAX];
    struct safetensors file;
    int code = file_path(path, dir, CONFIG_FILE, st);
    if (!code)
        code = check_config(l, path, st);
    if (!code)
        code = file_path(path, dir, TENSORS_FILE, st);
    if (!code)
        code = safetensors_open(&file, path, st);
    if (code)
        return code;
    /* Into the gradients first, which hold nothing between steps: what fails half way leaves A and B as they are. */
    code = load_tensors(l, &file, l->grads, path, st);
    if (!code)
        memcpy(l->params, l->grads, (size_t)l->table.padded * sizeof *l->params);
    memset(l->grads, 0, (size_t)l->table.padded * sizeof *l->grads);
    safetensors_close(&file);
    return code;
}
