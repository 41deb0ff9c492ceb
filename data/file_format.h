/* Is a file text, or rows of JSON? One answer for every reader. */
#ifndef DATA_FILE_FORMAT_H
#define DATA_FILE_FORMAT_H

#include <stdbool.h>

#include "infer/base/status.h"

/* Named .jsonl, .ndjson or .json, in any case, also compressed: it holds JSON lines, one JSON array, or JSON objects one after the other
 * (json_rows.h tells which). */
bool file_is_named_json(const char *path);

/* *json: it is named so; or, whatever its name, its first line is a JSON object with a text in `field`, and the second line, if there is
 * one, begins another object. Errors are those of reading it. */
int file_holds_json(bool *json, const char *path, const char *field, struct plm_status *st);

#endif
