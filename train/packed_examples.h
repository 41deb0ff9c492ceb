/* Sequences packed into rows without splitting any: best fit by falling length (data/pack.h), documents isolated. */
#ifndef TRAIN_PACKED_EXAMPLES_H
#define TRAIN_PACKED_EXAMPLES_H

#include "data/examples.h"
#include "data/pack.h"
#include "data/stream.h"

struct packed_examples {
    struct packing packing; /* rows of pieces; a piece is a whole sequence */
    uint64_t *offsets;      /* (n + 1) where the sequences would lie one after the other in `order`: what pieces begin at */
    int64_t *order;         /* (n) sequences as they were given to the packing */
    int64_t n;
    int seq_len;
};

/* Pack all sequences of e, each of 2 to seq_len + 1 tokens (PLM_EINVAL otherwise). Sequences of one length are exchanged by `key`, so that another key
 * gives other rows but never another number of them. Free with packed_examples_free. */
int packed_examples_build(struct packed_examples *p, const struct examples *e, int seq_len, uint64_t key, struct plm_status *st);
void packed_examples_free(struct packed_examples *p);

/* Of one row: inputs (positions used) and targets (tokens to learn). */
void packed_row_counts(const struct packed_examples *p, const struct examples *e, int64_t row, int64_t *inputs, int64_t *targets);

/* Put a row into row `at` of a batch whose seq_len is the packing's: inputs, weight 1 where the next token is a target. Returns the positions used; the others
 * are documents of their own, of weight 0. */
int packed_row_fill(const struct packed_examples *p, const struct examples *e, int64_t row, int at, struct batch *b);

/* Cut all rows of a batch to their first len positions: what all of them leave empty at the end is not computed. */
void batch_shorten(struct batch *b, int len);

#endif
