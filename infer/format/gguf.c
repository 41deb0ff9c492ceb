#include "infer/format/gguf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MAX 65535 /* bytes, of the specification */

struct entry { /* a metadata entry; everything points into the mapping */
    const char *key;
    size_t key_length;
    uint32_t type, element_type; /* enum gguf_value_type; element_type of an array */
    uint64_t count;              /* elements of an array, else 1 */
    const unsigned char *value;
    uint64_t *strings;           /* (count) for an array of strings: where each one's length is, from value; owned */
};

struct tensor {
    struct stored_tensor stored;
    uint32_t gguf_type;
    uint64_t begin, end; /* in the data section; end = begin when the size of the type is not known */
};

struct gguf {
    struct gguf **parts;          /* (n_parts), those behind the first of a split file; their tensors are listed here */
    int n_parts;
    struct tensor_copies copies;  /* of data that the file does not align to their type */
    struct mapped_file file;
    char *path;
    size_t n_entries;
    struct entry *entries;        /* sorted by key */
    int n_tensors;
    struct tensor *tensors;       /* in file order */
    const struct tensor **sorted; /* by name */
};

static const struct {
    const char *name;
    size_t bytes; /* 0: variable */
} value_types[] = {
    [GGUF_U8] = {"u8", 1},       [GGUF_I8] = {"i8", 1},   [GGUF_U16] = {"u16", 2},       [GGUF_I16] = {"i16", 2},
    [GGUF_U32] = {"u32", 4},     [GGUF_I32] = {"i32", 4}, [GGUF_F32] = {"f32", 4},       [GGUF_BOOL] = {"bool", 1},
    [GGUF_STRING] = {"string", 0}, [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8}, [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};
#define VALUE_TYPES (sizeof value_types / sizeof value_types[0])

/* Names of tensor types that this build only recognises, for messages. */
static const char *gguf_type_name(uint32_t type)
{
    static const char *const names[] = {"f32",     "f16",    "q4_0",    "q4_1",  NULL,     NULL,    "q5_0",  "q5_1",
                                        "q8_0",    "q8_1",   "q2_K",    "q3_K",  "q4_K",   "q5_K",  "q6_K",  "q8_K",
                                        "iq2_xxs", "iq2_xs", "iq3_xxs", "iq1_s", "iq4_nl", "iq3_s", "iq2_s", "iq4_xs",
                                        "i8",      "i16",    "i32",     "i64",   "f64",    "iq1_m", "bf16",  NULL,
                                        NULL,      NULL,     "tq1_0",   "tq2_0", NULL,     NULL,    NULL,    "mxfp4"};
    return type < sizeof names / sizeof names[0] && names[type] ? names[type] : "unknown";
}

struct cursor {
    const unsigned char *p, *end;
};

static uint64_t left(const struct cursor *c)
{
    return (uint64_t)(c->end - c->p);
}

static bool take_u32(struct cursor *c, uint32_t *out)
{
    if (left(c) < sizeof *out)
        return false;
    memcpy(out, c->p, sizeof *out);
    c->p += sizeof *out;
    return true;
}

static bool take_u64(struct cursor *c, uint64_t *out)
{
    if (left(c) < sizeof *out)
        return false;
    memcpy(out, c->p, sizeof *out);
    c->p += sizeof *out;
    return true;
}

static bool take_string(struct cursor *c, const char **out, size_t *length)
{
    struct cursor at = *c;
    uint64_t n;
    if (!take_u64(&at, &n) || n > left(&at))
        return false;
    *out = (const char *)at.p;
    *length = (size_t)n;
    c->p = at.p + n;
    return true;
}

static int fail_truncated(const struct gguf *g, const char *in, const struct entry *e, struct plm_status *st)
{
    if (e && e->key)
        return status_set(st, PLM_EFORMAT, "'%s': the file ends inside %s of key '%.*s': truncated, or a wrong length", g->path,
                          in, (int)(e->key_length < 200 ? e->key_length : 200), e->key);
    return status_set(st, PLM_EFORMAT, "'%s': the file ends inside %s: truncated, or a wrong length", g->path, in);
}

/* "'file': key 'k' " and the formatted rest. */
static int fail_entry(const struct gguf *g, const struct entry *e, struct plm_status *st, enum plm_code code, const char *fmt,
                      ...) PLM_PRINTF(5, 6);
static int fail_entry(const struct gguf *g, const struct entry *e, struct plm_status *st, enum plm_code code, const char *fmt,
                      ...)
{
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return status_set(st, code, "'%s': key '%.*s' %s", g->path, (int)(e->key_length < 200 ? e->key_length : 200), e->key, what);
}

static int read_array(const struct gguf *g, struct entry *e, struct cursor *c, struct plm_status *st)
{
    if (!take_u32(c, &e->element_type) || !take_u64(c, &e->count))
        return fail_truncated(g, "the array", e, st);
    if (e->element_type >= VALUE_TYPES)
        return fail_entry(g, e, st, PLM_EFORMAT, "is an array of unknown type %u", e->element_type);
    if (e->element_type == GGUF_ARRAY)
        return fail_entry(g, e, st, PLM_EUNSUPPORTED, "is an array of arrays, which no known model has");
    e->value = c->p;
    size_t bytes = value_types[e->element_type].bytes;
    if (bytes > 0) {
        if (e->count > left(c) / bytes)
            return fail_truncated(g, "the array", e, st);
        c->p += e->count * bytes;
        return PLM_OK;
    }
    if (e->count > left(c) / sizeof(uint64_t)) /* each string has a length */
        return fail_truncated(g, "the array", e, st);
    e->strings = malloc(((size_t)e->count + 1) * sizeof *e->strings);
    if (!e->strings)
        return status_no_memory(st, (size_t)e->count * sizeof *e->strings, g->path);
    for (uint64_t i = 0; i < e->count; i++) {
        const char *string;
        size_t length;
        e->strings[i] = (uint64_t)(c->p - e->value);
        if (!take_string(c, &string, &length))
            return fail_truncated(g, "a string", e, st);
    }
    return PLM_OK;
}

static int read_entry(const struct gguf *g, struct entry *e, struct cursor *c, struct plm_status *st)
{
    if (!take_string(c, &e->key, &e->key_length))
        return fail_truncated(g, "a metadata key", NULL, st);
    if (e->key_length == 0 || e->key_length > KEY_MAX)
        return status_set(st, PLM_EFORMAT, "'%s': a metadata key has %zu bytes; expected 1 to %d", g->path, e->key_length,
                          KEY_MAX);
    if (!take_u32(c, &e->type))
        return fail_truncated(g, "the value", e, st);
    if (e->type >= VALUE_TYPES)
        return fail_entry(g, e, st, PLM_EFORMAT, "has a value of unknown type %u", e->type);
    e->count = 1;
    e->value = c->p;
    if (e->type == GGUF_ARRAY)
        return read_array(g, e, c, st);
    const char *string;
    size_t length, bytes = value_types[e->type].bytes;
    if (e->type == GGUF_STRING ? !take_string(c, &string, &length) : left(c) < bytes)
        return fail_truncated(g, "the value", e, st);
    c->p += bytes;
    if (e->type == GGUF_BOOL && *e->value > 1)
        return fail_entry(g, e, st, PLM_EFORMAT, "is a bool of value %d; expected 0 or 1", *e->value);
    return PLM_OK;
}

static int entry_compare(const void *x, const void *y)
{
    const struct entry *a = x, *b = y;
    int order = memcmp(a->key, b->key, a->key_length < b->key_length ? a->key_length : b->key_length);
    return order ? order : (a->key_length > b->key_length) - (a->key_length < b->key_length);
}

static int read_metadata(struct gguf *g, struct cursor *c, uint64_t n, struct plm_status *st)
{
    if (n > left(c) / 14) /* a key's length and a byte of it, a type, a byte of value */
        return status_set(st, PLM_EFORMAT, "'%s': %llu metadata entries do not fit the file: truncated, or a wrong count",
                          g->path, (unsigned long long)n);
    g->entries = calloc((size_t)n + 1, sizeof *g->entries);
    if (!g->entries)
        return status_no_memory(st, (size_t)n * sizeof *g->entries, g->path);
    while (g->n_entries < n) {
        int code = read_entry(g, &g->entries[g->n_entries++], c, st);
        if (code)
            return code;
    }
    qsort(g->entries, g->n_entries, sizeof *g->entries, entry_compare);
    for (size_t i = 1; i < g->n_entries; i++)
        if (entry_compare(&g->entries[i - 1], &g->entries[i]) == 0)
            return fail_entry(g, &g->entries[i], st, PLM_EFORMAT, "occurs twice");
    return PLM_OK;
}

static const struct entry *entry_find(const struct gguf *g, const char *key)
{
    struct entry wanted = {.key = key, .key_length = strlen(key)};
    return g->n_entries ? bsearch(&wanted, g->entries, g->n_entries, sizeof *g->entries, entry_compare) : NULL;
}

static int read_alignment(const struct gguf *g, uint64_t *alignment, struct plm_status *st)
{
    *alignment = 32;
    if (!gguf_has(g, "general.alignment"))
        return PLM_OK;
    int code = gguf_get_u64(g, "general.alignment", alignment, st);
    if (!code && (*alignment == 0 || *alignment > UINT32_MAX || (*alignment & (*alignment - 1)) != 0))
        code = status_set(st, PLM_EFORMAT, "'%s': general.alignment is %llu; expected a power of two", g->path,
                          (unsigned long long)*alignment);
    return code;
}

/* Name, dimensions, type and offset of one tensor; `end` stays relative to the data section, whose size is not known yet. */
static int read_tensor(const struct gguf *g, struct tensor *t, struct cursor *c, struct plm_status *st)
{
    const char *name;
    size_t name_length;
    uint32_t n_dims;
    struct stored_tensor *s = &t->stored;
    if (!take_string(c, &name, &name_length))
        return fail_truncated(g, "a tensor's name", NULL, st);
    if (name_length == 0 || memchr(name, '\0', name_length))
        return status_set(st, PLM_EFORMAT, "'%s': tensor %d has an empty name or one with a NUL", g->path, (int)(t - g->tensors));
    s->name = strndup(name, name_length);
    if (!s->name)
        return status_no_memory(st, name_length, g->path);
    if (!take_u32(c, &n_dims))
        return fail_truncated(g, "a tensor's description", NULL, st);
    if (n_dims > TENSOR_MAX_DIMS)
        return status_set(st, PLM_EFORMAT, "'%s': tensor '%s' has %u dimensions; at most %d are possible", g->path, s->name,
                          n_dims, TENSOR_MAX_DIMS);
    s->n_dims = (int)n_dims;
    uint64_t elements = 1, row = 1;
    for (int i = 0; i < s->n_dims; i++) {
        uint64_t ne;
        if (!take_u64(c, &ne))
            return fail_truncated(g, "a tensor's description", NULL, st);
        if (ne > INT64_MAX || __builtin_mul_overflow(elements, ne, &elements) || elements > INT64_MAX / 8)
            return status_set(st, PLM_EFORMAT, "'%s': tensor '%s' has impossible dimensions (ne[%d] is %llu)", g->path, s->name,
                              i, (unsigned long long)ne);
        row = i == 0 ? ne : row;
        s->shape[s->n_dims - 1 - i] = (int64_t)ne;
    }
    if (!take_u32(c, &t->gguf_type) || !take_u64(c, &t->begin))
        return fail_truncated(g, "a tensor's description", NULL, st);
    s->type = dtype_by_gguf_type(t->gguf_type);
    if (s->type == DTYPE_COUNT) {
        t->end = t->begin;
        return PLM_OK;
    }
    const struct dtype_info *info = dtype_info(s->type);
    if (row % (uint64_t)info->block_elements != 0)
        return status_set(st, PLM_EFORMAT, "'%s': tensor '%s' has rows of %llu elements, which are no whole blocks of %d (%s)",
                          g->path, s->name, (unsigned long long)row, info->block_elements, info->name);
    s->bytes = (size_t)(elements / (uint64_t)info->block_elements * (uint64_t)info->block_bytes);
    if (__builtin_add_overflow(t->begin, s->bytes, &t->end))
        return status_set(st, PLM_EFORMAT, "'%s': tensor '%s' has an impossible offset", g->path, s->name);
    return PLM_OK;
}

static int name_compare(const void *x, const void *y)
{
    const struct tensor *a = *(const struct tensor *const *)x, *b = *(const struct tensor *const *)y;
    return strcmp(a->stored.name, b->stored.name);
}

static int begin_compare(const void *x, const void *y)
{
    const struct tensor *a = *(const struct tensor *const *)x, *b = *(const struct tensor *const *)y;
    return a->begin != b->begin ? (a->begin < b->begin ? -1 : 1) : (a->end > b->end) - (a->end < b->end);
}

static int sort_names(struct gguf *g, struct plm_status *st)
{
    qsort(g->sorted, (size_t)g->n_tensors, sizeof *g->sorted, name_compare);
    for (int i = 1; i < g->n_tensors; i++)
        if (name_compare(&g->sorted[i - 1], &g->sorted[i]) == 0)
            return status_set(st, PLM_EFORMAT, "'%s': tensor '%s' occurs twice", g->path, g->sorted[i]->stored.name);
    return PLM_OK;
}

/* Offsets against the data section and each other. Of a type that is not known only the beginning can be checked. */
static int check_layout(struct gguf *g, uint64_t alignment, uint64_t data_bytes, struct plm_status *st)
{
    qsort(g->sorted, (size_t)g->n_tensors, sizeof *g->sorted, begin_compare);
    for (int i = 0; i < g->n_tensors; i++) {
        const struct tensor *t = g->sorted[i], *before = i ? g->sorted[i - 1] : NULL;
        if (t->begin % alignment != 0)
            return status_set(st, PLM_EFORMAT, "'%s': tensor '%s' begins at %llu, not a multiple of the alignment %llu", g->path,
                              t->stored.name, (unsigned long long)t->begin, (unsigned long long)alignment);
        if (t->end > data_bytes)
            return status_set(st, PLM_EFORMAT,
                              "'%s': tensor '%s' reaches byte %llu of the data, but only %llu are there; is the file "
                              "truncated?",
                              g->path, t->stored.name, (unsigned long long)t->end, (unsigned long long)data_bytes);
        if (before && t->begin < before->end)
            return status_set(st, PLM_EFORMAT, "'%s': tensors '%s' and '%s' overlap", g->path, before->stored.name,
                              t->stored.name);
    }
    return sort_names(g, st);
}

static int read_tensors(struct gguf *g, struct cursor *c, uint64_t n, struct plm_status *st)
{
    if (n > left(c) / 25 || n > INT32_MAX) /* name's length and one byte, number of dimensions, type, offset */
        return status_set(st, PLM_EFORMAT, "'%s': %llu tensors do not fit the file: truncated, or a wrong count", g->path,
                          (unsigned long long)n);
    g->tensors = calloc((size_t)n + 1, sizeof *g->tensors);
    g->sorted = calloc((size_t)n + 1, sizeof *g->sorted);
    if (!g->tensors || !g->sorted)
        return status_no_memory(st, (size_t)n * sizeof *g->tensors, g->path);
    while ((uint64_t)g->n_tensors < n) {
        struct tensor *t = &g->tensors[g->n_tensors];
        g->sorted[g->n_tensors++] = t;
        int code = read_tensor(g, t, c, st);
        if (code)
            return code;
    }
    uint64_t alignment;
    int code = read_alignment(g, &alignment, st);
    if (code || n == 0)
        return code;
    uint64_t header_bytes = (uint64_t)(c->p - g->file.data);
    uint64_t data_begin = (header_bytes + alignment - 1) / alignment * alignment;
    if (data_begin > g->file.size)
        return fail_truncated(g, "the padding before the data", NULL, st);
    code = check_layout(g, alignment, g->file.size - data_begin, st);
    for (int i = 0; i < g->n_tensors && !code; i++) {
        struct stored_tensor *s = &g->tensors[i].stored;
        s->data = g->file.data + data_begin + g->tensors[i].begin;
        if (s->type != DTYPE_COUNT)
            code = tensor_copy_aligned(&g->copies, s, st);
    }
    return code;
}

static int read_file(struct gguf *g, struct plm_status *st)
{
    uint32_t magic, version;
    uint64_t n_tensors, n_entries;
    if (g->file.size < 4 || memcmp(g->file.data, "GGUF", 4) != 0)
        return status_set(st, PLM_EFORMAT, "'%s' is not a GGUF file (it does not begin with \"GGUF\")", g->path);
    struct cursor c = {g->file.data, g->file.data + g->file.size};
    if (!take_u32(&c, &magic) || !take_u32(&c, &version) || !take_u64(&c, &n_tensors) || !take_u64(&c, &n_entries))
        return fail_truncated(g, "the header", NULL, st);
    if (version > 0xffff)
        return status_set(st, PLM_EUNSUPPORTED, "'%s' is a big-endian GGUF file; only little-endian ones can be read", g->path);
    if (version != 2 && version != 3)
        return status_set(st, PLM_EUNSUPPORTED, "'%s' has GGUF version %u; versions 2 and 3 can be read: convert it again",
                          g->path, version);
    int code = read_metadata(g, &c, n_entries, st);
    return code ? code : read_tensors(g, &c, n_tensors, st);
}

static int open_file(struct gguf **out, const char *path, struct plm_status *st)
{
    *out = NULL;
    struct gguf *g = calloc(1, sizeof *g);
    if (!g || !(g->path = strdup(path))) {
        free(g);
        return status_no_memory(st, sizeof *g, path);
    }
    int code = mapped_open(&g->file, path, st);
    if (!code)
        code = read_file(g, st);
    if (code)
        gguf_close(g);
    else
        *out = g;
    return code;
}

/* What split.* says of a part. */
struct split {
    uint64_t no, count, tensors;
};

static int read_split(const struct gguf *g, struct split *s, struct plm_status *st)
{
    *s = (struct split){.count = 1};
    if (!gguf_has(g, "split.count"))
        return PLM_OK;
    int code = gguf_get_u64(g, "split.count", &s->count, st);
    if (!code && s->count > 1)
        code = gguf_get_u64(g, "split.no", &s->no, st);
    if (!code && s->count > 1)
        code = gguf_get_u64(g, "split.tensors.count", &s->tensors, st);
    if (!code && s->count > 1 && (s->count > GGUF_MAX_PARTS || s->no >= s->count))
        code = status_set(st, PLM_EFORMAT, "'%s': split.no is %llu and split.count %llu; expected part 0 to count - 1 of at most %d",
                          g->path, (unsigned long long)s->no, (unsigned long long)s->count, GGUF_MAX_PARTS);
    return code;
}

/* Open part `no` of what `split`, read from `path`, describes, and compare the two. */
static int open_part(struct gguf **out, const char *path, const struct split *split, uint64_t no, struct plm_status *st)
{
    char part_path[4096];
    struct split found;
    int code = gguf_part_path(part_path, sizeof part_path, path, split->no, no, split->count, st);
    if (!code && (code = open_file(out, part_path, st)))
        return status_prefix(st, "part %llu of %llu", (unsigned long long)no + 1, (unsigned long long)split->count);
    if (!code)
        code = read_split(*out, &found, st);
    if (!code && (found.no != no || found.count != split->count || (found.count > 1 && found.tensors != split->tensors)))
        code = status_set(st, PLM_EFORMAT, "'%s' should be part %llu of %llu of a model of %llu tensors by its name and '%s', but says it is part "
                          "%llu of %llu, of %llu: the parts of different models, or one part twice", part_path, (unsigned long long)no + 1,
                          (unsigned long long)split->count, (unsigned long long)split->tensors, path, (unsigned long long)found.no + 1,
                          (unsigned long long)found.count, (unsigned long long)found.tensors);
    if (code) {
        gguf_close(*out);
        *out = NULL;
    }
    return code;
}

/* Append the tensors of `part`, which g owns from now on. */
static int adopt(struct gguf *g, struct gguf *part, struct plm_status *st)
{
    g->parts[g->n_parts++] = part;
    const size_t n = (size_t)g->n_tensors + (size_t)part->n_tensors;
    struct tensor *tensors = realloc(g->tensors, (n + 1) * sizeof *tensors);
    if (!tensors)
        return status_no_memory(st, n * sizeof *tensors, part->path);
    g->tensors = tensors;
    if (n > INT32_MAX)
        return status_set(st, PLM_EFORMAT, "'%s': %zu tensors are too many", part->path, n);
    for (int i = 0; i < part->n_tensors; i++)
        g->tensors[g->n_tensors++] = part->tensors[i];
    part->n_tensors = 0; /* their names moved */
    return PLM_OK;
}

/* Names of all parts in one sorted list. */
static int sort_parts(struct gguf *g, const struct split *split, struct plm_status *st)
{
    if ((uint64_t)g->n_tensors != split->tensors)
        return status_set(st, PLM_EFORMAT, "'%s': the %llu parts hold %d tensors, but split.tensors.count is %llu", g->path,
                          (unsigned long long)split->count, g->n_tensors, (unsigned long long)split->tensors);
    const struct tensor **sorted = realloc(g->sorted, ((size_t)g->n_tensors + 1) * sizeof *sorted);
    if (!sorted)
        return status_no_memory(st, (size_t)g->n_tensors * sizeof *sorted, g->path);
    g->sorted = sorted;
    for (int i = 0; i < g->n_tensors; i++)
        sorted[i] = &g->tensors[i];
    return sort_names(g, st);
}

int gguf_open(struct gguf **out, const char *path, struct plm_status *st)
{
    struct split split;
    struct gguf *given = NULL, *g = NULL;
    *out = NULL;
    int code = open_file(&given, path, st);
    if (code)
        return code;
    code = read_split(given, &split, st);
    if (!code && split.count <= 1) {
        *out = given;
        return PLM_OK;
    }
    if (!code && split.no == 0) {
        g = given;
        given = NULL;
    } else if (!code) { /* opened again in its turn */
        code = open_part(&g, path, &split, 0, st);
    }
    gguf_close(given);
    if (!code && !(g->parts = calloc((size_t)split.count, sizeof *g->parts)))
        code = status_no_memory(st, (size_t)split.count * sizeof *g->parts, path);
    for (uint64_t no = 1; no < split.count && !code; no++) {
        struct gguf *part = NULL;
        code = open_part(&part, path, &split, no, st);
        if (!code)
            code = adopt(g, part, st);
    }
    if (!code)
        code = sort_parts(g, &split, st);
    if (code)
        gguf_close(g);
    else
        *out = g;
    return code;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->n_parts; i++)
        gguf_close(g->parts[i]);
    free(g->parts);
    tensor_copies_free(&g->copies);
    for (size_t i = 0; i < g->n_entries; i++)
        free(g->entries[i].strings);
    for (int i = 0; i < g->n_tensors; i++)
        free((char *)g->tensors[i].stored.name);
    free(g->entries);
    free(g->tensors);
    free(g->sorted);
    free(g->path);
    mapped_close(&g->file);
    free(g);
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return entry_find(g, key) != NULL;
}

const char *gguf_key(const struct gguf *g, size_t i, size_t *length)
{
    *length = i < g->n_entries ? g->entries[i].key_length : 0;
    return i < g->n_entries ? g->entries[i].key : NULL;
}

static int fail_missing(const struct gguf *g, const char *key, const char *expected, struct plm_status *st)
{
    return status_set(st, PLM_EFORMAT, "'%s': key '%s' is missing; expected %s", g->path, key, expected);
}

static int fail_type(const struct gguf *g, const struct entry *e, const char *expected, struct plm_status *st)
{
    if (e->type == GGUF_ARRAY)
        return fail_entry(g, e, st, PLM_EFORMAT, "is an array of %s; expected %s", value_types[e->element_type].name, expected);
    return fail_entry(g, e, st, PLM_EFORMAT, "has type %s; expected %s", value_types[e->type].name, expected);
}

static bool is_integer(uint32_t type)
{
    return type <= GGUF_I32 || type == GGUF_U64 || type == GGUF_I64;
}

/* An integer or bool as magnitude and sign; false for other types. */
static bool read_integer(uint32_t type, const unsigned char *at, uint64_t *magnitude, bool *negative)
{
    uint64_t raw = 0;
    int64_t value = 0;
    *negative = false;
    memcpy(&raw, at, value_types[type].bytes); /* little-endian: zero-extends */
    switch (type) {
    case GGUF_U8: case GGUF_U16: case GGUF_U32: case GGUF_U64: case GGUF_BOOL:
        *magnitude = raw;
        return true;
    case GGUF_I8: value = (int8_t)raw; break;
    case GGUF_I16: value = (int16_t)raw; break;
    case GGUF_I32: value = (int32_t)raw; break;
    case GGUF_I64: value = (int64_t)raw; break;
    default: return false;
    }
    *negative = value < 0;
    *magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    return true;
}

static bool entry_integer(const struct entry *e, uint64_t *magnitude, bool *negative)
{
    return read_integer(e->type, e->value, magnitude, negative);
}

int gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct plm_status *st)
{
    const struct entry *e = entry_find(g, key);
    bool negative;
    if (!e)
        return fail_missing(g, key, "an unsigned integer", st);
    if (!entry_integer(e, out, &negative))
        return fail_type(g, e, "an unsigned integer", st);
    if (negative)
        return fail_entry(g, e, st, PLM_EFORMAT, "is -%llu; expected an unsigned integer", (unsigned long long)*out);
    return PLM_OK;
}

int gguf_get_f64(const struct gguf *g, const char *key, double *out, struct plm_status *st)
{
    const struct entry *e = entry_find(g, key);
    uint64_t magnitude;
    bool negative;
    if (!e)
        return fail_missing(g, key, "a number", st);
    if (e->type == GGUF_F32) {
        float f;
        memcpy(&f, e->value, sizeof f);
        *out = (double)f;
    } else if (e->type == GGUF_F64) {
        memcpy(out, e->value, sizeof *out);
    } else if (e->type != GGUF_BOOL && entry_integer(e, &magnitude, &negative)) {
        *out = negative ? -(double)magnitude : (double)magnitude;
    } else {
        return fail_type(g, e, "a number", st);
    }
    return PLM_OK;
}

int gguf_get_string(const struct gguf *g, const char *key, const char **out, size_t *length, struct plm_status *st)
{
    const struct entry *e = entry_find(g, key);
    if (!e)
        return fail_missing(g, key, "a string", st);
    if (e->type != GGUF_STRING)
        return fail_type(g, e, "a string", st);
    struct cursor c = {e->value, g->file.data + g->file.size};
    take_string(&c, out, length);
    return PLM_OK;
}

int gguf_get_array(const struct gguf *g, const char *key, enum gguf_value_type want, uint64_t *n, struct plm_status *st)
{
    char expected[32] = "an array of ";
    strcat(expected, value_types[want].name);
    const struct entry *e = entry_find(g, key);
    if (!e)
        return fail_missing(g, key, expected, st);
    const bool converted = want == GGUF_I32 && e->type == GGUF_ARRAY && is_integer(e->element_type);
    if (e->type != GGUF_ARRAY || (e->element_type != want && !converted))
        return fail_type(g, e, expected, st);
    for (uint64_t i = 0; converted && i < e->count; i++) {
        uint64_t magnitude;
        bool negative;
        read_integer(e->element_type, e->value + i * value_types[e->element_type].bytes, &magnitude, &negative);
        if (magnitude > INT32_MAX + (uint64_t)negative)
            return fail_entry(g, e, st, PLM_EFORMAT, "has %s%llu as element %llu, beyond i32", negative ? "-" : "",
                              (unsigned long long)magnitude, (unsigned long long)i);
    }
    *n = e->count;
    return PLM_OK;
}

void gguf_array_string(const struct gguf *g, const char *key, uint64_t i, const char **out, size_t *length)
{
    const struct entry *e = entry_find(g, key);
    *out = NULL;
    *length = 0;
    if (!e || !e->strings || i >= e->count)
        return;
    struct cursor c = {e->value + e->strings[i], g->file.data + g->file.size};
    take_string(&c, out, length);
}

int32_t gguf_array_i32(const struct gguf *g, const char *key, uint64_t i)
{
    const struct entry *e = entry_find(g, key);
    uint64_t magnitude = 0;
    bool negative = false;
    if (e && e->type == GGUF_ARRAY && is_integer(e->element_type) && i < e->count)
        read_integer(e->element_type, e->value + i * value_types[e->element_type].bytes, &magnitude, &negative);
    return (int32_t)(negative ? -(int64_t)magnitude : (int64_t)magnitude);
}

int gguf_n_tensors(const struct gguf *g)
{
    return g->n_tensors;
}

const char *gguf_tensor_name(const struct gguf *g, int i)
{
    return i >= 0 && i < g->n_tensors ? g->tensors[i].stored.name : NULL;
}

int gguf_tensor(const struct gguf *g, const char *name, struct stored_tensor *out, struct plm_status *st)
{
    const struct tensor key = {.stored.name = name}, *wanted = &key;
    const struct tensor **found =
        g->n_tensors ? bsearch(&wanted, g->sorted, (size_t)g->n_tensors, sizeof *g->sorted, name_compare) : NULL;
    if (!found)
        return status_set(st, PLM_EFORMAT, "'%s': tensor '%s' is missing", g->path, name);
    const struct tensor *t = *found;
    if (t->stored.type == DTYPE_COUNT)
        return status_set(st, PLM_EUNSUPPORTED,
                          "'%s': tensor '%s' has type %s (%u); this build computes with f32, f16, bf16, q8_0, "
                          "q4_0, q4_K and q6_K", g->path, name,
                          gguf_type_name(t->gguf_type), t->gguf_type);
    *out = t->stored;
    return PLM_OK;
}
