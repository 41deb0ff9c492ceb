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

/* One entry of the header, as it is told: a type that is not in the table leaves DTYPE_COUNT. */
struct header_entry {
    struct stored_tensor stored;
    const char *type;
};

/* Types beyond those of dtype.h and the bytes of their elements. */
static const struct {
    const char *name;
    uint64_t bytes;
} other_types[] = {{"F64", 8}, {"I64", 8}, {"U64", 8}, {"I32", 4}, {"U32", 4}, {"I16", 2}, {"U16", 2},
                   {"I8", 1}, {"U8", 1}, {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"C64", 8}};

/* Bytes of an element; 0: not known, as of the types that pack several into a byte. */
static uint64_t element_bytes(const struct header_entry *e)
{
    if (e->stored.type != DTYPE_COUNT)
        return (uint64_t)dtype_info(e->stored.type)->block_bytes;
    for (size_t i = 0; i < sizeof other_types / sizeof *other_types; i++)
        if (strcmp(other_types[i].name, e->type) == 0)
            return other_types[i].bytes;
    return 0;
}

static bool is_f64(const struct header_entry *e) { return strcmp(e->type, "F64") == 0; }

static int read_shape(struct stored_tensor *t, const struct json_value *shape, bool computed, uint64_t *elements, const char *where,
                      struct plm_status *st)
{
    if (json_typeof(shape) != JSON_ARRAY)
        return status_set(st, PLM_EFORMAT, "'%s': tensor '%s' has no \"shape\"", where, t->name);
    if (computed && json_count(shape) > TENSOR_MAX_DIMS)
        return status_set(st, PLM_EUNSUPPORTED, "'%s': tensor '%s' has %zu dimensions; at most %d can be read", where, t->name,
                          json_count(shape), TENSOR_MAX_DIMS);
    *elements = 1;
    for (const struct json_value *d = json_first(shape); d; d = json_next(d), t->n_dims++) {
        int64_t dim;
        if (!json_as_integer(d, &dim) || dim < 0 || __builtin_mul_overflow(*elements, (uint64_t)dim, elements) ||
            *elements > INT64_MAX / 8)
            return status_set(st, PLM_EFORMAT, "'%s': dimension %d of tensor '%s' is not a size", where, t->n_dims, t->name);
        if (t->n_dims < TENSOR_MAX_DIMS)
            t->shape[t->n_dims] = dim;
    }
    return PLM_OK;
}

/* One entry of the header. `where` is the file, `data` its data section of `data_bytes`. */
static int read_entry(struct header_entry *e, const struct json_value *entry, const char *where, const unsigned char *data,
                      uint64_t data_bytes, struct plm_status *st)
{
    struct stored_tensor *t = &e->stored;
    size_t length, type_length;
    t->name = json_key(entry, &length);
    if (strlen(t->name) != length)
        return status_set(st, PLM_EFORMAT, "'%s': the name of tensor '%s' contains a NUL character", where, t->name);
    e->type = json_as_string(json_get(entry, "dtype"), &type_length);
    if (!e->type || strlen(e->type) != type_length)
        return status_set(st, PLM_EFORMAT, "'%s': tensor '%s' has no \"dtype\"", where, t->name);
    t->type = dtype_by_safetensors_name(e->type, type_length);

    uint64_t begin, end, elements = 0;
    const uint64_t size = element_bytes(e);
    int code = read_shape(t, json_get(entry, "shape"), t->type != DTYPE_COUNT || is_f64(e), &elements, where, st);
    if (code)
        return code;
    if (!read_extent(json_get(entry, "data_offsets"), &begin, &end))
        return status_set(st, PLM_EFORMAT, "'%s': tensor '%s' has no \"data_offsets\" [begin, end]", where, t->name);
    if (end > data_bytes)
        return status_set(st, PLM_EFORMAT,
                          "'%s': tensor '%s' ends at byte %llu of the data, but only %llu are there; is the file "
                          "truncated?",
                          where, t->name, (unsigned long long)end, (unsigned long long)data_bytes);
    if (size && end - begin != elements * size)
        return status_set(st, PLM_EFORMAT, "'%s': tensor '%s' has %llu bytes of data, but its shape needs %llu", where, t->name,
                          (unsigned long long)(end - begin), (unsigned long long)(elements * size));
    t->data = data + begin;
    t->bytes = (size_t)(end - begin);
    return PLM_OK;
}

/* The __metadata__ object, strings to strings, as text of its own. */
static int read_metadata(struct safetensors *s, const struct json_value *metadata, const char *where, struct plm_status *st)
{
    if (json_typeof(metadata) == JSON_NULL)
        return PLM_OK;
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
    const struct stored_tensor *a = &((const struct header_entry *)x)->stored, *b = &((const struct header_entry *)y)->stored;
    uintptr_t p = (uintptr_t)a->data, q = (uintptr_t)b->data;
    return p != q ? (p < q ? -1 : 1) : a->bytes != b->bytes ? (a->bytes < b->bytes ? -1 : 1) : 0; /* empty ones first */
}

static int name_compare(const void *x, const void *y)
{
    return strcmp((*(const struct stored_tensor *const *)x)->name, (*(const struct stored_tensor *const *)y)->name);
}

/* The tensors, sorted, must fill the data section without a gap. */
static int check_layout(const struct header_entry *entries, int n, const char *where, const unsigned char *data, uint64_t data_bytes,
                        struct plm_status *st)
{
    uint64_t expected = 0;
    for (int i = 0; i < n; i++) {
        const struct stored_tensor *t = &entries[i].stored;
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

/* The entries as tensors that can be used, in memory where the mapping does not serve, and others. */
static int take_entries(struct safetensors *s, const struct header_entry *entries, int n, struct plm_status *st)
{
    int code = PLM_OK;
    for (int i = 0; i < n && !code; i++) {
        struct stored_tensor *t = &s->tensors[s->n_tensors];
        *t = entries[i].stored;
        if (is_f64(&entries[i])) {
            code = tensor_copy_narrowed(&s->copies, t, st);
            s->n_narrowed++;
        } else if (t->type != DTYPE_COUNT) {
            code = tensor_copy_aligned(&s->copies, t, st);
        } else {
            s->others[s->n_others++] = (struct other_tensor){t->name, entries[i].type};
            continue;
        }
        s->n_tensors++;
    }
    return code;
}

/* Every entry of the header, into `entries`. */
static int read_entries(struct safetensors *s, struct header_entry *entries, const unsigned char *data, uint64_t data_bytes,
                        const char *where, struct plm_status *st)
{
    struct owned *owned = s->owned;
    int n = 0, code = PLM_OK;
    for (const struct json_value *m = json_first(json_root(owned->header)); m && !code; m = json_next(m)) {
        if (strcmp(json_key(m, NULL), "__metadata__") == 0)
            code = read_metadata(s, m, where, st);
        else
            code = read_entry(&entries[n++], m, where, data, data_bytes, st);
    }
    if (code)
        return code;
    qsort(entries, (size_t)n, sizeof *entries, offset_compare);
    code = check_layout(entries, n, where, data, data_bytes, st);
    return code ? code : take_entries(s, entries, n, st);
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
    if (n > INT32_MAX / sizeof(struct header_entry))
        return status_set(st, PLM_EUNSUPPORTED, "'%s': %zu tensors are too many", where, n);
    s->tensors = calloc(n + 1, sizeof *s->tensors);
    s->others = calloc(n + 1, sizeof *s->others);
    owned->by_name = calloc(n + 1, sizeof *owned->by_name);
    struct header_entry *entries = calloc(n + 1, sizeof *entries);
    if (s->tensors && s->others && owned->by_name && entries)
        code = read_entries(s, entries, s->file.data + 8 + length, s->file.size - 8 - length, where, st);
    else
        code = status_no_memory(st, (n + 1) * sizeof *entries, where);
    free(entries);
    for (int i = 0; i < s->n_tensors && !code; i++)
        owned->by_name[i] = &s->tensors[i];
    if (!code)
        qsort(owned->by_name, (size_t)s->n_tensors, sizeof *owned->by_name, name_compare);
    return code;
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
    free(s->others);
    tensor_copies_free(&s->copies);
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

const char *safetensors_other_type(const struct safetensors *s, const char *name)
{
    for (int i = 0; i < s->n_others; i++)
        if (strcmp(s->others[i].name, name) == 0)
            return s->others[i].type;
    return NULL;
}
