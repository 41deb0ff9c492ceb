#include "infer/format/json.h"
#include "infer/format/tensor_output.h"

#include <stdlib.h>
#include <string.h>

#define DATA_ALIGN 64 /* of the data section in the file */

struct safetensors_writer {
    struct tensor_output out;
    struct json_buffer metadata; /* members of the __metadata__ object */
};

int safetensors_create(struct safetensors_writer **out, const char *path, struct plm_status *st)
{
    struct safetensors_writer *w = calloc(1, sizeof *w);
    *out = NULL;
    if (!w)
        return status_no_memory(st, sizeof *w, path);
    int code = tensor_output_open(&w->out, path, 1, st);
    if (code)
        free(w);
    else
        *out = w;
    return code;
}

int safetensors_declare(struct safetensors_writer *w, const char *name, enum dtype type, int n_dims, const int64_t *shape,
                        struct plm_status *st)
{
    struct tensor_output *o = &w->out;
    const struct dtype_info *info = dtype_info(type);
    if (!o->error.code && info && !info->safetensors_name)
        status_set(&o->error, PLM_EUNSUPPORTED, "'%s': tensor '%s': safetensors has no type %s; write f32, f16 or bf16, or GGUF",
                   o->path, name, info->name);
    if (!o->error.code && strcmp(name, "__metadata__") == 0)
        status_set(&o->error, PLM_EINVAL, "'%s': a tensor cannot be named __metadata__", o->path);
    if (!o->error.code && info && o->data_bytes % dtype_alignment(type) != 0)
        status_set(&o->error, PLM_EINVAL,
                   "'%s': tensor '%s' would begin at byte %llu of the data, not aligned to type %s; declare "
                   "the tensors with wider elements first",
                   o->path, name, (unsigned long long)o->data_bytes, info->name);
    tensor_output_declare(o, name, type, n_dims, shape);
    return tensor_output_status(o, st);
}

int safetensors_set_metadata(struct safetensors_writer *w, const char *key, const char *value, struct plm_status *st)
{
    struct tensor_output *o = &w->out;
    if (!o->error.code && o->started)
        status_set(&o->error, PLM_EINVAL, "'%s': metadata '%s' is set after the first data were written", o->path, key);
    json_put(&w->metadata, ",", w->metadata.length ? 1 : 0);
    json_put_string(&w->metadata, key, strlen(key));
    json_put(&w->metadata, ":", 1);
    json_put_string(&w->metadata, value, strlen(value));
    if (!o->error.code && w->metadata.failed)
        status_no_memory(&o->error, w->metadata.length, o->path);
    return tensor_output_status(o, st);
}

static void write_header(struct safetensors_writer *w)
{
    struct tensor_output *o = &w->out;
    if (tensor_output_check_names(o))
        return;
    struct json_buffer text = {0};
    json_put(&text, "{", 1);
    if (w->metadata.length) {
        json_printf(&text, "\"__metadata__\":{");
        json_put(&text, w->metadata.data, w->metadata.length);
        json_put(&text, "}", 1);
    }
    for (int i = 0; i < o->n_tensors; i++) {
        const struct declared_tensor *t = &o->tensors[i];
        json_put(&text, ",", text.length > 1 ? 1 : 0);
        json_put_string(&text, t->name, strlen(t->name));
        json_printf(&text, ":{\"dtype\":\"%s\",\"shape\":[", dtype_info(t->type)->safetensors_name);
        for (int d = 0; d < t->n_dims; d++)
            json_printf(&text, "%s%lld", d ? "," : "", (long long)t->shape[d]);
        json_printf(&text, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)t->offset,
                    (unsigned long long)(t->offset + t->bytes));
    }
    json_put(&text, "}", 1);
    while ((8 + text.length) % DATA_ALIGN != 0 && !text.failed)
        json_put(&text, " ", 1);
    uint64_t length = text.length;
    if (text.failed) {
        status_no_memory(&o->error, text.length, o->path);
    } else {
        tensor_output_put(o, &length, sizeof length);
        tensor_output_put(o, text.data, text.length);
        tensor_output_start(o);
    }
    free(text.data);
}

int safetensors_write(struct safetensors_writer *w, const void *data, size_t bytes, struct plm_status *st)
{
    if (!w->out.started)
        write_header(w);
    tensor_output_write(&w->out, data, bytes);
    return tensor_output_status(&w->out, st);
}

int safetensors_finish(struct safetensors_writer *w, struct plm_status *st)
{
    if (!w)
        return PLM_OK;
    if (!w->out.started)
        write_header(w);
    int code = tensor_output_finish(&w->out, st);
    free(w->metadata.data);
    free(w);
    return code;
}

void safetensors_discard(struct safetensors_writer *w)
{
    if (!w)
        return;
    tensor_output_discard(&w->out);
    free(w->metadata.data);
    free(w);
}
