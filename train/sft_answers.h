/* Answers of the model in training to a file of tasks: first answers and refinements, scored by a verifier. */
#ifndef TRAIN_SFT_ANSWERS_H
#define TRAIN_SFT_ANSWERS_H

#include "train/sft_data.h"
#include "train/trainer.h"

struct turn_result {
    double score;      /* mean over the scored answers */
    double length;     /* mean tokens */
    double ended_rate; /* share that ended by itself */
    int64_t answers, scored;
};

struct sft_answers;

int sft_answers_open(struct sft_answers **out, const struct sft_config *c, struct trainer *t, const struct sft_renderer *r, bool report, struct plm_status *st);
void sft_answers_close(struct sft_answers *a);

/* Answer all tasks, which the ranks share out, and score. turns: (refinements + 1), the same on every rank. Rank 0 writes the samples of this step.
 * Collective. */
int sft_answers_run(struct sft_answers *a, struct turn_result *turns, struct plm_status *st);

#endif
