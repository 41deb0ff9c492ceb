#include "data/reader.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "data/byte_source.h"
#include "data/file_format.h"
#include "data/files.h"
#include "data/json_rows.h"
#include "data/utf8.h"
#include "infer/base/log.h"

enum {
    BINARY_PROBE = 4096, /* bytes looked at for NULs */
    LOGGED = 3,          /* records of each kind that are logged one by one */
    CHUNK = 1 << 16,
};

struct reader {
    struct file_list files;
    int64_t next_file;
    char *field;
    size_t max_document, max_line;
    struct reader_stats stats;
    /* the open file */
    struct byte_source *source;
    const char *path;
    struct json_rows *rows;     /* of a file of rows, instead of the source */
    bool end;
    bool continued;             /* the text at `begin` goes on a document that was cut */
    bool delivered;             /* a piece of the document was given */
    int64_t line;               /* of the byte at `begin` */
    char *data;                 /* unread bytes are data[begin, fill) */
    size_t begin, fill, capacity;
    int64_t position;           /* of the source, already added to stats.stored_bytes */
    /* the record being delivered: the text of a row, in pieces */
    int64_t repaired;           /* characters of earlier rows of the file */
    const char *text;
    size_t text_length, text_begin;
    char *whole;                /* what the last document points at when it was repaired */
    size_t whole_capacity;
};

static int64_t count_lines(const char *text, size_t length)
{
    int64_t n = 0;
    for (const char *end = text + length; (text = memchr(text, '\n', (size_t)(end - text))); text++)
        n++;
    return n;
}

/* Count a skipped or repaired record, and log the first ones. */
static void note(struct reader *r, int64_t *counter, int64_t line, const char *what)
{
    ++*counter;
    if (*counter <= LOGGED)
        log_warn("%s:%lld: %s%s", r->path, (long long)line, what,
                 *counter == LOGGED ? "; further ones of this kind are only counted" : "");
}

int reader_open(struct reader **out, const char *const *paths, int n_paths, const struct reader_options *o,
                struct plm_status *st)
{
    *out = NULL;
    if (n_paths < 1)
        return status_set(st, PLM_EINVAL, "no input: name at least one file or directory");
    struct reader *r = calloc(1, sizeof *r);
    if (!r)
        return status_no_memory(st, sizeof *r, "a reader");
    r->max_document = o && o->max_document ? o->max_document : (size_t)1 << 20;
    r->max_line = o && o->max_line ? o->max_line : (size_t)64 << 20;
    r->field = strdup(o && o->text_field ? o->text_field : "text");
    int code = r->field ? PLM_OK : status_no_memory(st, 16, "a field name");
    if (!code && (r->max_document < 16 || r->max_document > INT_MAX / 4 || r->max_line < 16 || r->max_line > INT_MAX / 4))
        code = status_set(st, PLM_EINVAL, "the largest document (%zu bytes) and JSON line (%zu bytes) must be within 16 and %d",
                          r->max_document, r->max_line, INT_MAX / 4);
    for (int i = 0; !code && i < n_paths; i++)
        code = file_list_add(&r->files, paths[i], NULL, st);
    if (code) {
        reader_close(r);
        return code;
    }
    r->stats.ignored_files = r->files.n_ignored;
    *out = r;
    return PLM_OK;
}

static void close_file(struct reader *r)
{
    byte_source_close(r->source);
    json_rows_close(r->rows);
    r->source = NULL;
    r->rows = NULL;
    r->text = NULL;
}

void reader_close(struct reader *r)
{
    if (!r)
        return;
    close_file(r);
    free(r->data);
    free(r->whole);
    free(r->field);
    file_list_free(&r->files);
    free(r);
}

const struct reader_stats *reader_statistics(const struct reader *r)
{
    return &r->stats;
}

const char *const *reader_files(const struct reader *r, int64_t *n)
{
    *n = r->files.n;
    return (const char *const *)r->files.paths;
}

/* Read until `want` unread bytes are there or the file ends. */
static int fill(struct reader *r, size_t want, struct plm_status *st)
{
    if (r->begin > 0 && (r->begin == r->fill || r->begin + want > r->capacity)) {
        memmove(r->data, r->data + r->begin, r->fill - r->begin);
        r->fill -= r->begin;
        r->begin = 0;
    }
    while (!r->end && r->fill - r->begin < want) {
        if (r->fill == r->capacity) {
            size_t capacity = r->capacity ? 2 * r->capacity : CHUNK;
            char *grown = realloc(r->data, capacity);
            if (!grown)
                return status_no_memory(st, capacity, "a document");
            r->data = grown;
            r->capacity = capacity;
        }
        size_t room = r->capacity - r->fill, n;
        int code = byte_source_read(r->source, r->data + r->fill, room < CHUNK ? room : CHUNK, &n, st);
        if (code)
            return code;
        r->fill += n;
        r->end = n == 0;
    }
    int64_t position = byte_source_position(r->source);
    r->stats.stored_bytes += position - r->position;
    r->position = position;
    return PLM_OK;
}

/* Open the next file; r->source stays NULL when there is none or this one is skipped. */
static int open_file(struct reader *r, struct plm_status *st)
{
    r->path = r->files.paths[r->next_file++];
    bool json;
    int code = file_holds_json(&json, r->path, r->field, st);
    if (!code)
        code = json ? json_rows_open(&r->rows, r->path, st) : byte_source_open(&r->source, r->path, st);
    if (code)
        return code;
    r->stats.files++;
    r->end = r->continued = r->delivered = false;
    r->begin = r->fill = 0;
    r->line = 1;
    r->position = r->repaired = 0;
    if (json && !file_is_named_json(r->path))
        log_info("%s: JSON lines by its content; their field \"%s\" is read", r->path, r->field);
    if (json) {
        json_rows_limit(r->rows, r->max_line);
        json_rows_take_last(r->rows);
        return PLM_OK;
    }
    code = fill(r, BINARY_PROBE, st);
    if (code)
        return code;
    size_t probe = r->fill < BINARY_PROBE ? r->fill : BINARY_PROBE;
    if (probe && memchr(r->data, 0, probe)) {
        note(r, &r->stats.binary_files, 1, "looks like a binary file (NUL bytes); skipped");
        close_file(r);
    } else if (probe >= 3 && !memcmp(r->data, "\xEF\xBB\xBF", 3)) {
        r->begin = 3; /* byte order mark */
    }
    return PLM_OK;
}

/* Where to cut text of more than max bytes: after a blank line, a line or a space in its second half, else between
 * characters. */
static size_t cut_position(const char *text, size_t max)
{
    size_t half = max / 2;
    for (size_t i = max; i > half; i--)
        if (text[i - 1] == '\n' && i >= 2 && text[i - 2] == '\n')
            return i;
    for (size_t i = max; i > half; i--)
        if (text[i - 1] == '\n')
            return i;
    for (size_t i = max; i > half; i--)
        if (text[i - 1] == ' ')
            return i;
    for (size_t i = max; i > max - 4; i--)
        if (((unsigned char)text[i] & 0xC0) != 0x80)
            return i;
    return max;
}

static bool is_blank(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!strchr(" \t\r\n\f\v", text[i]))
            return false;
    return true;
}

/* Make *text valid UTF-8 in place of the caller's pointer. */
static int repair(struct reader *r, const char **text, size_t *length, int64_t line, struct plm_status *st)
{
    if (utf8_valid_prefix(*text, *length) == *length)
        return PLM_OK;
    if (r->whole_capacity < 3 * *length) {
        free(r->whole);
        r->whole_capacity = 3 * *length;
        r->whole = malloc(r->whole_capacity);
        if (!r->whole) {
            r->whole_capacity = 0;
            return status_no_memory(st, 3 * *length, "a document");
        }
    }
    *length = utf8_repair(*text, *length, r->whole, &r->stats.repaired_sequences);
    *text = r->whole;
    note(r, &r->stats.repaired_documents, line, "invalid UTF-8 or NUL replaced by U+FFFD");
    return PLM_OK;
}

/* Deliver text[0, length) unless it is blank. */
static void deliver(struct reader *r, const char *text, size_t length, int64_t line, struct document *doc)
{
    if (is_blank(text, length)) {
        note(r, &r->stats.empty, line, "empty document; skipped");
        return;
    }
    *doc = (struct document){text, length, r->path, line, r->delivered};
    r->delivered = true;
    r->stats.documents++;
    r->stats.bytes += (int64_t)length;
}

/* The next piece of a text file. */
static int next_text(struct reader *r, struct document *doc, struct plm_status *st)
{
    int code = fill(r, r->max_document + 1, st);
    if (code)
        return code;
    const char *text = r->data + r->begin;
    size_t length = r->fill - r->begin;
    int64_t line = r->line;
    bool rest = r->continued;
    if (length <= r->max_document) {
        close_file(r);
    } else {
        length = cut_position(text, r->max_document);
        r->stats.cut += !r->continued;
        r->continued = true;
        r->line += count_lines(text, length);
    }
    r->begin += length;
    if (rest && is_blank(text, length))
        return PLM_OK;
    code = repair(r, &text, &length, line, st);
    if (!code)
        deliver(r, text, length, line, doc);
    return code;
}

/* The next piece of the record that is being delivered. */
static void next_piece(struct reader *r, struct document *doc)
{
    const char *text = r->text + r->text_begin;
    size_t length = r->text_length - r->text_begin;
    if (length > r->max_document) {
        length = cut_position(text, r->max_document);
        r->stats.cut += r->text_begin == 0;
    }
    bool first = r->text_begin == 0;
    r->text_begin += length;
    if (r->text_begin == r->text_length)
        r->text = NULL; /* doc points into the row, which is freed with the next one */
    if (first || !is_blank(text, length))
        deliver(r, text, length, r->line, doc);
}

/* What the rows repaired since the last look. */
static void note_repairs(struct reader *r, int64_t line)
{
    const int64_t now = json_rows_repairs(r->rows)->characters;
    if (now == r->repaired)
        return;
    r->stats.repaired_sequences += now - r->repaired;
    r->repaired = now;
    note(r, &r->stats.repaired_documents, line, "invalid UTF-8 or NUL replaced by U+FFFD");
}

/* The text of the next row of a file. */
static int next_row(struct reader *r, struct plm_status *st)
{
    struct plm_status why = {0};
    json_t *row;
    int64_t line;
    const int code = json_rows_next(r->rows, &row, &line, &why);
    r->stats.stored_bytes += json_rows_position(r->rows) - r->position;
    r->position = json_rows_position(r->rows);
    const json_t *value = json_object_get(row, r->field);
    if (code == PLM_ELIMIT && line > 0) {
        note(r, &r->stats.long_lines, line, "line above the size limit; skipped");
    } else if (code == PLM_EFORMAT && line > 0) {
        char what[400];
        const char *reason = strstr(why.message, ": ");
        snprintf(what, sizeof what, "not a JSON object (%s); skipped", reason ? reason + 2 : why.message);
        note(r, &r->stats.bad_json, line, what);
    } else if (code) {
        return status_set(st, why.code, "%s", why.message);
    } else if (!row) {
        close_file(r);
    } else if (!value) {
        note(r, &r->stats.missing_field, line, "the text field is missing (--text-field names another); skipped");
    } else if (!json_is_string(value)) {
        note(r, &r->stats.wrong_type, line, "the text field is not a string; skipped");
    } else {
        r->text = json_string_value(value);
        r->text_length = json_string_length(value);
        r->text_begin = 0;
        r->delivered = false;
        r->line = line;
    }
    if (r->rows)
        note_repairs(r, line);
    return PLM_OK;
}

int reader_next(struct reader *r, struct document *doc, struct plm_status *st)
{
    *doc = (struct document){0};
    while (!doc->text) {
        int code = PLM_OK;
        if (r->text) {
            next_piece(r, doc);
        } else if (r->rows) {
            code = next_row(r, st);
        } else if (r->source) {
            code = next_text(r, doc, st);
        } else if (r->next_file < r->files.n) {
            code = open_file(r, st);
        } else {
            return PLM_OK;
        }
        if (code)
            return code;
    }
    return PLM_OK;
}
