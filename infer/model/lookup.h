/* Prompt lookup: speculative decoding without a second model. The draft is what followed the last tokens of the sequence where they
 * occurred before (Saxena, "Prompt Lookup Decoding", 2023), and is verified in one batch. */
#ifndef INFER_MODEL_LOOKUP_H
#define INFER_MODEL_LOOKUP_H

#include "infer/model/engine.h"

/* Tokens that are verified in one batch. Up to so many rows a product with quantised weights is bit for bit what it is for each row
 * alone; larger batches take kernels that round activations otherwise, and the text could depend on the drafts. */
enum { LOOKUP_BATCH = 4 };

struct lookup {
    int max_draft;   /* a longer draft than fits into a batch goes on with the next step */
    int32_t *tokens; /* (LOOKUP_BATCH): the token of the last step, then its draft */
    float *logits;   /* (LOOKUP_BATCH, V) */
    void *scratch;   /* V * 8 bytes, for drawing */
    int64_t drafted, accepted; /* tokens so far */
};

/* max_draft >= 1. Release also after an error. */
int lookup_create(struct lookup *l, int max_draft, int vocab, struct plm_status *st);
void lookup_release(struct lookup *l);

/* A draft for what follows tokens (n) and `token`: at most `most` tokens into draft. It continues the latest of the occurrences
 * that share the most tokens, 2 to 4, with the end; one that overlaps the end repeats its period. Returns their number. */
int64_t lookup_draft(const int32_t *tokens, int64_t n, int32_t token, int32_t *draft, int64_t most);

/* The max_batch that an engine needs to verify such drafts in one batch. */
static inline int lookup_batch(int max_draft) { return max_draft < LOOKUP_BATCH ? max_draft + 1 : LOOKUP_BATCH; }

/* Append `token`, and then as many drafted tokens, at most `most`, as sampling_draw picks after it: l->tokens[1 .. *n]. The logits
 * that follow the last of them are l->logits + *n * V. A sequence with a cache policy gets no drafts: it could not take wrong ones
 * back. After an error the sequence is as it was. */
int lookup_append(struct lookup *l, struct engine *e, struct sequence *s, const struct plm_sampling *sampling, int32_t token, int64_t most,
                  int64_t *n, struct plm_status *st);

#endif
