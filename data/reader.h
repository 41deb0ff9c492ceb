/* Documents of files and directories: the first station of every text on its way to a model.
 *
 * One file is one document (text, Markdown, source code, anything else), except files of JSON rows (file_format.h: .jsonl, .ndjson, .json
 * in any case, and what plainly is one), where one row is one document and one field of it the text. Each may be compressed. Directories are walked recursively in name
 * order. A document above `max_document` bytes is cut at a paragraph, a line or a word, so memory is bounded.
 *
 * Dirty text is what users have, so it is counted and reported, not an error: see struct reader_stats. A file that cannot
 * be read, or a compressed file that is damaged, is an error: what it would have held is unknown. */
#ifndef DATA_READER_H
#define DATA_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "infer/base/status.h"

struct reader;

struct reader_options {
    const char *text_field; /* of a JSON line; NULL: "text" */
    size_t max_document;    /* bytes; 0: 1 MiB */
    size_t max_line;        /* bytes of a JSON line; 0: 64 MiB; longer ones are skipped */
};

struct document {
    const char *text;  /* valid UTF-8 without NUL; valid until the next call; NULL at the end of the data */
    size_t length;     /* bytes */
    const char *path;  /* valid until reader_close */
    int64_t line;      /* first line of the document in the file, from 1 */
    bool part;         /* it goes on the document before, which was cut */
};

struct reader_stats {
    int64_t files;             /* opened */
    int64_t ignored_files;     /* in directories: links to directories, devices, pipes, sockets */
    int64_t documents, bytes;  /* delivered; bytes of UTF-8 text */
    int64_t stored_bytes;      /* read from disk */
    int64_t cut;               /* documents that were cut because of max_document */
    /* skipped */
    int64_t binary_files;      /* a NUL in the first 4 KiB */
    int64_t empty;             /* nothing but white space */
    int64_t bad_json;          /* lines that are not a JSON object */
    int64_t missing_field, wrong_type; /* lines without the text field, or where it is not a string */
    int64_t long_lines;        /* above max_line */
    /* repaired */
    int64_t repaired_documents, repaired_sequences; /* invalid UTF-8 or NUL, replaced by U+FFFD */
};

/* paths: files and directories. `o` may be NULL. Nothing but the list of files is read yet. */
int reader_open(struct reader **out, const char *const *paths, int n_paths, const struct reader_options *o,
                struct plm_status *st);
void reader_close(struct reader *r);

/* The next document. The first few skipped or repaired records of each kind are logged with file and line. */
int reader_next(struct reader *r, struct document *doc, struct plm_status *st);

/* Counts so far; valid until reader_close. */
const struct reader_stats *reader_statistics(const struct reader *r);

/* The files that will be read, in order: file i of *n. */
const char *const *reader_files(const struct reader *r, int64_t *n);

#endif
