#include "infer/format/json.h"
#include "infer/format/json_text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 64
#define SMALL_OBJECT 8 /* up to this many members keys are compared pairwise */

/* Values lie in document order: a container's first child follows it, the next sibling is `next` values further on. */
struct json_value {
    union {
        const char *text; /* JSON_STRING, in the document's strings */
        int64_t integer;  /* JSON_NUMBER with is_integer */
        double number;    /* other JSON_NUMBER */
    };
    const char *key;     /* NULL outside objects */
    uint32_t length;     /* bytes of a string, children of a container */
    uint32_t key_length;
    uint32_t next;       /* 0: the last child */
    uint8_t type;
    bool is_integer;
};

struct json_doc {
    struct json_value *values;
    char *strings; /* unescaped keys and strings, each NUL-terminated */
};

struct level { /* an open container */
    uint32_t value, last_child; /* indices into values; last_child is valid when count > 0 */
    uint32_t count;
    const char *at;             /* its bracket */
};

struct parser {
    const char *begin, *p, *end;
    const char *where;
    struct plm_status *st;
    struct json_value *values;
    size_t n_values, capacity;
    char *strings, *strings_end; /* never longer than the text: a string loses its quotes and gains a NUL */
    struct level levels[DEPTH_MAX];
    int depth;
};

/* An error at `at`, with its line and column (in characters, from 1). */
static int fail_at(const struct parser *s, const char *at, enum plm_code code, const char *fmt, ...) PLM_PRINTF(4, 5);
static int fail_at(const struct parser *s, const char *at, enum plm_code code, const char *fmt, ...)
{
    size_t line = 1, column = 1;
    for (const char *p = s->begin; p < at; p++) {
        if (*p == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)*p & 0xc0) != 0x80) {
            column++;
        }
    }
    char what[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return status_set(s->st, code, "%s: line %zu, column %zu: %s", s->where, line, column, what);
}

/* "expected X, found Y" at the current position. */
static int fail_expected(const struct parser *s, const char *expected)
{
    if (s->p == s->end)
        return fail_at(s, s->p, PLM_EFORMAT, "expected %s, found the end of the text (is it truncated?)", expected);
    unsigned char c = (unsigned char)*s->p;
    if (c > 0x20 && c < 0x7f)
        return fail_at(s, s->p, PLM_EFORMAT, "expected %s, found '%c'", expected, c);
    return fail_at(s, s->p, PLM_EFORMAT, "expected %s, found byte 0x%02x", expected, c);
}

static void skip_space(struct parser *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
        s->p++;
}

static char *utf8_put(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

/* Four hex digits at p, or -1. */
static int32_t hex4(const char *p, const char *end)
{
    if (end - p < 4)
        return -1;
    int32_t v = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        v = v << 4 | digit;
    }
    return v;
}

/* s->p is behind a backslash; append what the escape stands for. */
static int parse_escape(struct parser *s)
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *at = s->p - 1, *letter;
    if (s->p == s->end)
        return fail_expected(s, "an escape");
    if (*s->p != 'u') {
        if (*s->p == '\0' || !(letter = strchr(letters, *s->p)))
            return fail_at(s, at, PLM_EFORMAT, "unknown escape; JSON has \\\" \\\\ \\/ \\b \\f \\n \\r \\t and \\uXXXX");
        *s->strings_end++ = meanings[letter - letters];
        s->p++;
        return PLM_OK;
    }
    int32_t c = hex4(s->p + 1, s->end);
    if (c < 0)
        return fail_at(s, at, PLM_EFORMAT, "\\u must be followed by four hexadecimal digits");
    s->p += 5;
    if (c >= 0xd800 && c < 0xe000) {
        int32_t low = c < 0xdc00 && s->end - s->p >= 6 && s->p[0] == '\\' && s->p[1] == 'u' ? hex4(s->p + 2, s->end) : -1;
        if (low < 0xdc00 || low > 0xdfff)
            return fail_at(s, at, PLM_EFORMAT, "\\u%04x is one half of a surrogate pair without the other", (unsigned)c);
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        s->p += 6;
    }
    s->strings_end = utf8_put(s->strings_end, (uint32_t)c);
    return PLM_OK;
}

/* The string whose opening quote is at s->p. */
static int parse_string(struct parser *s, const char **out, uint32_t *length)
{
    const char *quote = s->p++;
    char *start = s->strings_end;
    for (;;) {
        const char *run = s->p;
        while (s->p < s->end && (unsigned char)*s->p >= 0x20 && (unsigned char)*s->p < 0x80 && *s->p != '"' && *s->p != '\\')
            s->p++;
        memcpy(s->strings_end, run, (size_t)(s->p - run));
        s->strings_end += s->p - run;
        if (s->p == s->end)
            return fail_at(s, quote, PLM_EFORMAT, "the string that begins here has no closing quote (is the text truncated?)");
        unsigned char c = (unsigned char)*s->p;
        if (c == '"')
            break;
        if (c == '\\') {
            s->p++;
            int code = parse_escape(s);
            if (code)
                return code;
        } else if (c < 0x20) {
            return fail_at(s, s->p, PLM_EFORMAT, "control character 0x%02x in a string; write it as \\u%04x", c, c);
        } else {
            size_t n = json_utf8_length(s->p, s->end);
            if (n == 0)
                return fail_at(s, s->p, PLM_EFORMAT, "byte 0x%02x is not valid UTF-8", c);
            memcpy(s->strings_end, s->p, n);
            s->strings_end += n;
            s->p += n;
        }
    }
    s->p++;
    *out = start;
    *length = (uint32_t)(s->strings_end - start);
    *s->strings_end++ = '\0';
    return PLM_OK;
}

static bool skip_digits(struct parser *s)
{
    const char *start = s->p;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
        s->p++;
    return s->p > start;
}

static int parse_number(struct parser *s, struct json_value *v)
{
    const char *start = s->p;
    if (*s->p == '-')
        s->p++;
    const char *first = s->p;
    if (!skip_digits(s))
        return fail_expected(s, "a digit");
    if (*first == '0' && s->p - first > 1)
        return fail_at(s, start, PLM_EFORMAT, "a number must not have leading zeros");
    v->is_integer = true;
    if (s->p < s->end && *s->p == '.') {
        v->is_integer = false;
        s->p++;
        if (!skip_digits(s))
            return fail_expected(s, "a digit after the decimal point");
    }
    if (s->p < s->end && (*s->p == 'e' || *s->p == 'E')) {
        v->is_integer = false;
        s->p++;
        if (s->p < s->end && (*s->p == '+' || *s->p == '-'))
            s->p++;
        if (!skip_digits(s))
            return fail_expected(s, "a digit in the exponent");
    }
    if (v->is_integer) {
        uint64_t magnitude = 0, limit = (uint64_t)INT64_MAX + (*start == '-');
        for (const char *p = first; p < s->p && v->is_integer; p++) {
            unsigned digit = (unsigned)(*p - '0');
            v->is_integer = magnitude <= (limit - digit) / 10;
            magnitude = magnitude * 10 + digit;
        }
        if (v->is_integer) {
            v->integer = *start == '-' ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
            return PLM_OK;
        }
    }
    size_t n = (size_t)(s->p - start);
    memcpy(s->strings_end, start, n); /* strtod needs the NUL */
    s->strings_end[n] = '\0';
    v->number = strtod(s->strings_end, NULL);
    if (!isfinite(v->number))
        return fail_at(s, start, PLM_EFORMAT, "number %.32s%s is beyond the range of a double", s->strings_end,
                       n > 32 ? "..." : "");
    return PLM_OK;
}

static int parse_word(struct parser *s, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
        return fail_expected(s, "a value");
    s->p += n;
    return PLM_OK;
}

/* Append a value and link it behind its elder sibling; NULL when out of memory. */
static struct json_value *value_append(struct parser *s)
{
    if (s->n_values == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 64;
        struct json_value *values = realloc(s->values, capacity * sizeof *values);
        if (!values) {
            status_no_memory(s->st, capacity * sizeof *values, s->where);
            return NULL;
        }
        s->values = values;
        s->capacity = capacity;
    }
    uint32_t index = (uint32_t)s->n_values++;
    s->values[index] = (struct json_value){0};
    if (s->depth > 0) {
        struct level *parent = &s->levels[s->depth - 1];
        if (parent->count++ > 0)
            s->values[parent->last_child].next = index - parent->last_child;
        parent->last_child = index;
    }
    return &s->values[index];
}

struct key_entry {
    uint64_t hash;
    const struct json_value *member;
};

static int key_compare(const struct json_value *a, const struct json_value *b)
{
    if (a->key_length != b->key_length)
        return a->key_length < b->key_length ? -1 : 1;
    return memcmp(a->key, b->key, a->key_length);
}

static int key_entry_compare(const void *x, const void *y)
{
    const struct key_entry *a = x, *b = y;
    return a->hash != b->hash ? (a->hash < b->hash ? -1 : 1) : key_compare(a->member, b->member);
}

static uint64_t key_hash(const char *key, uint32_t length) /* FNV-1a */
{
    uint64_t h = 0xcbf29ce484222325u;
    for (uint32_t i = 0; i < length; i++)
        h = (h ^ (unsigned char)key[i]) * 0x100000001b3u;
    return h;
}

/* Large objects sort their keys by hash, which is quick and, unlike a hash table, never quadratic on hostile keys. */
static int object_check_keys(const struct parser *s, const struct level *level)
{
    const struct json_value *object = &s->values[level->value], *duplicate = NULL;
    if (object->length <= SMALL_OBJECT) {
        for (const struct json_value *a = json_first(object); a && !duplicate; a = json_next(a))
            for (const struct json_value *b = json_next(a); b && !duplicate; b = json_next(b))
                if (key_compare(a, b) == 0)
                    duplicate = b;
    } else {
        struct key_entry *entries = malloc(object->length * sizeof *entries);
        if (!entries)
            return status_no_memory(s->st, object->length * sizeof *entries, s->where);
        size_t n = 0;
        for (const struct json_value *m = json_first(object); m; m = json_next(m))
            entries[n++] = (struct key_entry){key_hash(m->key, m->key_length), m};
        qsort(entries, n, sizeof *entries, key_entry_compare);
        for (size_t i = 1; i < n && !duplicate; i++)
            if (key_entry_compare(&entries[i - 1], &entries[i]) == 0)
                duplicate = entries[i].member;
        free(entries);
    }
    if (duplicate)
        return fail_at(s, level->at, PLM_EFORMAT, "the object that begins here has the key \"%.200s\" twice", duplicate->key);
    return PLM_OK;
}

/* A scalar, or the opening bracket of a container. `key` NULL: not in an object. */
static int parse_value(struct parser *s, const char *key, uint32_t key_length)
{
    if (s->p == s->end)
        return fail_expected(s, "a value");
    struct json_value *v = value_append(s);
    if (!v)
        return PLM_ENOMEM;
    v->key = key;
    v->key_length = key_length;
    switch (*s->p) {
    case 'n':
        v->type = JSON_NULL;
        return parse_word(s, "null");
    case 'f':
        v->type = JSON_FALSE;
        return parse_word(s, "false");
    case 't':
        v->type = JSON_TRUE;
        return parse_word(s, "true");
    case '"':
        v->type = JSON_STRING;
        return parse_string(s, &v->text, &v->length);
    case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        v->type = JSON_NUMBER;
        return parse_number(s, v);
    case '[': case '{':
        v->type = *s->p == '[' ? JSON_ARRAY : JSON_OBJECT;
        if (s->depth == DEPTH_MAX)
            return fail_at(s, s->p, PLM_EUNSUPPORTED, "more than %d nested arrays and objects", DEPTH_MAX);
        s->levels[s->depth++] = (struct level){.value = (uint32_t)(v - s->values), .at = s->p++};
        return PLM_OK;
    default:
        return fail_expected(s, "a value");
    }
}

/* The next value of the text, after what must stand before it: a comma, a key. Closing brackets are consumed. */
static int parse_step(struct parser *s)
{
    skip_space(s);
    if (s->depth == 0)
        return parse_value(s, NULL, 0);
    struct level *level = &s->levels[s->depth - 1];
    bool object = s->values[level->value].type == JSON_OBJECT;
    if (s->p < s->end && *s->p == (object ? '}' : ']')) {
        s->values[level->value].length = level->count;
        s->p++;
        s->depth--;
        return object ? object_check_keys(s, level) : PLM_OK;
    }
    if (level->count > 0) {
        if (s->p == s->end || *s->p != ',')
            return fail_expected(s, object ? "',' or '}'" : "',' or ']'");
        s->p++;
        skip_space(s);
    }
    const char *key = NULL;
    uint32_t key_length = 0;
    if (object) {
        if (s->p == s->end || *s->p != '"')
            return fail_expected(s, "a key in double quotes");
        int code = parse_string(s, &key, &key_length);
        if (code)
            return code;
        skip_space(s);
        if (s->p == s->end || *s->p != ':')
            return fail_expected(s, "':' after the key");
        s->p++;
        skip_space(s);
    }
    return parse_value(s, key, key_length);
}

static int parse_text(struct parser *s)
{
    if (s->end - s->begin >= 3 && memcmp(s->begin, "\xef\xbb\xbf", 3) == 0)
        return fail_at(s, s->begin, PLM_EFORMAT, "the text begins with a byte order mark; save it as UTF-8 without one");
    int code;
    do
        code = parse_step(s);
    while (code == PLM_OK && s->depth > 0);
    if (code == PLM_OK) {
        skip_space(s);
        if (s->p < s->end)
            code = fail_expected(s, "nothing after the value");
    }
    return code;
}

int json_parse(struct json_doc **out, const char *text, size_t length, const char *where, struct plm_status *st)
{
    *out = NULL;
    if (length == 0)
        text = ""; /* an empty mapped file is NULL */
    if (length >= UINT32_MAX)
        return status_set(st, PLM_EUNSUPPORTED, "%s: %zu bytes of JSON; the limit is 4 GiB", where, length);
    struct parser s = {.begin = text, .p = text, .end = text + length, .where = where, .st = st};
    struct json_doc *doc = calloc(1, sizeof *doc);
    s.strings = s.strings_end = malloc(length + 1);
    locale_t old, c = json_locale_enter(&old);
    int code = doc && s.strings && c ? parse_text(&s) : status_no_memory(st, length + 1, where);
    json_locale_leave(c, old);
    if (code) {
        free(s.values);
        free(s.strings);
        free(doc);
        return code;
    }
    struct json_value *fitted = realloc(s.values, s.n_values * sizeof *fitted);
    *doc = (struct json_doc){fitted ? fitted : s.values, s.strings};
    *out = doc;
    return PLM_OK;
}

void json_free(struct json_doc *doc)
{
    if (!doc)
        return;
    free(doc->values);
    free(doc->strings);
    free(doc);
}

const struct json_value *json_root(const struct json_doc *doc)
{
    return doc->values;
}

enum json_type json_typeof(const struct json_value *v)
{
    return v ? (enum json_type)v->type : JSON_NULL;
}

size_t json_count(const struct json_value *v)
{
    return v && (v->type == JSON_ARRAY || v->type == JSON_OBJECT) ? v->length : 0;
}

const struct json_value *json_first(const struct json_value *v)
{
    return json_count(v) ? v + 1 : NULL;
}

const struct json_value *json_next(const struct json_value *v)
{
    return v && v->next ? v + v->next : NULL;
}

const struct json_value *json_get(const struct json_value *v, const char *key)
{
    if (json_typeof(v) != JSON_OBJECT)
        return NULL;
    size_t length = strlen(key);
    const struct json_value *m = json_first(v);
    while (m && !(m->key_length == length && memcmp(m->key, key, length) == 0))
        m = json_next(m);
    return m;
}

const char *json_key(const struct json_value *v, size_t *length)
{
    if (!v || !v->key)
        return NULL;
    if (length)
        *length = v->key_length;
    return v->key;
}

const char *json_as_string(const struct json_value *v, size_t *length)
{
    if (json_typeof(v) != JSON_STRING)
        return NULL;
    if (length)
        *length = v->length;
    return v->text;
}

bool json_as_number(const struct json_value *v, double *out)
{
    if (json_typeof(v) != JSON_NUMBER)
        return false;
    *out = v->is_integer ? (double)v->integer : v->number;
    return true;
}

bool json_as_integer(const struct json_value *v, int64_t *out)
{
    if (json_typeof(v) != JSON_NUMBER || !v->is_integer)
        return false;
    *out = v->integer;
    return true;
}

bool json_as_bool(const struct json_value *v, bool *out)
{
    enum json_type type = json_typeof(v);
    if (type != JSON_TRUE && type != JSON_FALSE)
        return false;
    *out = type == JSON_TRUE;
    return true;
}
