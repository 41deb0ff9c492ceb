#include "tools/eval_rows.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/byte_source.h"

enum { CHUNK = 1 << 16, MAX_LINE = 64 << 20 };

struct eval_rows {
    struct byte_source *source;
    char *path, *data; /* unread bytes are data[begin, fill) */
    size_t begin, fill, capacity;
    bool end;
    int64_t line; /* lines taken so far */
    json_t *row;
};

int eval_rows_open(struct eval_rows **out, const char *path, struct plm_status *st)
{
    *out = NULL;
    struct eval_rows *r = calloc(1, sizeof *r);
    if (!r)
        return status_no_memory(st, sizeof *r, "a reader of rows");
    int code = byte_source_open(&r->source, path, st);
    if (!code && !(r->path = strdup(path)))
        code = status_no_memory(st, strlen(path) + 1, "a path");
    if (code) {
        eval_rows_close(r);
        return code;
    }
    *out = r;
    return PLM_OK;
}

void eval_rows_close(struct eval_rows *r)
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
static int fill(struct eval_rows *r, struct plm_status *st)
{
    memmove(r->data, r->data + r->begin, r->fill - r->begin);
    r->fill -= r->begin;
    r->begin = 0;
    if (r->capacity - r->fill < CHUNK) {
        const size_t capacity = 2 * r->capacity;
        if (r->fill > MAX_LINE)
            return status_set(st, PLM_EFORMAT, "%s:%lld: a line of more than %d bytes; expected one JSON object per line", r->path,
                              (long long)r->line + 1, MAX_LINE);
        char *grown = realloc(r->data, capacity);
        if (!grown)
            return status_no_memory(st, capacity, "a line");
        r->data = grown;
        r->capacity = capacity;
    }
    size_t n;
    const int code = byte_source_read(r->source, r->data + r->fill, CHUNK, &n, st);
    r->fill += n;
    r->end = n == 0;
    return code;
}

/* The next line without its newline; NULL at the end. */
static int next_line(struct eval_rows *r, const char **text, size_t *length, struct plm_status *st)
{
    *text = NULL;
    *length = 0;
    if (!r->data) {
        r->capacity = 2 * CHUNK;
        if (!(r->data = malloc(r->capacity)))
            return status_no_memory(st, r->capacity, "a line");
    }
    for (size_t scanned = 0;;) {
        const char *from = r->data + r->begin, *newline = memchr(from + scanned, '\n', r->fill - r->begin - scanned);
        if (newline || r->end) {
            *length = newline ? (size_t)(newline - from) : r->fill - r->begin;
            *text = newline || *length ? from : NULL;
            r->begin += *length + (newline != NULL);
            r->line++;
            if (r->line == 1 && *length >= 3 && !memcmp(from, "\xEF\xBB\xBF", 3)) /* byte order mark */
                *text += 3, *length -= 3;
            return PLM_OK;
        }
        scanned = r->fill - r->begin;
        const int code = fill(r, st);
        if (code)
            return code;
    }
}

int eval_rows_next(struct eval_rows *r, json_t **row, int64_t *line, struct plm_status *st)
{
    const char *text = NULL;
    size_t length = 0;
    json_decref(r->row);
    r->row = *row = NULL;
    for (;;) {
        const int code = next_line(r, &text, &length, st);
        if (code || !text)
            return code;
        size_t blank = 0;
        while (blank < length && strchr(" \t\r\f\v", text[blank]) && text[blank])
            blank++;
        if (blank < length)
            break;
    }
    json_error_t error;
    *line = r->line;
    r->row = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (!r->row)
        return status_set(st, PLM_EFORMAT, "%s:%lld: not JSON at byte %d: %s", r->path, (long long)r->line, error.position,
                          error.text);
    if (!json_is_object(r->row))
        return status_set(st, PLM_EFORMAT, "%s:%lld: expected a JSON object, found another type", r->path, (long long)r->line);
    *row = r->row;
    return PLM_OK;
}

int eval_row_string(const json_t *row, const char *const *names, const char **text, size_t *length, struct plm_status *st)
{
    for (const char *const *name = names; *name; name++) {
        const json_t *v = json_object_get(row, *name);
        if (!v)
            continue;
        if (!json_is_string(v))
            return status_set(st, PLM_EFORMAT, "\"%s\" is not a string", *name);
        *text = json_string_value(v);
        *length = json_string_length(v);
        return PLM_OK;
    }
    return status_set(st, PLM_EFORMAT, "the field \"%s\" is missing", names[0]);
}
