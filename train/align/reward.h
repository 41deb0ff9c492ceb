/* Training a reward model on pairs: the run of a configuration over all ranks of a job. */
#ifndef TRAIN_ALIGN_REWARD_H
#define TRAIN_ALIGN_REWARD_H

#include <stdbool.h>

#include "train/align/reward_config.h"
#include "train/comm.h"

struct reward_result {
    bool learned;        /* an update changed the weights, in this session or an earlier one */
    int stopped_by;     /* signal that ended the run early (its state is saved), or 0 */
    int64_t steps;      /* done so far, all sessions of the run together */
    int64_t best_step;  /* of RUN/best; -1: nothing was evaluated */
    struct reward_statistics held_out; /* of the newest evaluation */
};

/* Run or continue the run in c->run_dir. Collective. The loss is the mean over the pairs of an optimizer step, whatever the micro-batches and ranks; pairs are taken in an
 * order that depends on files, configuration and seed only.
 *
 * Writes RUN/run.json, metrics.jsonl, evaluation.json, checkpoints step-N (reward models that scorers open, each with reward_head.safetensors and reward.json) and best,
 * the model of the smallest held-out loss. SIGINT, SIGTERM or SIGUSR1 on any rank saves after the current step and stops. */
int reward_run(const struct reward_config *c, struct comm *comm, struct reward_result *result, struct plm_status *st);

#endif
