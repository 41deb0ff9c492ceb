/* A file of JSON lines, the whole of it or none. */
#ifndef TOOLS_JSONL_OUTPUT_H
#define TOOLS_JSONL_OUTPUT_H

#include <jansson.h>
#include <limits.h>
#include <stdio.h>

#include "infer/base/status.h"

struct jsonl_output {
    FILE *file;
    const char *path;
    char temporary[PATH_MAX]; /* renamed to path at the end */
};

/* path must outlive it. What is there already must be a regular file: a device or a pipe would be replaced. After an error no
 * other call is needed, and none but jsonl_output_close allowed. */
int jsonl_output_open(struct jsonl_output *o, const char *path, struct plm_status *st);

/* Write one row and release it; NULL (it could not be made) is PLM_ENOMEM. */
int jsonl_output_add(struct jsonl_output *o, json_t *row, struct plm_status *st);

/* Put the file in its place, or remove what was written when code, the outcome so far, is an error. Returns code, or the error of this. */
int jsonl_output_close(struct jsonl_output *o, int code, struct plm_status *st);

#endif
