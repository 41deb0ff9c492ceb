/* Rows of a dataset: JSON lines (.jsonl, also .gz and .zst), or one JSON array of objects (.json whose first character is '['). Lines are read
 * one at a time, an array's text is held in memory; either may have 1 GiB at most. A byte order mark is passed over. */
#ifndef DATA_JSON_ROWS_H
#define DATA_JSON_ROWS_H

#include <jansson.h>
#include <stdint.h>

#include "infer/base/status.h"

struct json_rows;

int json_rows_open(struct json_rows **out, const char *path, struct plm_status *st);
void json_rows_close(struct json_rows *r);

/* The next row, an object owned by r and valid until the next call; NULL at the end. *line: the line it begins at, from 1. Blank lines are
 * passed over. A row that is not valid JSON, or no object, is PLM_EFORMAT with "FILE:LINE: ..."; the next call goes on with the row after it. *line
 * is 0 after an error that concerns the rest of the file too: it cannot be read or unpacked, or the syntax of an array is broken. */
int json_rows_next(struct json_rows *r, json_t **row, int64_t *line, struct plm_status *st);

#endif
