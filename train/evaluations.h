/* RUN/evaluation.json: what every evaluation of a fine-tuning run found, and which step was the best: the memory of early stopping, across sessions. */
#ifndef TRAIN_EVALUATIONS_H
#define TRAIN_EVALUATIONS_H

#include <jansson.h>
#include <limits.h>

#include "train/sft_config.h"

struct evaluations {
    char path[PATH_MAX];
    enum sft_metric metric;
    json_t *list;          /* [{"step", "held_out": {name: {"loss", "token_accuracy", "tokens" or "pairs"}}, "answers": [...]}], by rising step */
    int64_t best_step;     /* -1: none yet. Step 0, the model before training, is shown and never the best */
    double best;           /* its loss or score */
    int since;             /* evaluations after the best */
};

/* Read what earlier sessions found up to `step`; step 0: nothing. Values are computed anew for this metric. Free with evaluations_close. */
int evaluations_open(struct evaluations *e, const char *run_dir, enum sft_metric metric, int64_t step, struct plm_status *st);
void evaluations_close(struct evaluations *e);

bool evaluations_has(const struct evaluations *e, int64_t step);

/* Append a record (taken over in every case) as the one of `step` and write the file. *improved: it is the best so far. */
int evaluations_add(struct evaluations *e, int64_t step, json_t *record, bool *improved, struct plm_status *st);

#endif
