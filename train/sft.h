/* Supervised fine-tuning: the run of a configuration over all ranks of a job. */
#ifndef TRAIN_SFT_H
#define TRAIN_SFT_H

#include <stdbool.h>

#include "train/comm.h"
#include "train/sft_config.h"

struct sft_result {
    bool learned;        /* an update changed the weights, in this session or an earlier one */
    int stopped_by;     /* signal that ended the run early (its state is saved), or 0 */
    int64_t steps;      /* done so far, all sessions of the run together */
    double final_loss;  /* of the last step */
    int64_t best_step;  /* of RUN/best; -1: nothing was evaluated */
    double best;        /* its held-out loss or score */
};

/* Run or continue the run in c->run_dir. Collective. The loss is the mean over the target tokens of an optimizer step, whatever the micro-batches and
 * ranks; rows are taken in an order that depends on files, configuration and seed only.
 *
 * Writes RUN/run.json (the resolved configuration), metrics.jsonl and TensorBoard events, samples.jsonl, evaluation.json, checkpoints step-N and best, the
 * model of the best evaluation. Checkpoints are model directories with merged weights and the templates; with LoRA the PEFT adapter lies beside them.
 * SIGINT, SIGTERM or SIGUSR1 on any rank saves after the current step and stops. */
int sft_run(const struct sft_config *c, struct comm *comm, struct sft_result *result, struct plm_status *st);

#endif
