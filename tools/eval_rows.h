/* The rows of an evaluation: JSON lines (.jsonl, also .gz and .zst). A bad row is an error, not a note: a score over fewer rows
 * than the file holds would look like a score over all of them. */
#ifndef TOOLS_EVAL_ROWS_H
#define TOOLS_EVAL_ROWS_H

#include <jansson.h>
#include <stdint.h>

#include "infer/base/status.h"

struct eval_rows;

int eval_rows_open(struct eval_rows **out, const char *path, struct plm_status *st);
void eval_rows_close(struct eval_rows *r);

/* The next row, an object owned by r and valid until the next call, NULL at the end, and its line, from 1. Blank lines are
 * passed over. Messages begin with FILE:LINE. */
int eval_rows_next(struct eval_rows *r, json_t **row, int64_t *line, struct plm_status *st);

/* A string field: the first of `names` (ended by NULL) the row has. PLM_EINVAL when it has none, or it is not a string. */
int eval_row_string(const json_t *row, const char *const *names, const char **text, size_t *length, struct plm_status *st);

#endif
