/* Background threads that keep a ring of batches filled, following a plan: blocks of `rows` samples at first,
 * first + stride, first + 2 stride, ... */
#ifndef DATA_PREFETCH_H
#define DATA_PREFETCH_H

#include "data/sampler.h"

struct prefetch;

struct prefetch_plan {
    int64_t first, stride;
    int rows, seq_len;
    int64_t n_blocks;  /* ready at most; at least n_threads + 1 are used */
    int n_threads;
};

int prefetch_start(struct prefetch **out, struct sampler *s, const struct prefetch_plan *plan, struct plm_status *st);
void prefetch_stop(struct prefetch *p); /* NULL is allowed */

/* Copy the block that begins at sample `first` to *b, waiting for it. *found is false, and *b unchanged, when the plan does not
 * contain it or it has been taken already. Blocks before it are dropped. An error that a thread met in it is returned. */
int prefetch_take(struct prefetch *p, int64_t first, struct batch *b, bool *found, struct plm_status *st);

#endif
