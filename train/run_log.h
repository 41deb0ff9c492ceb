/* What a run tells about itself while it goes on: every row goes into RUN/metrics.jsonl and, value by value, into a TensorBoard event file; answers that the
 * model gave go into RUN/samples.jsonl. One process writes: the ranks beside it pass NULL, and every function then does nothing. */
#ifndef TRAIN_RUN_LOG_H
#define TRAIN_RUN_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "infer/base/status.h"
#include "train/metrics.h"

struct run_log;

/* Open the log of a run directory, which must be there. A run that continues after `step` steps cuts off what an aborted session wrote later, in all three
 * places; step 0: all begins anew. */
int run_log_open(struct run_log **out, const char *run_dir, int64_t step, struct plm_status *st);

/* Whether evaluation `name` after the `step` that was opened with is in the log (metrics_evaluated). */
bool run_log_evaluated(const struct run_log *log, const char *name);

/* Write one row (metrics_write). Its numbers go to TensorBoard under their own names, after "eval/<name>/" when the row has a text "eval", and after "turn<k>/"
 * when it has a number "turn"; texts, "turn" and "round" are not curves and are left out there. */
int run_log_write(struct run_log *log, int64_t step, const struct metric *values, int n, struct plm_status *st);

/* Append a row, the text of a JSON object like {"round": 1, "prompt": "...", "answers": [{"turn": 0, "text": "...", "score": 1}], "reference": "..."}: on one
 * line and with "step" put in. TensorBoard gets prompt, answers and reference as the text "samples/<i>", the i-th (from 0) of that step. PLM_EINVAL when it is
 * not an object. */
int run_log_sample(struct run_log *log, int64_t step, const char *json_row, struct plm_status *st);

void run_log_close(struct run_log *log);

#endif
