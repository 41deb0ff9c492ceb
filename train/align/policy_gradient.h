/* Verifiable-reward policy gradients (aries.md 5.1): the GRPO family as one coefficient per token. */
#ifndef TRAIN_ALIGN_POLICY_GRADIENT_H
#define TRAIN_ALIGN_POLICY_GRADIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "train/settings.h"

enum advantage { ADVANTAGE_GROUP_STD, ADVANTAGE_CENTRED }; /* (r - mean) / (std + 1e-4), unbiased std; r - mean (Dr. GRPO) */
enum policy_normaliser { NORMALISE_TOKENS, NORMALISE_SEQUENCES, NORMALISE_CONSTANT }; /* dapo; grpo; dr_grpo: sequences * max_tokens */

struct grpo_options {
    enum advantage advantage;            /* default centred */
    enum policy_normaliser normaliser;   /* default tokens */
    double clip_low, clip_high;          /* default 0.2, 0.2; both 0: no clipping */
    double kl_beta;                      /* default 0: no reference */
    bool mask_truncated;                 /* default true: answers cut by a limit give no gradient */
};

/* Keys advantage ("group_std", "centred"), normaliser ("tokens", "sequences", "constant"), clip_low, clip_high, kl_beta, mask_truncated. */
struct grpo_options grpo_options_read(struct section *s);

/* Advantages of the answers of one group; unscored ones (NaN reward) get 0. False: all rewards equal (zero-variance group, skipped). */
bool policy_advantages(const struct grpo_options *o, const double *rewards, int n, double *advantages);

/* What the sum of all weighted coefficients (and of stats.loss) is divided by: the tokens of the whole step, its sequences, or sequences * max_tokens. */
double policy_denominator(const struct grpo_options *o, int64_t tokens, int64_t sequences, int max_tokens);

/* Sums over answers; divide kl, clipped and entropy by tokens. entropy is the estimate from the sampled tokens, the sum of -log p. */
struct policy_stats {
    double loss, kl, clipped, tokens, entropy;
};

/* One answer: for each of its n tokens d loss / d log-prob times the normaliser (the caller divides by it) into coef, from log-probs now,
 * while sampling (old; NULL: the same, rho is 1), and of the reference (NULL when kl_beta is 0); stats are added to. weight: 1, or 1/n for
 * NORMALISE_SEQUENCES, or 0 for an answer that was cut, with mask_truncated. Beyond e^20 a ratio goes on as its tangent.
 * loss_t = -min(rho A, clip(rho, 1 - lo, 1 + hi) A) + kl_beta (exp(ref - l) - (ref - l) - 1), rho = exp(l - old). */
void policy_coefficients(const struct grpo_options *o, double advantage, double weight, const float *now, const float *old, const float *ref,
                         int n, double *coef, struct policy_stats *stats);

#endif
