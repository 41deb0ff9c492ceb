/* Which source sample number k is drawn from: the quota method of Tijdeman ("The chairman assignment problem", 1980). In
 * every prefix of the sequence the number of samples of each source is within one of its share; the plain largest-error
 * rule promises that only for two sources. Exact integer arithmetic: the same on every machine. */
#ifndef DATA_MIXTURE_H
#define DATA_MIXTURE_H

#include <stdint.h>

#include "infer/base/status.h"

struct mixture; /* not thread-safe: it remembers where it was */

/* shares: positive, normalised here; a share is kept to 2^-30 of the whole, and is at least that. */
int mixture_create(struct mixture **out, const double *shares, int n_sources, struct plm_status *st);
void mixture_free(struct mixture *m);

/* Source of sample k >= 0, and how many samples before k were of it. Going on from the last k is cheap; going back costs at
 * most some thousand steps, jumping ahead one step (nanoseconds) a sample. */
int mixture_locate(struct mixture *m, int64_t k, int *source, int64_t *drawn, struct plm_status *st);

/* counts (n_sources): samples of each source among [0, k). */
int mixture_counts(struct mixture *m, int64_t k, int64_t *counts, struct plm_status *st);

#endif
