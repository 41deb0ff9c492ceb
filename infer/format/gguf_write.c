#include "infer/format/gguf.h"
#include "infer/format/json.h"
#include "infer/format/tensor_output.h"

#include <stdlib.h>
#include <string.h>

#define VERSION 3
#define ALIGNMENT 32 /* the default: general.alignment is not written */
#define NAME_MAX_BYTES 63 /* ggml keeps tensor names in 64 bytes */

struct gguf_writer {
    struct tensor_output out;
    struct json_buffer metadata; /* encoded entries: the growing buffer takes any bytes */
    uint64_t n_entries;
    char **keys; /* (n_entries) */
};

int gguf_create(struct gguf_writer **out, const char *path, struct plm_status *st)
{
    struct gguf_writer *w = calloc(1, sizeof *w);
    *out = NULL;
    if (!w)
        return status_no_memory(st, sizeof *w, path);
    int code = tensor_output_open(&w->out, path, ALIGNMENT, st);
    if (code)
        free(w);
    else
        *out = w;
    return code;
}

static void put(struct gguf_writer *w, const void *data, size_t bytes)
{
    json_put(&w->metadata, data, bytes);
}

static void put_string(struct gguf_writer *w, const char *text, size_t length)
{
    uint64_t n = length;
    put(w, &n, sizeof n);
    put(w, text, length);
}

/* Begin an entry: key and value type. */
static void entry_begin(struct gguf_writer *w, const char *key, enum gguf_value_type type)
{
    struct tensor_output *o = &w->out;
    if (o->error.code)
        return;
    if (o->started)
        status_set(&o->error, PLM_EINVAL, "'%s': key '%s' is set after the first data were written", o->path, key);
    if (*key == '\0')
        status_set(&o->error, PLM_EINVAL, "'%s': a metadata key is empty", o->path);
    for (uint64_t i = 0; i < w->n_entries; i++)
        if (strcmp(w->keys[i], key) == 0)
            status_set(&o->error, PLM_EINVAL, "'%s': key '%s' is set twice", o->path, key);
    char **keys = realloc(w->keys, (size_t)(w->n_entries + 1) * sizeof *keys);
    if (keys)
        w->keys = keys;
    if (keys && (keys[w->n_entries] = strdup(key)))
        w->n_entries++;
    else
        w->metadata.failed = true;
    uint32_t number = type;
    put_string(w, key, strlen(key));
    put(w, &number, sizeof number);
}

static int entry_end(struct gguf_writer *w, struct plm_status *st)
{
    if (!w->out.error.code && w->metadata.failed)
        status_no_memory(&w->out.error, w->metadata.length, w->out.path);
    return tensor_output_status(&w->out, st);
}

static int set_scalar(struct gguf_writer *w, const char *key, enum gguf_value_type type, const void *v, size_t bytes,
                      struct plm_status *st)
{
    entry_begin(w, key, type);
    put(w, v, bytes);
    return entry_end(w, st);
}

int gguf_set_u32(struct gguf_writer *w, const char *key, uint32_t v, struct plm_status *st)
{
    return set_scalar(w, key, GGUF_U32, &v, sizeof v, st);
}

int gguf_set_f32(struct gguf_writer *w, const char *key, float v, struct plm_status *st)
{
    return set_scalar(w, key, GGUF_F32, &v, sizeof v, st);
}

int gguf_set_bool(struct gguf_writer *w, const char *key, bool v, struct plm_status *st)
{
    uint8_t byte = v;
    return set_scalar(w, key, GGUF_BOOL, &byte, sizeof byte, st);
}

int gguf_set_string(struct gguf_writer *w, const char *key, const char *v, size_t length, struct plm_status *st)
{
    entry_begin(w, key, GGUF_STRING);
    put_string(w, v, length);
    return entry_end(w, st);
}

static void array_begin(struct gguf_writer *w, const char *key, enum gguf_value_type element, uint64_t n)
{
    uint32_t number = element;
    entry_begin(w, key, GGUF_ARRAY);
    put(w, &number, sizeof number);
    put(w, &n, sizeof n);
}

int gguf_set_strings(struct gguf_writer *w, const char *key, const char *const *v, const size_t *lengths, uint64_t n,
                     struct plm_status *st)
{
    array_begin(w, key, GGUF_STRING, n);
    for (uint64_t i = 0; i < n; i++)
        put_string(w, v[i], lengths[i]);
    return entry_end(w, st);
}

int gguf_set_i32s(struct gguf_writer *w, const char *key, const int32_t *v, uint64_t n, struct plm_status *st)
{
    array_begin(w, key, GGUF_I32, n);
    put(w, v, (size_t)n * sizeof *v);
    return entry_end(w, st);
}

int gguf_declare(struct gguf_writer *w, const char *name, enum dtype type, int n_dims, const int64_t *shape,
                 struct plm_status *st)
{
    struct tensor_output *o = &w->out;
    if (!o->error.code && (*name == '\0' || strlen(name) > NAME_MAX_BYTES))
        status_set(&o->error, PLM_EINVAL, "'%s': tensor name '%s' has %zu bytes; GGUF has 1 to %d", o->path, name, strlen(name),
                   NAME_MAX_BYTES);
    tensor_output_declare(o, name, type, n_dims, shape);
    return tensor_output_status(o, st);
}

static void write_header(struct gguf_writer *w)
{
    struct tensor_output *o = &w->out;
    if (tensor_output_check_names(o))
        return;
    uint32_t version = VERSION;
    uint64_t n_tensors = (uint64_t)o->n_tensors;
    tensor_output_put(o, "GGUF", 4);
    tensor_output_put(o, &version, sizeof version);
    tensor_output_put(o, &n_tensors, sizeof n_tensors);
    tensor_output_put(o, &w->n_entries, sizeof w->n_entries);
    tensor_output_put(o, w->metadata.data, w->metadata.length);
    for (int i = 0; i < o->n_tensors; i++) {
        const struct declared_tensor *t = &o->tensors[i];
        uint64_t length = strlen(t->name);
        uint32_t n_dims = (uint32_t)t->n_dims, type = dtype_info(t->type)->gguf_type;
        tensor_output_put(o, &length, sizeof length);
        tensor_output_put(o, t->name, (size_t)length);
        tensor_output_put(o, &n_dims, sizeof n_dims);
        for (int d = t->n_dims - 1; d >= 0; d--)
            tensor_output_put(o, &t->shape[d], sizeof t->shape[d]);
        tensor_output_put(o, &type, sizeof type);
        tensor_output_put(o, &t->offset, sizeof t->offset);
    }
    tensor_output_pad(o, (ALIGNMENT - o->position % ALIGNMENT) % ALIGNMENT);
    tensor_output_start(o);
}

int gguf_write(struct gguf_writer *w, const void *data, size_t bytes, struct plm_status *st)
{
    if (!w->out.started)
        write_header(w);
    tensor_output_write(&w->out, data, bytes);
    return tensor_output_status(&w->out, st);
}

static void release(struct gguf_writer *w)
{
    for (uint64_t i = 0; i < w->n_entries; i++)
        free(w->keys[i]);
    free(w->keys);
    free(w->metadata.data);
    free(w);
}

int gguf_finish(struct gguf_writer *w, struct plm_status *st)
{
    if (!w)
        return PLM_OK;
    if (!w->out.started)
        write_header(w);
    /* Readers of ggml expect the last tensor to be padded like the others. */
    if (w->out.started && w->out.current == w->out.n_tensors)
        tensor_output_pad(&w->out, (ALIGNMENT - w->out.position % ALIGNMENT) % ALIGNMENT);
    int code = tensor_output_finish(&w->out, st);
    release(w);
    return code;
}

void gguf_discard(struct gguf_writer *w)
{
    if (!w)
        return;
    tensor_output_discard(&w->out);
    release(w);
}
