/* Rollouts: answers of the model under training to a list of tasks, with refinements, scored. Tasks go in chunks, each a file; ranks take the next chunk that nobody has
 * (so that they stay equally busy), and a run that was killed takes those that are missing. A chunk's answers depend on its tasks and the seed only: not on the rank
 * that makes it, nor on how many there are. */
#ifndef TRAIN_ALIGN_ROLLOUT_H
#define TRAIN_ALIGN_ROLLOUT_H

#include "infer/model/strategy.h"
#include "train/align/align_config.h"
#include "train/trainer.h"

/* Scores by a model: the caller's, for scorers that need one. */
struct model_scorer {
    int (*score)(void *ctx, const struct row_set *tasks, struct answer *answers, int64_t n, struct scorer_stats *stats, struct plm_status *st);
    void *ctx;
};

struct rollout {
    struct trainer *t;
    const struct row_set *tasks;
    const struct chat_template *chat;
    const struct refine_template *refine;
    struct scorer *scorer;
    const struct model_scorer *model_scorer; /* NULL unless scorer_needs_model */
    const struct rollout_options *o;
    uint64_t seed;
    const char *dir;            /* answers-NNNNN.jsonl are made here */
};

struct rollout_stats {          /* of all ranks; what an earlier session had made is not counted in times and speeds */
    int64_t answers, tokens;    /* in all files */
    int64_t made;               /* tokens generated now */
    double seconds;             /* wall time of the slowest rank */
    int64_t too_long;           /* answers not made for lack of room */
    int64_t failed;             /* answers that the scorer failed on */
    char first_failure[512];    /* of this rank */
    bool stopped;               /* asked to stop: not all chunks are there */
};

/* Answers to tasks list[0, n), ordered by their place in the list, chain and turn, on every rank. Collective. */
int rollout_run(const struct rollout *r, const int64_t *list, int64_t n, struct answer_set *all, struct rollout_stats *stats, struct plm_status *st);

/* One turn over all chains. */
struct turn_stats {
    int64_t count, scored;
    double score;      /* mean */
    double win_rate;   /* share of chains whose score is above turn 0's; ties count half */
    double length;     /* tokens, mean */
    double ended;      /* share that ended by themselves */
    double copied;     /* share that repeats the turn before word for word */
};
/* turns (n_turns). */
void rollout_turns(const struct answer_set *set, int n_turns, struct turn_stats *turns);

/* The first `count` answers once more through the trainer's forward pass: largest difference between the log-probability of a token recorded while sampling and the
 * trainer's, and the mean over answers of ln pi - ln pi_start (start NULL: not wanted, 0). Collective. */
int rollout_check(const struct rollout *r, const struct answer_set *set, int64_t count, const float *start, double *difference, double *kl, struct plm_status *st);

/* The tokens of an answer after its prompt, as one sequence. */
int rollout_sequence(const struct rollout *r, struct encoder *e, const struct answer_set *set, int64_t index, struct examples *out, struct plm_status *st);

#endif
