#include "data/reader.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "data/byte_source.h"
#include "data/files.h"
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
    bool json, end, discarding; /* discarding: inside a line that is too long */
    bool continued;             /* the text at `begin` goes on a document that was cut */
    int64_t line;               /* of the byte at `begin` */
    char *data;                 /* unread bytes are data[begin, fill) */
    size_t begin, fill, capacity;
    int64_t position;           /* of the source, already added to stats.stored_bytes */
    /* the record being delivered: the text of a JSON line, in pieces */
    json_t *record;
    const char *text;
    size_t text_length, text_begin;
    char *repaired;             /* what the last document points at when it was repaired */
    size_t repaired_capacity;
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
    r->source = NULL;
}

void reader_close(struct reader *r)
{
    if (!r)
        return;
    close_file(r);
    json_decref(r->record);
    free(r->data);
    free(r->repaired);
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

static bool has_extension(const char *path, const char *extension)
{
    size_t n = strlen(path), m = strlen(extension);
    if (n > 3 && !strcmp(path + n - 3, ".gz"))
        n -= 3;
    else if (n > 4 && !strcmp(path + n - 4, ".zst"))
        n -= 4;
    return n > m && !memcmp(path + n - m, extension, m);
}

/* Open the next file; r->source stays NULL when there is none or this one is skipped. */
static int open_file(struct reader *r, struct plm_status *st)
{
    r->path = r->files.paths[r->next_file++];
    int code = byte_source_open(&r->source, r->path, st);
    if (code)
        return code;
    r->stats.files++;
    r->json = has_extension(r->path, ".jsonl") || has_extension(r->path, ".ndjson");
    r->end = r->discarding = r->continued = false;
    r->begin = r->fill = 0;
    r->line = 1;
    r->position = 0;
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
    if (r->repaired_capacity < 3 * *length) {
        free(r->repaired);
        r->repaired_capacity = 3 * *length;
        r->repaired = malloc(r->repaired_capacity);
        if (!r->repaired) {
            r->repaired_capacity = 0;
            return status_no_memory(st, 3 * *length, "a document");
        }
    }
    *length = utf8_repair(*text, *length, r->repaired, &r->stats.repaired_sequences);
    *text = r->repaired;
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
    *doc = (struct document){text, length, r->path, line};
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
        r->text = NULL; /* the record is freed by the next call: doc points into it */
    if (first || !is_blank(text, length))
        deliver(r, text, length, r->line - 1, doc);
}

/* Parse one JSON line into r->record and r->text. */
static int parse_line(struct reader *r, const char *text, size_t length, int64_t line, struct plm_status *st)
{
    if (is_blank(text, length))
        return PLM_OK;
    int code = repair(r, &text, &length, line, st);
    if (code)
        return code;
    json_error_t error;
    json_t *record = json_loadb(text, length, JSON_ALLOW_NUL, &error);
    if (!json_is_object(record)) {
        char what[256];
        snprintf(what, sizeof what, "not a JSON object (%s); skipped", record ? "another type" : error.text);
        note(r, &r->stats.bad_json, line, what);
    } else if (!json_object_get(record, r->field)) {
        note(r, &r->stats.missing_field, line, "the text field is missing (--text-field names another); skipped");
    } else if (!json_is_string(json_object_get(record, r->field))) {
        note(r, &r->stats.wrong_type, line, "the text field is not a string; skipped");
    } else {
        const json_t *value = json_object_get(record, r->field);
        r->text = json_string_value(value);
        r->text_length = json_string_length(value);
        r->text_begin = 0;
        r->record = record;
        return repair(r, &r->text, &r->text_length, line, st); /* "\u0000" */
    }
    json_decref(record);
    return PLM_OK;
}

/* The next line of a JSONL file. */
static int next_line(struct reader *r, struct plm_status *st)
{
    size_t scanned = 0;
    for (;;) {
        const char *text = r->data + r->begin;
        size_t length = r->fill - r->begin;
        const char *newline = length > scanned ? memchr(text + scanned, '\n', length - scanned) : NULL;
        if (newline || (r->end && length > 0)) {
            length = newline ? (size_t)(newline - text) : length;
            r->begin += length + (newline != NULL);
            int64_t line = r->line++;
            if (r->discarding) {
                r->discarding = false;
                return PLM_OK;
            }
            if (length > r->max_line) {
                note(r, &r->stats.long_lines, line, "line above the size limit; skipped");
                return PLM_OK;
            }
            return parse_line(r, text, length, line, st);
        }
        if (r->end) {
            close_file(r);
            return PLM_OK;
        }
        if (length > r->max_line) {
            if (!r->discarding)
                note(r, &r->stats.long_lines, r->line, "line above the size limit; skipped");
            r->discarding = true;
            r->begin = r->fill;
            length = 0;
        }
        scanned = length;
        int code = fill(r, length + CHUNK, st);
        if (code)
            return code;
    }
}

int reader_next(struct reader *r, struct document *doc, struct plm_status *st)
{
    *doc = (struct document){0};
    while (!doc->text) {
        int code = PLM_OK;
        if (r->record && r->text) {
            next_piece(r, doc);
        } else if (r->record) {
            json_decref(r->record);
            r->record = NULL;
        } else if (r->source) {
            code = r->json ? next_line(r, st) : next_text(r, doc, st);
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
