/* Log-probabilities of given tokens, for several sequences in one batch. */
#ifndef TOOLS_LIKELIHOOD_H
#define TOOLS_LIKELIHOOD_H

#include "infer/model/engine.h"
#include "infer/text/tokenizer.h"
#include "tools/log_prob.h"

struct score_request {
    const int32_t *tokens;      /* (n) */
    size_t n, from;             /* tokens [from, n) are scored: 1 <= from < n, n - 1 <= context */
    struct token_score *scores; /* (n - from) */
};

struct likelihood {
    struct engine *engine;
    struct sequence *base;    /* what the last requests had in common; of a single one, all of it */
    struct sequence **branch; /* (batch), made when wanted */
    int batch, vocab;
    size_t context, rows;
    float *logits;            /* (rows, V) */
    int64_t fed, reused;      /* tokens that went through the model, and that were in a cache already */
    double seconds;           /* spent on that */
};

/* context 0: what the model was trained for; threads 0: one per processor; batch: sequences that are scored together. Close also
 * after an error. */
int likelihood_open(struct likelihood *s, const struct plm_model *model, int context, int threads, int batch, struct plm_status *st);
void likelihood_close(struct likelihood *s);

/* Score them all. Requests that begin alike share the cache of what they have in common, also with the call before. */
int likelihood_score(struct likelihood *s, const struct score_request *requests, int n, struct plm_status *st);

/* Where choices are scored from: the first token where any of the n joined lists (a context and a choice tokenised together) departs
 * from the context's own tokens, at least 1 and not beyond the last token of any. */
size_t likelihood_departure(const struct token_list *context, const struct token_list *joined, int n);

#endif
