/* AdamW (Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019) over ranges of a float arena. */
#ifndef OPTIM_ADAMW_H
#define OPTIM_ADAMW_H

#include "infer/base/threads.h"
#include "infer/model/tensor_table.h"

struct adamw {
    double beta1, beta2; /* decay of the first and second moment, in [0, 1) */
    double eps;          /* > 0, added to the root of the corrected second moment */
    double weight_decay; /* >= 0, for tensors with tensor_desc.decay */
};

/* beta1 0.9, beta2 0.95, eps 1e-8, weight_decay 0.1. */
struct adamw adamw_default(void);

/* Ranges as above; the message names the first value that is out of range. */
int adamw_check(const struct adamw *o, struct plm_status *st);

/* Arena elements [begin, end) and what belongs to them. A rank that owns a part of the optimizer state passes that part:
 * every pointer is to the element `begin` of its arena and has end - begin elements. */
struct adamw_range {
    int64_t begin, end; /* 0 and tensor_table.padded for everything */
    float *params;      /* (end - begin) updated in place */
    const float *grads; /* (end - begin) sums, before grad_scale */
    float *m, *v;       /* (end - begin) first and second moment, zero before the first update */
};

/* Update number t (from 1) with learning rate lr; g = grad_scale * grads, grad_scale = clip factor / total weight:
 *
 *     m <- beta1 m + (1 - beta1) g ;  v <- beta2 v + (1 - beta2) g^2
 *     w <- w - lr (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay w)
 *
 * Padding between tensors is not touched. Elements are independent: the result depends neither on the number of threads
 * nor on how the arena is cut into ranges. */
void adamw_update(const struct adamw *o, const struct tensor_table *table, const struct adamw_range *range, int64_t t,
                  double lr, double grad_scale, struct thread_pool *pool);

#endif
