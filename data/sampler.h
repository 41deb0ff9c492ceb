/* Samples by number: where the order, the packing of the sources and the decoded chunks come together. Shared by threads. */
#ifndef DATA_SAMPLER_H
#define DATA_SAMPLER_H

#include "data/stream.h"

struct sampler;
struct sampler_thread; /* scratch memory of one thread */

int sampler_open(struct sampler **out, const struct stream_options *o, struct plm_status *st);
void sampler_close(struct sampler *s);

int sampler_thread_create(struct sampler_thread **out, struct sampler *s, struct plm_status *st);
void sampler_thread_free(struct sampler_thread *t);

/* Fill b with the samples [first, first + b->rows). */
int sampler_fill(struct sampler_thread *t, int64_t first, struct batch *b, struct plm_status *st);

/* See stream_usage. */
int sampler_usage(struct sampler *s, int source, int64_t n_samples, struct stream_usage *out, struct plm_status *st);

#endif
