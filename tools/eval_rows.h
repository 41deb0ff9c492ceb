/* Fields of an evaluation's rows (data/json_rows.h). A bad row is an error, not a note: a score over fewer rows than the file holds would look
 * like a score over all of them. */
#ifndef TOOLS_EVAL_ROWS_H
#define TOOLS_EVAL_ROWS_H

#include "data/json_rows.h"

/* A string field: the first of `names` (ended by NULL) the row has. PLM_EFORMAT when it has none, or it is not a string. */
int eval_row_string(const json_t *row, const char *const *names, const char **text, size_t *length, struct plm_status *st);

#endif
