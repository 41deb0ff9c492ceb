/* Preference losses (aries.md 1.4, 3.1): small functions from the log-probabilities of a pair to a loss and its derivatives. Everything is
 * double; a loss of a batch is the mean over its pairs. */
#ifndef TRAIN_ALIGN_PREFERENCE_LOSS_H
#define TRAIN_ALIGN_PREFERENCE_LOSS_H

#include <stdbool.h>

#include "infer/base/status.h"

/* Sums of token log-probabilities of the two answers under policy and reference, and their numbers of tokens. */
struct pair_log_probs {
    double chosen, rejected;         /* policy */
    double ref_chosen, ref_rejected; /* reference; unused where the loss has none */
    int n_chosen, n_rejected;        /* at least 1 */
};

struct preference_params {
    double beta;            /* also tau of IPO */
    double label_smoothing; /* cDPO, robust, EXO */
    double gamma;           /* SimPO: target margin (inside the sigmoid) */
    double lambda;          /* ORPO */
    double nll_weight;      /* added: -nll_weight * chosen / n_chosen (RPO, IRPO); any loss */
    double kl;              /* KTO: the reference point, >= 0, estimated over the batch */
    double desirable_weight, undesirable_weight; /* KTO */
};

/* Loss and d loss / d log-probability of each answer. */
struct preference_value {
    double loss;
    double d_chosen, d_rejected;
};

struct preference_loss {
    const char *name;       /* "sigmoid", "cdpo", "robust", "rpo", "hinge", "ipo", "ipo_sum", "kto", "orpo", "simpo", "cpo", "sigmoid_norm", "apo_zero",
                             * "apo_down", "sppo_hard", "nca_pair", "bco_pair", "exo_pair" */
    const char *label;      /* "DPO", "IPO (token mean)" ...: what is shown when a run starts */
    bool reference;         /* needs reference log-probabilities */
    bool normalised;        /* divides by lengths */
    bool unpaired;          /* each answer stands alone: unpaired data may be used (kto, bco_pair, apo_zero, nca is not) */
    struct preference_params defaults; /* 0: the loss has no such parameter (nll_weight: all have, kl: those with desirable_weight) */
    void (*value)(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v);
    /* Unpaired: loss and derivative for one answer, a = policy - reference log-probability. NULL where paired. */
    void (*single)(double a, bool desirable, const struct preference_params *o, double *loss, double *d);
};

/* By name, also under the names others use ("dpo", "dpo_norm", "slic", "rpo" ...: see the table); NULL when unknown. */
const struct preference_loss *preference_loss_find(const char *name);
extern const struct preference_loss preference_losses[]; /* ended by a NULL name */

/* Values that make no sense for this loss: PLM_EINVAL names the field and the range (beta > 0, label_smoothing in [0, 0.5), above 0 for EXO), or says
 * that the loss has no such parameter: a setting without effect is a mistake. */
int preference_params_check(const struct preference_loss *l, const struct preference_params *o, struct plm_status *st);

/* loss->value plus the NLL term. Finite for finite log-probabilities up to 1e4 and beyond; n_chosen and n_rejected are at least 1. */
void preference_value(const struct preference_loss *l, const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v);

/* ---- ARIES (aries.md 1.4) ---- */

/* given_l: the answers after (x, y_l, z); given_w: after (x, y_w, z). */
struct refine_value {
    double loss;                               /* (1/2 - beta h_l)^2 + (1/2 - beta h_w)^2 */
    double loss_l, loss_w, h_l, h_w;
    double d_chosen_given_l, d_rejected_given_l, d_chosen_given_w, d_rejected_given_w;
};
void refine_loss(const struct pair_log_probs *given_l, const struct pair_log_probs *given_w, double beta, struct refine_value *v);

/* ---- KTO's reference point ---- */

/* max(0, mean of policy - reference over the n mismatched answers), detached. */
double kto_reference_point(const double *policy, const double *reference, int64_t n);

#endif
