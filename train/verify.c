#include "train/verify.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/format/safetensors.h"
#include "optim/adamw.h"
#include "optim/clip.h"
#include "optim/schedule.h"
#include "train/checkpoint.h"
#include "train/matmul.h"
#include "train/step.h"

#define MAX_UPDATES 10000

struct training {
    struct adamw adamw;
    struct schedule schedule;
    double clip;
    int steps; /* 0: the case has no training.json */
    float *losses, *grad_norms, *lrs;
};

static json_t *load_json(const char *path, struct plm_status *st)
{
    json_error_t error;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!root && error.line < 0)
        status_set(st, PLM_EIO, "%s", error.text); /* names the file */
    else if (!root)
        status_set(st, PLM_EFORMAT, "%s:%d:%d: %s", path, error.line, error.column, error.text);
    return root;
}

/* One [B][T] array of batch.json. */
static int read_matrix(const json_t *root, const char *key, int rows, int len, int32_t *out, const char *path, struct plm_status *st)
{
    const json_t *matrix = json_object_get(root, key);
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < len; t++) {
            const json_t *v = json_array_get(json_array_get(matrix, (size_t)r), (size_t)t);
            if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
                return status_set(st, PLM_EFORMAT, "%s: %s[%d][%d] is missing or not a whole number; expected [%d][%d] of them", path, key, r, t, rows, len);
            out[(int64_t)r * len + t] = (int32_t)json_integer_value(v);
        }
    return PLM_OK;
}

static int read_batch(struct batch *b, const char *path, struct plm_status *st)
{
    json_t *root = load_json(path, st);
    if (!root)
        return PLM_EFORMAT;
    const json_t *tokens = json_object_get(root, "tokens");
    const size_t rows = json_array_size(tokens), len = json_array_size(json_array_get(tokens, 0));
    int code = rows && len && rows < 65536 && len < 1 << 20 ? batch_create(b, (int)rows, (int)len, st)
        : status_set(st, PLM_EFORMAT, "%s: tokens must be a [B][T] array", path);
    int32_t *mask = code ? NULL : calloc(rows * len, sizeof *mask);
    if (!code && !mask)
        code = status_no_memory(st, rows * len * sizeof *mask, "a batch");
    const struct { const char *key; int32_t *out; } parts[] = {{"tokens", b->tokens}, {"targets", b->targets}, {"mask", mask}, {"doc_start", b->doc_start}};
    for (int i = 0; i < 4 && !code; i++)
        code = read_matrix(root, parts[i].key, (int)rows, (int)len, parts[i].out, path, st);
    float any = 0;
    for (size_t i = 0; i < rows * len && !code; i++)
        any += b->weight[i] = (float)mask[i];
    if (!code && any == 0)
        code = status_set(st, PLM_EFORMAT, "%s: the mask is zero everywhere: there is no loss", path);
    free(mask);
    json_decref(root);
    return code;
}

static int read_training(struct training *t, const char *path, struct plm_status *st)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return PLM_OK; /* optional */
    fclose(f);
    json_t *root = load_json(path, st);
    if (!root)
        return PLM_EFORMAT;
    json_error_t error;
    const char *shape = "";
    int code = PLM_OK;
    if (json_unpack_ex(root, &error, 0, "{s:{s:[F,F], s:F, s:F, s:F, s:F, s:F, s:F, s:F, s:F, s:s, s:i}}", "hyper", "betas", &t->adamw.beta1,
                       &t->adamw.beta2, "eps", &t->adamw.eps, "weight_decay", &t->adamw.weight_decay, "clip", &t->clip, "peak", &t->schedule.peak,
                       "floor", &t->schedule.floor, "warmup", &t->schedule.warmup, "stable_end", &t->schedule.stable_end, "decay_end",
                       &t->schedule.decay_end, "shape", &shape, "steps", &t->steps) != 0)
        code = status_set(st, PLM_EFORMAT, "%s: %s", path, error.text);
    if (!code && (t->steps < 1 || t->steps > MAX_UPDATES))
        code = status_set(st, PLM_EFORMAT, "%s: hyper.steps is %d, expected 1 to %d", path, t->steps, MAX_UPDATES);
    t->schedule.shape = decay_shape_by_name(shape);
    if (!code && t->schedule.shape == DECAY_SHAPES)
        code = status_set(st, PLM_EFORMAT, "%s: hyper.shape '%s' is no decay shape", path, shape);
    json_decref(root);
    if (!code)
        code = adamw_check(&t->adamw, st);
    return code ? code : schedule_check(&t->schedule, st);
}

/* nll becomes mask * nll; returns their sum and the sum of the mask. */
static double masked_loss(const struct batch *b, float *nll, double *weight)
{
    double loss = 0;
    *weight = 0;
    for (int64_t i = 0; i < (int64_t)b->rows * b->seq_len; i++) {
        nll[i] *= b->weight[i];
        loss += nll[i];
        *weight += b->weight[i];
    }
    return loss;
}

static int run_updates(struct training *t, struct step *s, const struct batch *b, float *nll, struct plm_status *st)
{
    const size_t n = (size_t)s->table.padded;
    float *m = calloc(n, sizeof *m), *v = calloc(n, sizeof *v);
    double *partial = calloc((size_t)norm_partials(s->table.padded), sizeof *partial);
    int code = m && v && partial ? PLM_OK : status_no_memory(st, 2 * n * sizeof *m, "optimizer state");
    for (int k = 1; k <= t->steps && !code; k++) {
        double weight;
        step_zero_gradients(s);
        step_forward(s, b);
        step_backward(s, b, b->weight, nll);
        double loss = masked_loss(b, nll, &weight);
        loss /= weight;
        const double norm = sqrt(norm_sum_squares(s->grads, s->table.padded, partial, s->pool)) / weight;
        const double lr = schedule_rate(&t->schedule, k);
        t->losses[k - 1] = (float)loss, t->grad_norms[k - 1] = (float)norm, t->lrs[k - 1] = (float)lr;
        const struct adamw_range all = {0, s->table.padded, s->weights, s->grads, m, v};
        adamw_update(&t->adamw, &s->table, &all, k, lr, clip_factor(norm, t->clip) / weight, s->pool);
    }
    free(m);
    free(v);
    free(partial);
    return code;
}

struct output {
    char name[96];
    const float *data;
    int n_dims;
    int64_t shape[3];
};

static int write_outputs(const char *path, const struct output *o, int n, struct plm_status *st)
{
    struct safetensors_writer *w;
    int code = safetensors_create(&w, path, st);
    if (code)
        return code;
    for (int i = 0; i < n && !code; i++)
        code = safetensors_declare(w, o[i].name, DTYPE_F32, o[i].n_dims, o[i].shape, st);
    for (int i = 0; i < n && !code; i++) {
        size_t elements = 1;
        for (int d = 0; d < o[i].n_dims; d++)
            elements *= (size_t)o[i].shape[d];
        code = safetensors_write(w, o[i].data, elements * sizeof(float), st);
    }
    if (code) {
        safetensors_discard(w);
        return code;
    }
    return safetensors_finish(w, st);
}

/* Everything after reading: compute and write. */
static int verify_batch(struct step *s, const struct batch *b, struct training *t, const char *out, struct plm_status *st)
{
    const size_t positions = (size_t)b->rows * (size_t)b->seq_len, vocab = (size_t)s->config.vocab_size, padded = (size_t)s->table.padded;
    float *logits = malloc(positions * vocab * sizeof *logits), *nll = malloc(positions * sizeof *nll), *spare = malloc(positions * sizeof *spare);
    float *grads = malloc(padded * sizeof *grads), loss = 0;
    struct output *o = calloc((size_t)s->table.n_tensors + 6, sizeof *o);
    t->losses = calloc((size_t)t->steps * 3 + 1, sizeof *t->losses);
    int code = logits && nll && spare && grads && o && t->losses ? PLM_OK : status_no_memory(st, positions * vocab * sizeof *logits, "the results");
    int n = 0;
    if (!code) {
        t->grad_norms = t->losses + t->steps, t->lrs = t->grad_norms + t->steps;
        double weight;
        step_forward(s, b);
        step_logits(s, b, nll, logits);
        const double sum = masked_loss(b, nll, &weight);
        loss = (float)(sum / weight);
        step_backward(s, b, b->weight, spare);
        for (size_t i = 0; i < padded; i++)
            grads[i] = s->grads[i] / (float)weight;
        o[n++] = (struct output){"logits", logits, 3, {b->rows, b->seq_len, (int64_t)vocab}};
        o[n++] = (struct output){"nll", nll, 2, {b->rows, b->seq_len}};
        o[n++] = (struct output){"loss", &loss, 1, {1}};
        for (int i = 0; i < s->table.n_tensors; i++) {
            const struct tensor_desc *d = &s->table.tensors[i];
            o[n] = (struct output){"", grads + d->offset, d->n_dims, {d->n_dims == 2 ? d->rows : d->cols, d->cols}};
            snprintf(o[n++].name, sizeof o->name, "grad.%s", d->name);
        }
        code = t->steps ? run_updates(t, s, b, spare, st) : PLM_OK;
    }
    if (!code && t->steps) {
        o[n++] = (struct output){"losses", t->losses, 1, {t->steps}};
        o[n++] = (struct output){"grad_norms", t->grad_norms, 1, {t->steps}};
        o[n++] = (struct output){"lrs", t->lrs, 1, {t->steps}};
    }
    if (!code)
        code = write_outputs(out, o, n, st);
    free(logits);
    free(nll);
    free(spare);
    free(grads);
    free(o);
    free(t->losses);
    return code;
}

int verify_case(const char *case_dir, const char *out, int threads, struct plm_status *st)
{
    char path[PATH_MAX];
    struct batch b = {0};
    struct training t = {0};
    struct step s = {0};
    struct thread_pool *pool = NULL;
    struct model_config config;
    struct matmul matmul;
    matmul_select(&matmul);
    if (snprintf(path, sizeof path, "%s/batch.json", case_dir) >= (int)sizeof path - 32)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", case_dir);
    int code = read_batch(&b, path, st);
    snprintf(path, sizeof path, "%s/training.json", case_dir);
    if (!code)
        code = read_training(&t, path, st);
    snprintf(path, sizeof path, "%s/model", case_dir);
    if (!code)
        code = checkpoint_config(path, &config, st);
    if (!code)
        code = pool_create(&pool, threads, st);
    if (!code)
        code = step_create(&s, &config, b.rows, b.seq_len, 1, 1, &matmul.ops, pool, st);
    if (!code)
        code = checkpoint_load_weights(path, &s.table, s.weights, st);
    if (!code)
        code = step_check_batch(&s, &b, st);
    if (!code)
        code = verify_batch(&s, &b, &t, out, st);
    step_destroy(&s);
    pool_destroy(pool);
    batch_free(&b);
    return code ? status_prefix(st, "case '%s'", case_dir) : PLM_OK;
}
