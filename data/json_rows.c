#include "data/json_rows.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/byte_source.h"

#define CHUNK ((size_t)1 << 16)
#define MOST ((size_t)1 << 30) /* bytes of a line, or of an array */

struct json_rows {
    struct byte_source *source;
    char *path, *data; /* unread bytes are data[begin, fill) */
    size_t begin, fill, capacity;
    bool end;          /* the file gave its last byte */
    bool begun;        /* the first bytes were looked at */
    bool array;        /* all of the file is in data */
    bool over;         /* the array's bracket is closed */
    bool broken;       /* an error that concerns the rest of the file was reported */
    int64_t line;      /* the line that data + begin lies in, from 1 */
    json_t *row;
};

/* .json, also compressed: may be an array. */
static bool has_array_name(const char *path)
{
    size_t n = strlen(path);
    if (n > 3 && !strcmp(path + n - 3, ".gz"))
        n -= 3;
    else if (n > 4 && !strcmp(path + n - 4, ".zst"))
        n -= 4;
    return n > 5 && !memcmp(path + n - 5, ".json", 5);
}

int json_rows_open(struct json_rows **out, const char *path, struct plm_status *st)
{
    *out = NULL;
    struct json_rows *r = calloc(1, sizeof *r);
    if (!r)
        return status_no_memory(st, sizeof *r, "a reader of rows");
    r->line = 1;
    r->capacity = 2 * CHUNK;
    r->data = malloc(r->capacity);
    r->path = strdup(path);
    int code = r->data && r->path ? PLM_OK : status_no_memory(st, r->capacity, "a reader of rows");
    if (!code)
        code = byte_source_open(&r->source, path, st);
    if (code) {
        json_rows_close(r);
        return code;
    }
    *out = r;
    return PLM_OK;
}

void json_rows_close(struct json_rows *r)
{
    if (!r)
        return;
    byte_source_close(r->source);
    json_decref(r->row);
    free(r->path);
    free(r->data);
    free(r);
}

/* More bytes behind the unread ones. */
static int fill(struct json_rows *r, struct plm_status *st)
{
    memmove(r->data, r->data + r->begin, r->fill - r->begin);
    r->fill -= r->begin;
    r->begin = 0;
    if (r->capacity - r->fill < CHUNK) {
        const size_t capacity = 2 * r->capacity;
        if (r->fill > MOST)
            return status_set(st, PLM_EFORMAT, "%s:%lld: %s of more than 1 GiB; expected one JSON object per line", r->path, (long long)r->line,
                              r->array ? "an array" : "a line");
        char *grown = realloc(r->data, capacity);
        if (!grown)
            return status_no_memory(st, capacity, r->array ? "an array" : "a line");
        r->data = grown;
        r->capacity = capacity;
    }
    size_t n;
    const int code = byte_source_read(r->source, r->data + r->fill, CHUNK, &n, st);
    r->fill += n;
    r->end = n == 0;
    return code;
}

/* White space of JSON at the beginning of the unread bytes: passed over, lines counted. */
static void skip_space(struct json_rows *r)
{
    for (; r->begin < r->fill && memchr(" \t\r\n", r->data[r->begin], 4); r->begin++)
        r->line += r->data[r->begin] == '\n';
}

/* Pass over a byte order mark, and see what the file is. An array is read whole. */
static int begin_file(struct json_rows *r, struct plm_status *st)
{
    int code = PLM_OK;
    while (r->fill < 3 && !r->end && !code)
        code = fill(r, st);
    if (!code && r->fill >= 3 && !memcmp(r->data, "\xEF\xBB\xBF", 3))
        r->begin = 3;
    if (!code && has_array_name(r->path)) {
        for (skip_space(r); r->begin == r->fill && !r->end && !code; skip_space(r))
            code = fill(r, st);
        r->array = !code && r->begin < r->fill && r->data[r->begin] == '[';
        r->begin += r->array;
        while (r->array && !r->end && !code)
            code = fill(r, st);
    }
    r->begun = !code;
    return code;
}

/* The next line without its newline; NULL at the end. */
static int next_line(struct json_rows *r, const char **text, size_t *length, struct plm_status *st)
{
    for (size_t scanned = 0;;) {
        const char *from = r->data + r->begin, *newline = memchr(from + scanned, '\n', r->fill - r->begin - scanned);
        if (newline || r->end) {
            *length = newline ? (size_t)(newline - from) : r->fill - r->begin;
            *text = newline || *length ? from : NULL;
            r->begin += *length + (newline != NULL);
            r->line += newline != NULL;
            return PLM_OK;
        }
        scanned = r->fill - r->begin;
        const int code = fill(r, st);
        if (code)
            return code;
    }
}

static int next_of_lines(struct json_rows *r, const char **text, size_t *length, int64_t *line, struct plm_status *st)
{
    for (;;) {
        *line = r->line;
        const int code = next_line(r, text, length, st);
        if (code || !*text)
            return code;
        size_t blank = 0;
        while (blank < *length && memchr(" \t\r\f\v", (*text)[blank], 5))
            blank++;
        if (blank < *length)
            return PLM_OK;
    }
}

/* Bytes of the JSON value at `text`, which ends at the comma or bracket after it that is in no string and no bracket of its own. Whether it
 * is a value at all is the parser's to say. */
static size_t value_length(const char *text, size_t n)
{
    size_t depth = 0;
    for (size_t i = 0; i < n; i++) {
        const char c = text[i];
        if (c == '"') {
            for (i++; i < n && text[i] != '"'; i++)
                i += text[i] == '\\';
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (depth == 0)
                return i;
            depth--;
        } else if (c == ',' && depth == 0) {
            return i;
        }
    }
    return n;
}

static int array_error(const struct json_rows *r, const char *what, struct plm_status *st)
{
    return status_set(st, PLM_EFORMAT, "%s:%lld: %s", r->path, (long long)r->line, what);
}

static int next_of_array(struct json_rows *r, const char **text, size_t *length, int64_t *line, struct plm_status *st)
{
    *text = NULL;
    skip_space(r);
    if (!r->over && r->begin == r->fill)
        return array_error(r, "the array ends without ']': the file is truncated; copy it again", st);
    if (!r->over && r->data[r->begin] == ']') {
        r->over = true;
        r->begin++;
        skip_space(r);
    }
    if (r->over)
        return r->begin == r->fill ? PLM_OK : array_error(r, "text after the array's ']'", st);
    const char *from = r->data + r->begin;
    *line = r->line;
    *length = value_length(from, r->fill - r->begin);
    if (*length == 0)
        return array_error(r, "a value of the array is missing before ',' or a bracket", st);
    for (const char *p = from; (p = memchr(p, '\n', *length - (size_t)(p - from))); p++)
        r->line++;
    r->begin += *length;
    *text = from;
    if (r->begin == r->fill)
        return array_error(r, "the array ends in the middle of a row: the file is truncated; copy it again", st);
    if (r->data[r->begin] == ',') {
        r->begin++;
        skip_space(r);
        if (r->begin < r->fill && r->data[r->begin] == ']')
            return array_error(r, "a comma before the array's ']'", st);
    }
    return PLM_OK;
}

int json_rows_next(struct json_rows *r, json_t **row, int64_t *line, struct plm_status *st)
{
    const char *text = NULL;
    size_t length = 0;
    json_decref(r->row);
    r->row = *row = NULL;
    *line = 0;
    if (r->broken)
        return status_set(st, PLM_EFORMAT, "'%s' cannot be read on after an error", r->path);
    int64_t at = 0;
    int code = r->begun ? PLM_OK : begin_file(r, st);
    if (!code)
        code = r->array ? next_of_array(r, &text, &length, &at, st) : next_of_lines(r, &text, &length, &at, st);
    r->broken = code;
    if (code || !text)
        return code;
    json_error_t error;
    r->row = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!r->row && (!error.text[0] || json_error_code(&error) == json_error_out_of_memory)) { /* jansson has no words for the first */
        r->broken = true;
        return status_no_memory(st, length, "a row");
    }
    if (!r->row && r->array) {
        r->broken = true; /* its end may not be where it seemed to be */
        return status_set(st, PLM_EFORMAT, "%s:%lld: not JSON: %s", r->path, (long long)(at + error.line - 1), error.text);
    }
    *line = at;
    if (!r->row)
        return status_set(st, PLM_EFORMAT, "%s:%lld: not JSON at byte %d: %s", r->path, (long long)at, error.position, error.text);
    if (!json_is_object(r->row))
        return status_set(st, PLM_EFORMAT, "%s:%lld: expected a JSON object, found another type", r->path, (long long)at);
    *row = r->row;
    return PLM_OK;
}
