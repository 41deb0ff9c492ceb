/* From log-probabilities of packed sequences to the loss of a preference step and one coefficient per token: the DPO family, ARIES' refinement loss, and
 * the sums behind TRL's metrics. */
#ifndef TRAIN_ALIGN_PAIR_OBJECTIVE_H
#define TRAIN_ALIGN_PAIR_OBJECTIVE_H

#include "train/align/pairs.h"
#include "train/align/preference_loss.h"
#include "train/metrics.h"
#include "train/sequences.h"

/* Sums over pairs (and their number), to be added over ranks. Names in pair_metrics. */
enum pair_sum {
    SUM_PAIRS, SUM_LOSS, SUM_DIRECT, SUM_REFINE_L, SUM_REFINE_W, SUM_H_L, SUM_H_W, SUM_ACC_L, SUM_ACC_W, SUM_REWARD_CHOSEN, SUM_REWARD_REJECTED, SUM_ACCURACY,
    SUM_LOGP_CHOSEN, SUM_LOGP_REJECTED, SUM_CHOSEN, SUM_REJECTED, SUM_TOKENS, PAIR_SUMS
};

struct pair_objective {
    const struct preference_loss *loss;
    struct preference_params params;      /* kl is set per step where the loss wants it */
    double alpha, beta_refine;            /* (1 - alpha) direct + alpha refine (aries.md 1.4) */
    const struct pair_sequences *pairs;
    const double *reference;              /* (pairs->e.n) log-probability of each sequence under the reference; NULL: the loss needs none */
    double sums[PAIR_SUMS];
};

/* The objective for sequences_backward; ctx is a struct pair_objective. All sequences of a pair but the mismatched one must be in the micro-batch. */
int pair_coefficients(void *ctx, const struct micro_batches *m, int64_t i, const float *log_probs, float *coef, struct plm_status *st);

/* Log-probability of sequence s: the sum over its targets. */
double sequence_log_prob(const struct examples *e, int64_t s, const float *log_probs);

/* TRL's names and values from sums over all ranks, into metrics (PAIR_METRICS at most). Returns their number. */
#define PAIR_METRICS 24
int pair_metrics(const struct pair_objective *o, const double sums[PAIR_SUMS], struct metric metrics[PAIR_METRICS]);

#endif
