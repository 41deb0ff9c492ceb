/* metrics.jsonl: one JSON object per line, {"step": 120, "loss": 3.21, ...}, flushed line by line. */
#ifndef TRAIN_METRICS_H
#define TRAIN_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "infer/base/status.h"

struct metrics;

struct metric {
    const char *name;
    double value;     /* written so that it reads back exactly; not finite: null */
    const char *text; /* when not NULL, written instead of the value */
};

/* Open for appending. A run that continues after `step` steps cuts off what an aborted run wrote later: lines with a
 * larger "step", and an unfinished last line. step 0: the file starts anew. */
int metrics_open(struct metrics **out, const char *path, int64_t step, struct plm_status *st);

/* Whether an earlier session wrote a line with "eval": name after the `step` that this one goes on from. */
bool metrics_evaluated(const struct metrics *m, const char *name);

/* Write one line: "step" and the n metrics. */
int metrics_write(struct metrics *m, int64_t step, const struct metric *metrics, int n, struct plm_status *st);

/* NULL allowed. */
void metrics_close(struct metrics *m);

#endif
