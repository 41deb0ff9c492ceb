/* Inside a preference-learning run: what its parts share. */
#ifndef TRAIN_ALIGN_ROUND_H
#define TRAIN_ALIGN_ROUND_H

#include "train/align/align_config.h"
#include "train/align/pairs.h"
#include "train/align/rollout.h"
#include "train/align/score_model.h"
#include "train/templates.h"
#include "train/trainer.h"

struct align {
    const struct align_config *c;
    struct trainer t;
    struct templates templates;
    char model_path[4096];        /* where it starts */
    struct row_set tasks, eval_tasks;
    float *start;                 /* (table.padded) weights that the run began with; NULL: not needed, or LoRA's frozen ones */
    struct score_model *score_model;   /* NULL: the scorer needs none */
    struct model_scorer hook;          /* calls it */
    struct model_scorer *scorer_model; /* &hook, or NULL */
    bool stopped;                 /* a signal asked to stop, and everything is saved */
};

/* "RUN/round-N" or, with a name, "RUN/round-N/NAME". PLM_EINVAL when too long. round counts from 0 (the first to train); -1: the model it begins with. */
int round_path(const struct align *a, int round, const char *name, char out[4096], struct plm_status *st);

/* The weights that the run began with, wherever they are; NULL when there is no copy. */
const float *align_start_weights(const struct align *a);

/* The same between steps; without a copy they are read from the model's file into the gradients, where they stay until the next step begins. Collective. */
int align_load_start_weights(struct align *a, const float **weights, struct plm_status *st);

/* Do the pairs of a round come from the offline data? */
bool round_offline(const struct align_config *c, int round);

/* What the rows of pairs.jsonl are for this method. */
enum row_kind align_row_kind(const struct align_config *c, int round);

/* Make RUN/round-N/pairs.jsonl, or find it complete. a->stopped afterwards: not complete. Collective. */
int round_collect(struct align *a, int round, struct plm_status *st);

/* Train on the pairs of a round from state.step_in_phase on. a->stopped afterwards: not complete, but saved. Collective. */
int round_train_pairs(struct align *a, int round, struct plm_status *st);

/* The same for grpo, whose answers are made as it goes. */
int round_train_policy(struct align *a, int round, struct plm_status *st);

/* Answers to the held-out tasks, scored, into evaluation.json; nothing when they are there. Collective. */
int round_evaluate(struct align *a, int round, struct plm_status *st);

/* Rate of update number step + 1 of `steps` in a round. */
double round_learning_rate(const struct align_config *c, int round, int64_t step, int64_t steps);

/* Something complete of the step reached is found on disk. Are its rows gone from the log? They are when this session repeats steps after the checkpoint it began with, or
 * began at step 0. at_start: it was made before the first step. */
bool round_log_was_cut(const struct align *a, bool at_start);

/* Rows about rollouts: one per turn, and the samples of the first few tasks. eval: name of the evaluation, or NULL. Rank 0. */
int round_log_turns(struct align *a, int round, const char *eval, const struct answer_set *set, int n_turns, struct plm_status *st);
int round_log_samples(struct align *a, int round, const char *eval, const struct row_set *tasks, const struct answer_set *set, int n_tasks, struct plm_status *st);

/* After a step: counts it, says it, saves when it is time. *stop: a signal asked to. Collective. */
int round_step_done(struct align *a, int round, int64_t step, int64_t steps, const struct update_outcome *o, double lr, double loss, double seconds, double tokens,
                    const struct metric *more, int n_more, struct plm_status *st);

/* A list of tasks for round `round` (of per_round, 0: all), the same on every rank, ascending; malloc'ed. */
int round_tasks(const struct align *a, int round, int64_t **list, int64_t *n, struct plm_status *st);

#endif
