/* ln softmax of logits: of one token, and of the likeliest ones. */
#ifndef TOOLS_LOG_PROB_H
#define TOOLS_LOG_PROB_H

#include <stdbool.h>
#include <stdint.h>

#include "infer/base/status.h"

struct token_score {
    double log_prob; /* ln p(token | all tokens before it) */
    bool top;        /* it is the likeliest; the lower id of equals */
};

/* *normaliser = ln sum exp(logits), the sum over the vocabulary in double precision; ln p of a token is its logit minus that.
 * PLM_EFORMAT for logits that are not finite. */
int log_prob_normaliser(const float *logits, int vocab, double *normaliser, struct plm_status *st);

/* Score of one token. */
int log_prob_score(const float *logits, int vocab, int32_t token, struct token_score *score, struct plm_status *st);

/* The k likeliest, k <= vocab, likeliest first, the lower id of equals: ids (k). */
void log_prob_top(const float *logits, int vocab, int k, int32_t *ids);

#endif
