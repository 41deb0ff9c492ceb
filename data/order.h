/* The order of the data as a pure function: (seed, phase, sample number) -> (source, epoch, window, row).
 *
 * The mixture decides the source and how many rows of it came before; that number is the epoch and the position in it. An
 * epoch visits every row once: the windows (documents packed together) in a random order, the rows of ORDER_GROUP
 * neighbouring windows shuffled together, so that a decoded chunk is used up before it is dropped. Every epoch has another
 * order. */
#ifndef DATA_ORDER_H
#define DATA_ORDER_H

#include <stdint.h>

#include "infer/base/status.h"

#define ORDER_GROUP 4 /* windows whose rows are shuffled together */

struct order; /* not thread-safe */

struct order_source {
    double row_share;            /* share of the mixture, in rows; > 0 */
    const int64_t *window_rows;  /* (n_windows), must outlive the order; sum > 0 */
    int64_t n_windows;
};

struct order_place {
    int source;
    int64_t epoch, window, row;
};

int order_create(struct order **out, uint64_t seed, uint32_t phase, const struct order_source *sources, int n_sources,
                 struct plm_status *st);
void order_free(struct order *o);

int order_locate(struct order *o, int64_t sample, struct order_place *place, struct plm_status *st);

/* counts (n_sources): rows drawn of each source by samples [0, n_samples). */
int order_counts(struct order *o, int64_t n_samples, int64_t *counts, struct plm_status *st);

#endif
