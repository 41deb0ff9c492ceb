/* Pretraining: the multi-phase run of a configuration over all ranks of a job. */
#ifndef TRAIN_PRETRAIN_H
#define TRAIN_PRETRAIN_H

#include <stdbool.h>

#include "train/comm.h"
#include "train/curriculum.h"

struct pretrain_result {
    bool learned;        /* an update changed the weights, in this session or an earlier one */
    int stopped_by;    /* signal that ended the run early (its state is saved), or 0 */
    int64_t steps;     /* done so far, all sessions of the run together */
    double final_loss; /* of the last step */
};

/* Run or continue the run in c->run_dir: with a checkpoint there, from the newest complete one; otherwise from random weights
 * (or model.path). Collective. The resolved configuration goes to run_dir/run.json, every step's metrics to
 * run_dir/metrics.jsonl, held-out losses to run_dir/evaluation.json when the run is complete.
 *
 * A step whose loss or gradient is not finite on any rank is skipped on all of them, counted and reported. SIGINT or SIGTERM on
 * any rank saves a checkpoint after the current step and stops all. */
int pretrain_run(const struct run_config *c, struct comm *comm, struct pretrain_result *result, struct plm_status *st);

#endif
