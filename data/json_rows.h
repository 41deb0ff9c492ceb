/* Rows of a dataset: objects of JSON, whatever the file is called. What it holds is told by how it begins:
 *
 *     {...}\n{...}\n      one row per line; a line that is no JSON costs that line only
 *     [{...}, {...}]      one array
 *     {\n  ...\n}\n{...}   objects one after the other that span lines
 *
 * Also compressed (byte_source.h). One row is held in memory at a time. A byte order mark is passed over. Rows that
 * strict JSON refuses are repaired when they can be (json_repair.h) and counted. */
#ifndef DATA_JSON_ROWS_H
#define DATA_JSON_ROWS_H

#include <jansson.h>
#include <stdint.h>

#include "data/json_repair.h"
#include "infer/base/status.h"

struct json_rows;

int json_rows_open(struct json_rows **out, const char *path, struct plm_status *st);
void json_rows_close(struct json_rows *r);

/* Rows of more bytes are skipped: PLM_ELIMIT from json_rows_next, with *line. 1 GiB unless set; of a row that spans
 * lines it ends the file. */
void json_rows_limit(struct json_rows *r, size_t bytes);

/* Of a key given twice the last value counts, as in most readers. Unless told so such a row is an error: what it means
 * is not clear. */
void json_rows_take_last(struct json_rows *r);

/* The next row, an object owned by r and valid until the next call; NULL at the end. *line: the line it begins at,
 * from 1. Blank lines are passed over. A row that is not valid JSON, or no object, is PLM_EFORMAT with "FILE:LINE:
 * ..."; the next call goes on with the row after it. *line is 0 after an error that concerns the rest of the file too:
 * it cannot be read or unpacked, or a row that spans lines is broken. */
int json_rows_next(struct json_rows *r, json_t **row, int64_t *line, struct plm_status *st);

/* What was repaired so far. */
const struct json_repairs *json_rows_repairs(const struct json_rows *r);

/* Bytes taken from the file so far (compressed). */
int64_t json_rows_position(const struct json_rows *r);

#endif
