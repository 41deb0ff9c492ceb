/* Evaluation while fine-tuning: held-out loss and token accuracy of JSONL sources, and answers that the model writes to tasks, scored. All ranks take part. */
#ifndef TRAIN_SFT_EVAL_H
#define TRAIN_SFT_EVAL_H

#include "train/sft_data.h"
#include "train/trainer.h"

struct held_out {
    double loss;      /* mean nll per target, nats */
    double accuracy;  /* share of the targets that were the likeliest token */
    int64_t tokens;   /* targets */
};

struct sft_evaluator; /* sources, tasks and buffers */

/* Read what is evaluated. trainer and renderer must outlive it; report: log the counts. Free with sft_evaluator_close. */
int sft_evaluator_open(struct sft_evaluator **out, const struct sft_config *c, struct trainer *t, const struct sft_renderer *r, bool report,
                       struct plm_status *st);
void sft_evaluator_close(struct sft_evaluator *e);

/* Evaluate the model as it is. Collective. Rank 0 writes the rows {"eval": name, "eval_loss", "eval_token_accuracy", "eval_tokens"} and {"eval": "answers",
 * "turn", "eval_score", "length", "ended_rate", "eval_answers"}, samples and progress lines, and fills `record` (an object): {"held_out": {name: {"loss",
 * "token_accuracy", "tokens"}}, "answers": [{"turn", "score", "length", "ended_rate", "scored"}]}; the others pass NULL. */
int sft_evaluator_run(struct sft_evaluator *e, json_t *record, struct plm_status *st);

#endif
