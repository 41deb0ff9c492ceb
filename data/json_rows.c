#include "data/json_rows.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/byte_source.h"

#define CHUNK ((size_t)1 << 16)
#define MOST ((size_t)1 << 30) /* bytes of a row */

enum layout { LINES, ARRAY, OBJECTS };

struct json_rows {
    struct byte_source *source;
    char *path, *data; /* unread bytes are data[begin, fill) */
    size_t begin, fill, capacity, limit;
    bool end;          /* the file gave its last byte */
    bool begun;        /* the first bytes were looked at */
    enum layout layout;
    size_t flags;      /* of jansson */
    bool any, over;    /* of an array: a row was read; its bracket is closed */
    bool broken;       /* an error that concerns the rest of the file was reported */
    int64_t line;      /* the line that data + begin lies in, from 1 */
    char *repaired;
    struct json_repairs repairs;
    json_t *row;
};

int json_rows_open(struct json_rows **out, const char *path, struct plm_status *st)
{
    *out = NULL;
    struct json_rows *r = calloc(1, sizeof *r);
    if (!r)
        return status_no_memory(st, sizeof *r, "a reader of rows");
    r->line = 1;
    r->limit = MOST;
    r->flags = JSON_DECODE_ANY | JSON_REJECT_DUPLICATES;
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
    free(r->repaired);
    free(r->path);
    free(r->data);
    free(r);
}

void json_rows_limit(struct json_rows *r, size_t bytes)
{
    r->limit = bytes;
}

void json_rows_take_last(struct json_rows *r)
{
    r->flags &= ~(size_t)JSON_REJECT_DUPLICATES;
}

const struct json_repairs *json_rows_repairs(const struct json_rows *r)
{
    return &r->repairs;
}

int64_t json_rows_position(const struct json_rows *r)
{
    return byte_source_position(r->source);
}

/* More bytes behind the unread ones. */
static int fill(struct json_rows *r, struct plm_status *st)
{
    memmove(r->data, r->data + r->begin, r->fill - r->begin);
    r->fill -= r->begin;
    r->begin = 0;
    if (r->capacity - r->fill < CHUNK) {
        const size_t capacity = 2 * r->capacity;
        char *grown = realloc(r->data, capacity);
        if (!grown)
            return status_no_memory(st, capacity, "a row");
        r->data = grown;
        r->capacity = capacity;
    }
    size_t n;
    const int code = byte_source_read(r->source, r->data + r->fill, CHUNK, &n, st);
    r->fill += n;
    r->end = n == 0;
    return code;
}

/* White space of JSON at the beginning of the unread bytes: passed over, lines counted, more read. */
static int skip_space(struct json_rows *r, struct plm_status *st)
{
    int code = PLM_OK;
    do {
        for (; r->begin < r->fill && memchr(" \t\r\n", r->data[r->begin], 4); r->begin++)
            r->line += r->data[r->begin] == '\n';
        if (r->begin == r->fill && !r->end)
            code = fill(r, st);
    } while (!code && ((r->begin == r->fill && !r->end) || (r->begin < r->fill && memchr(" \t\r\n", r->data[r->begin], 4))));
    return code;
}

/* Where a JSON value ends, found byte by byte as they come: at the comma or bracket after it that is in no string and no bracket of its own, or
 * behind the bracket that closes it. Whether it is a value at all is the parser's to say. */
struct extent {
    size_t at, depth;
    bool in_string, escaped, closed;
};

/* Look at text[e->at, n). True: the value is text[0, e->at). */
static bool extent_ends(struct extent *e, const char *text, size_t n)
{
    for (; e->at < n; e->at++) {
        const char c = text[e->at];
        if (e->in_string) {
            e->in_string = e->escaped || c != '"';
            e->escaped = !e->escaped && c == '\\';
        } else if (e->closed) {
            return true;
        } else if (c == '"') {
            e->in_string = true;
        } else if (c == '{' || c == '[') {
            e->depth++;
        } else if (c == '}' || c == ']') {
            if (e->depth == 0)
                return true;
            e->closed = --e->depth == 0;
        } else if (c == ',' && e->depth == 0) {
            return true;
        }
    }
    return e->closed;
}

/* The objects of the file span lines: the first line ends within the first object, not within a string, and no other object begins on the
 * next one (that would be a line that is broken). */
static int spans_lines(struct json_rows *r, bool *spans, struct plm_status *st)
{
    struct extent e = {0};
    size_t next;
    *spans = false;
    for (;;) {
        const char *text = r->data + r->begin;
        const size_t n = r->fill - r->begin;
        const char *newline = memchr(text, '\n', n);
        if (extent_ends(&e, text, newline ? (size_t)(newline - text) : n) || e.in_string)
            return PLM_OK;
        next = newline ? (size_t)(newline - text) : n;
        while (next < n && memchr(" \t\r\n", text[next], 4))
            next++;
        if (newline && next < n) {
            *spans = text[next] != '{';
            return PLM_OK;
        }
        if (r->end || n > r->limit)
            return PLM_OK;
        const int code = fill(r, st);
        if (code)
            return code;
    }
}

/* Pass over a byte order mark, and see what the file is. */
static int begin_file(struct json_rows *r, struct plm_status *st)
{
    int code = PLM_OK;
    bool spans = false;
    while (r->fill < 3 && !r->end && !code)
        code = fill(r, st);
    if (!code && r->fill >= 3 && !memcmp(r->data, "\xEF\xBB\xBF", 3))
        r->begin = 3;
    if (!code)
        code = skip_space(r, st);
    if (!code && r->begin < r->fill && r->data[r->begin] == '[') {
        r->layout = ARRAY;
        r->begin++;
    } else if (!code && r->begin < r->fill && r->data[r->begin] == '{') {
        code = spans_lines(r, &spans, st);
        r->layout = spans ? OBJECTS : LINES;
    }
    r->begun = !code;
    return code;
}

/* Pass over the rest of a line that is too long. */
static int skip_line(struct json_rows *r, struct plm_status *st)
{
    for (;;) {
        const char *from = r->data + r->begin, *newline = memchr(from, '\n', r->fill - r->begin);
        r->begin = newline ? (size_t)(newline + 1 - r->data) : r->fill;
        r->line += newline != NULL;
        if (newline || r->end)
            return PLM_OK;
        const int code = fill(r, st);
        if (code)
            return code;
    }
}

static int too_long(const struct json_rows *r, int64_t line, struct plm_status *st)
{
    return status_set(st, PLM_ELIMIT, "%s:%lld: a row of more than %zu bytes", r->path, (long long)line, r->limit);
}

/* The next line without its newline; NULL at the end. */
static int next_line(struct json_rows *r, const char **text, size_t *length, struct plm_status *st)
{
    *text = NULL;
    for (size_t scanned = 0;;) {
        const char *from = r->data + r->begin, *newline = memchr(from + scanned, '\n', r->fill - r->begin - scanned);
        if ((newline ? (size_t)(newline - from) : r->fill - r->begin) > r->limit) {
            const int64_t line = r->line;
            const int code = skip_line(r, st);
            return code ? code : too_long(r, line, st);
        }
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

static int rest_error(const struct json_rows *r, const char *what, struct plm_status *st)
{
    return status_set(st, PLM_EFORMAT, "%s:%lld: %s", r->path, (long long)r->line, what);
}

/* The value that begins at the first unread byte. */
static int take_value(struct json_rows *r, const char **text, size_t *length, int64_t *line, struct plm_status *st)
{
    struct extent e = {0};
    while (!extent_ends(&e, r->data + r->begin, r->fill - r->begin)) {
        if (r->end)
            return rest_error(r, r->layout == ARRAY ? "the array ends in the middle of a row: the file is truncated; copy it again"
                                                    : "the file ends in the middle of a row: it is truncated; copy it again", st);
        if (e.at > r->limit)
            return too_long(r, r->line, st);
        const int code = fill(r, st);
        if (code)
            return code;
    }
    if (e.at == 0)
        return rest_error(r, "a value is missing before ',' or a bracket", st);
    *line = r->line;
    *text = r->data + r->begin;
    *length = e.at;
    for (const char *p = *text; (p = memchr(p, '\n', *length - (size_t)(p - *text))); p++)
        r->line++;
    r->begin += e.at;
    return PLM_OK;
}

/* What stands between the rows of an array: a comma, or its bracket. */
static int next_of_array(struct json_rows *r, const char **text, size_t *length, int64_t *line, struct plm_status *st)
{
    *text = NULL;
    int code = skip_space(r, st);
    const bool here = !code && r->begin < r->fill;
    if (code || (r->over && !here))
        return code;
    if (r->over)
        return rest_error(r, "text after the array's ']'", st);
    if (!here)
        return rest_error(r, "the array ends without ']': the file is truncated; copy it again", st);
    bool comma = false;
    if (r->any && r->data[r->begin] == ',') {
        comma = true;
        r->begin++;
        code = skip_space(r, st);
    } else if (r->any && r->data[r->begin] != ']') {
        return rest_error(r, "expected ',' or ']' after a row of the array", st);
    }
    if (!code && r->begin < r->fill && r->data[r->begin] == ']') {
        if (comma)
            return rest_error(r, "a comma before the array's ']'", st);
        r->over = true;
        r->begin++;
        return next_of_array(r, text, length, line, st);
    }
    if (!code && r->begin == r->fill)
        return rest_error(r, "the array ends without ']': the file is truncated; copy it again", st);
    if (code)
        return code;
    r->any = true;
    return take_value(r, text, length, line, st);
}

static int next_of_objects(struct json_rows *r, const char **text, size_t *length, int64_t *line, struct plm_status *st)
{
    *text = NULL;
    const int code = skip_space(r, st);
    if (code || r->begin == r->fill)
        return code;
    if (r->data[r->begin] != '{')
        return rest_error(r, "expected '{' of the next row", st);
    return take_value(r, text, length, line, st);
}

/* The row as it is, or else as it can be repaired. */
static json_t *parse(struct json_rows *r, const char *text, size_t length, json_error_t *error)
{
    json_t *row = json_loadb(text, length, r->flags, error);
    char *room = row ? NULL : realloc(r->repaired, 3 * length + 8);
    if (!room)
        return row;
    r->repaired = room;
    struct json_repairs repairs = {0};
    json_error_t again;
    const size_t n = json_repair(text, length, room, &repairs);
    row = json_loadb(room, n, r->flags, &again);
    if (row) {
        r->repairs.characters += repairs.characters;
        r->repairs.numbers += repairs.numbers;
    }
    return row;
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
        code = r->layout == ARRAY     ? next_of_array(r, &text, &length, &at, st)
               : r->layout == OBJECTS ? next_of_objects(r, &text, &length, &at, st)
                                      : next_of_lines(r, &text, &length, &at, st);
    if (code == PLM_ELIMIT && r->layout == LINES) {
        *line = at;
        return code;
    }
    r->broken = code;
    if (code || !text)
        return code;
    json_error_t error;
    r->row = parse(r, text, length, &error);
    if (!r->row && (!error.text[0] || json_error_code(&error) == json_error_out_of_memory)) { /* jansson has no words for the first */
        r->broken = true;
        return status_no_memory(st, length, "a row");
    }
    if (!r->row && r->layout != LINES) {
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
