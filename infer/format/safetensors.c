#include "infer/format/safetensors.h"
#include "infer/format/json.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_MAX 100000000 /* bytes; the limit of the format's reference implementation */

struct owned { /* safetensors.owned */
    struct json_doc *header; /* holds the names */
    const struct stored_tensor **by_name; /* (n_tensors), sorted */
};

/* Two non-negative integers begin <= end. */
static bool read_extent(const struct json_value *v, uint64_t *begin, uint64_t *end)
{
    int64_t b, e;
    if (json_typeof(v) != JSON_ARRAY || json_count(v) != 2 || !json_as_integer(json_first(v), &b) ||
        !json_as_integer(json_next(json_first(v)), &e) || b < 0 || e < b)
        return false;
    *begin = (uint64_t)b;
    *end = (uint64_t)e;
    return true;
}

/* One entry of the header. `where` is the file, `data` its data section of `data_bytes`. */
static int read_entry(struct stored_tensor *t, const struct json_value *entry, const char *where, const unsigned char *data,
                      uint64_t data_bytes, struct plm_status *st)
{
    size_t length, type_length;
    t->name = json_key(entry, &length);
    if (strlen(t->name) != length)
        return status_set(st, PLM_EFORMAT, "'%s': the name of tensor '%s' contains a NUL character", where, t->name);
    const char *type = json_as_string(json_get(entry, "dtype"), &type_length);
    if (!type)
        return status_set(st, PLM_EFORMAT, "'%s': tensor '%s' has no \"dtype\"", where, t->name);
    t->type = dtype_by_safetensors_name(type, type_length);
    if (t->type == DTYPE_COUNT)
        return status_set(st, PLM_EUNSUPPORTED, "'%s': tensor '%s' has type %.32s; F32, F16 and BF16 can be read: convert it",
                          where, t->name, type);

    const struct json_value *shape = json_get(entry, "shape");
    if (json_typeof(shape) != JSON_ARRAY)
        return status_set(st, PLM_EFORMAT, "'%s': tensor '%s' has no \"shape\"", where, t->name);
    if (json_count(shape) > TENSOR_MAX_DIMS)
        return status_set(st, PLM_EUNSUPPORTED, "'%s': tensor '%s' has %zu dimensions; at most %d can be read", where, t->name,
                          json_count(shape), TENSOR_MAX_DIMS);
    uint64_t elements = 1;
    for (const struct json_value *d = json_first(shape); d; d = json_next(d)) {
        int64_t *dim = &t->shape[t->n_dims];
        if (!json_as_integer(d, dim) || *dim < 0 || __builtin_mul_overflow(elements, (uint64_t)*dim, &elements) ||
            elements > INT64_MAX / 8)
            return status_set(st, PLM_EFORMAT, "'%s': dimension %d of tensor '%s' is not a size", where, t->n_dims, t->name);
        t->n_dims++;
    }

    uint64_t begin, end, element_bytes = (uint64_t)dtype_info(t->type)->block_bytes;
    if (!read_extent(json_get(entry, "data_offsets"), &begin, &end))
        return status_set(st, PLM_EFORMAT, "'%s': tensor '%s' has no \"data_offsets\" [begin, end]", where, t->name);
    if (end > data_bytes)
        return status_set(st, PLM_EFORMAT,
                          "'%s': tensor '%s' ends at byte %llu of the data, but only %llu are there; is the file "
                          "truncated?",
                          where, t->name, (unsigned long long)end, (unsigned long long)data_bytes);
    if (end - begin != elements * element_bytes)
        return status_set(st, PLM_EFORMAT, "'%s': tensor '%s' has %llu bytes of data, but its shape needs %llu", where, t->name,
                          (unsigned long long)(end - begin), (unsigned long long)(elements * element_bytes));
    t->data = data + begin;
    t->bytes = (size_t)(end - begin);
    if ((uintptr_t)t->data % dtype_alignment(t->type) != 0)
        return status_set(st, PLM_EUNSUPPORTED,
                          "'%s': the data of tensor '%s' are not aligned to its %llu-byte elements; write the "
                          "file again with a tool that pads the header",
                          where, t->name, (unsigned long long)element_bytes);
    return PLM_OK;
}

/* The __metadata__ object, strings to strings, as text of its own. */
static int read_metadata(struct safetensors *s, const struct json_value *metadata, const char *where, struct plm_status *st)
{
    if (json_typeof(metadata) != JSON_OBJECT)
        return status_set(st, PLM_EFORMAT, "'%s': \"__metadata__\" is not an object", where);
    struct json_buffer text = {0};
    json_put(&text, "{", 1);
    for (const struct json_value *m = json_first(metadata); m; m = json_next(m)) {
        size_t key_length, length;
        const char *key = json_key(m, &key_length), *value = json_as_string(m, &length);
        if (!value) {
            free(text.data);
            return status_set(st, PLM_EFORMAT, "'%s': \"%.200s\" in \"__metadata__\" is not a string", where, key);
        }
        json_put(&text, ",", m == json_first(metadata) ? 0 : 1);
        json_put_string(&text, key, key_length);
        json_put(&text, ":", 1);
        json_put_string(&text, value, length);
    }
    json_put(&text, "}", 1);
    s->metadata = text.data;
    return text.failed ? status_no_memory(st, text.length, where) : PLM_OK;
}

static int offset_compare(const void *x, const void *y)
{
    const struct stored_tensor *a = x, *b = y;
    uintptr_t p = (uintptr_t)a->data, q = (uintptr_t)b->data;
    return p != q ? (p < q ? -1 : 1) : a->bytes != b->bytes ? (a->bytes < b->bytes ? -1 : 1) : 0; /* empty ones first */
}

static int name_compare(const void *x, const void *y)
{
    return strcmp((*(const struct stored_tensor *const *)x)->name, (*(const struct stored_tensor *const *)y)->name);
}

/* The tensors, sorted, must fill the data section without a gap. */
static int check_layout(const struct safetensors *s, const char *where, const unsigned char *data, uint64_t data_bytes,
                        struct plm_status *st)
{
    uint64_t expected = 0;
    for (int i = 0; i < s->n_tensors; i++) {
        const struct stored_tensor *t = &s->tensors[i];
        uint64_t begin = (uint64_t)((const unsigned char *)t->data - data);
        if (begin != expected)
            return status_set(st, PLM_EFORMAT,
                              "'%s': tensor '%s' begins at byte %llu of the data, expected %llu: tensors must neither "
                              "overlap nor leave gaps",
                              where, t->name, (unsigned long long)begin, (unsigned long long)expected);
        expected += t->bytes;
    }
    if (expected != data_bytes)
        return status_set(st, PLM_EFORMAT, "'%s': %llu bytes after the last tensor", where,
                          (unsigned long long)(data_bytes - expected));
    return PLM_OK;
}

static int read_header(struct safetensors *s, const char *where, struct plm_status *st)
{
    if (s->file.size < 8)
        return status_set(st, PLM_EFORMAT, "'%s' has %zu bytes: not a safetensors file, or truncated", where, s->file.size);
    uint64_t length;
    memcpy(&length, s->file.data, sizeof length);
    if (length > HEADER_MAX || length < 2 || s->file.size - 8 < 2 || s->file.data[8] != '{')
        return status_set(st, PLM_EFORMAT, "'%s' does not begin like a safetensors file (header of %llu bytes)", where,
                          (unsigned long long)length);
    if (length > s->file.size - 8)
        return status_set(st, PLM_EFORMAT, "'%s': the header has %llu bytes, but only %zu are there; the file is truncated",
                          where, (unsigned long long)length, s->file.size - 8);
    struct owned *owned = calloc(1, sizeof *owned);
    s->owned = owned;
    if (!owned)
        return status_no_memory(st, sizeof *owned, where);
    int code = json_parse(&owned->header, (const char *)s->file.data + 8, (size_t)length, "header", st);
    if (code) {
        status_prefix(st, "'%s'", where);
        return code;
    }
    const struct json_value *root = json_root(owned->header);
    size_t n = json_count(root);
    if (n > INT32_MAX / sizeof *s->tensors)
        return status_set(st, PLM_EUNSUPPORTED, "'%s': %zu tensors are too many", where, n);
    s->tensors = calloc(n + 1, sizeof *s->tensors);
    owned->by_name = calloc(n + 1, sizeof *owned->by_name);
    if (!s->tensors || !owned->by_name)
        return status_no_memory(st, (n + 1) * sizeof *s->tensors, where);

    const unsigned char *data = s->file.data + 8 + length;
    uint64_t data_bytes = s->file.size - 8 - length;
    for (const struct json_value *m = json_first(root); m && !code; m = json_next(m)) {
        if (strcmp(json_key(m, NULL), "__metadata__") == 0)
            code = read_metadata(s, m, where, st);
        else
            code = read_entry(&s->tensors[s->n_tensors++], m, where, data, data_bytes, st);
    }
    if (code)
        return code;
    qsort(s->tensors, (size_t)s->n_tensors, sizeof *s->tensors, offset_compare);
    for (int i = 0; i < s->n_tensors; i++)
        owned->by_name[i] = &s->tensors[i];
    qsort(owned->by_name, (size_t)s->n_tensors, sizeof *owned->by_name, name_compare);
    return check_layout(s, where, data, data_bytes, st);
}

int safetensors_open(struct safetensors *s, const char *path, struct plm_status *st)
{
    *s = (struct safetensors){0};
    int code = mapped_open(&s->file, path, st);
    if (!code)
        code = read_header(s, path, st);
    if (code)
        safetensors_close(s);
    return code;
}

void safetensors_close(struct safetensors *s)
{
    struct owned *owned = s->owned;
    if (owned) {
        json_free(owned->header);
        free(owned->by_name);
        free(owned);
    }
    free(s->tensors);
    free(s->metadata);
    mapped_close(&s->file);
    *s = (struct safetensors){0};
}

const struct stored_tensor *safetensors_find(const struct safetensors *s, const char *name)
{
    if (s->n_tensors == 0)
        return NULL;
    const struct owned *owned = s->owned;
    const struct stored_tensor key = {.name = name}, *wanted = &key;
    const struct stored_tensor **found =
        bsearch(&wanted, owned->by_name, (size_t)s->n_tensors, sizeof *owned->by_name, name_compare);
    return found ? *found : NULL;
}
