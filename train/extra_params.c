#include "train/extra_params.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "infer/format/safetensors.h"

static void layout(struct extra_params *x)
{
    float **const parts[] = {&x->params, &x->grads, &x->m, &x->v};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        *parts[i] = arena_alloc(&x->arena, (size_t)x->table.padded, sizeof(float));
}

int extra_params_create(struct extra_params *x, const char *name, int64_t n, struct plm_status *st)
{
    *x = (struct extra_params){.table = {.n_tensors = 1, .tensors = calloc(1, sizeof *x->table.tensors), .parameters = n, .padded = n}};
    if (!x->table.tensors)
        return status_no_memory(st, sizeof *x->table.tensors, name);
    struct tensor_desc *d = x->table.tensors;
    *d = (struct tensor_desc){.layer = -1, .n_dims = 1, .rows = 1, .cols = n, .init = INIT_NORMAL, .decay = true};
    snprintf(d->name, sizeof d->name, "%s.weight", name);
    snprintf(x->file, sizeof x->file, "%s.safetensors", name);
    snprintf(x->optimizer_file, sizeof x->optimizer_file, "optimizer_%s.safetensors", name);
    layout(x);
    int code = arena_commit(&x->arena, 0, name, st);
    if (!code)
        layout(x);
    return code;
}

void extra_params_free(struct extra_params *x)
{
    tensor_table_free(&x->table);
    arena_free(&x->arena);
    *x = (struct extra_params){0};
}

struct part {
    const char *prefix;
    float *data;
};

/* dir/file with one vector per part. */
static int write_parts(const struct extra_params *x, const char *dir, const char *file, const struct part *parts, int n, struct plm_status *st)
{
    const struct tensor_desc *d = x->table.tensors;
    struct safetensors_writer *w;
    char path[PATH_MAX], name[96];
    if (snprintf(path, sizeof path, "%s/%s", dir, file) >= (int)sizeof path)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", dir);
    int code = safetensors_create(&w, path, st);
    if (code)
        return code;
    code = safetensors_set_metadata(w, "format", "pt", st);
    for (int i = 0; i < n && !code; i++) {
        snprintf(name, sizeof name, "%s%s", parts[i].prefix, d->name);
        code = safetensors_declare(w, name, DTYPE_F32, 1, &d->cols, st);
    }
    for (int i = 0; i < n && !code; i++)
        code = safetensors_write(w, parts[i].data, (size_t)d->cols * sizeof(float), st);
    if (!code)
        return safetensors_finish(w, st);
    safetensors_discard(w);
    return code;
}

int extra_params_save(const struct extra_params *x, const char *dir, const char *names[2], struct plm_status *st)
{
    const struct part values = {"", x->params}, moments[] = {{"m.", x->m}, {"v.", x->v}};
    int code = write_parts(x, dir, x->file, &values, 1, st);
    names[0] = x->file;
    names[1] = x->optimizer_file;
    return code ? code : write_parts(x, dir, x->optimizer_file, moments, 2, st);
}

static int read_parts(const struct extra_params *x, const char *dir, const char *file, const struct part *parts, int n, struct plm_status *st)
{
    const struct tensor_desc *d = x->table.tensors;
    struct safetensors s;
    char path[PATH_MAX], name[96];
    if (snprintf(path, sizeof path, "%s/%s", dir, file) >= (int)sizeof path)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", dir);
    int code = safetensors_open(&s, path, st);
    if (code)
        return code;
    for (int i = 0; i < n && !code; i++) {
        snprintf(name, sizeof name, "%s%s", parts[i].prefix, d->name);
        const struct stored_tensor *t = safetensors_find(&s, name);
        if (!t || t->n_dims != 1 || t->shape[0] != d->cols || t->type != DTYPE_F32) {
            code = status_set(st, PLM_EFORMAT, "'%s': expected a tensor '%s' of %lld numbers of type f32", path, name, (long long)d->cols);
            break;
        }
        dtype_to_f32(t->type, parts[i].data, t->data, d->cols);
        for (int64_t k = 0; k < d->cols && !code; k++)
            if (!isfinite(parts[i].data[k]))
                code = status_set(st, PLM_EFORMAT, "'%s': element %lld of '%s' is %g; the file is damaged, or training diverged", path, (long long)k, name,
                                  (double)parts[i].data[k]);
    }
    safetensors_close(&s);
    return code;
}

int extra_params_load(struct extra_params *x, const char *dir, bool optimizer, struct plm_status *st)
{
    const struct part values = {"", x->params}, moments[] = {{"m.", x->m}, {"v.", x->v}};
    int code = read_parts(x, dir, x->file, &values, 1, st);
    return code || !optimizer ? code : read_parts(x, dir, x->optimizer_file, moments, 2, st);
}
