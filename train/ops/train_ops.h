/* Backward twins of the row-wise operations in infer/ops/ops.h. (The backward of a matrix product is two matrix products.)
 *
 * One source, kernels.c, is compiled once per instruction set; train_ops_select picks the table for this processor. */
#ifndef TRAIN_OPS_TRAIN_OPS_H
#define TRAIN_OPS_TRAIN_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "infer/ops/ops.h"

struct train_ops {
    const char *name;

    /* y = w * x * rstd. For `rows` rows of n: dx (+)= rstd * (w dy - xhat * mean(w dy xhat)), xhat = x rstd. */
    void (*rms_norm_dx)(float *dx, int64_t lddx, bool accumulate, const float *dy, int64_t lddy, const float *x, int64_t ldx,
                        const float *weight, const float *rstd, int64_t rows, int64_t n);
    /* Columns [begin, end): dw += sum over rows of dy * x * rstd, rows in ascending order. */
    void (*rms_norm_dw)(float *dw, const float *dy, int64_t lddy, const float *x, int64_t ldx, const float *rstd, int64_t rows,
                        int64_t begin, int64_t end);
    /* m = max(u, 0)^2: du = 2 max(u, 0) dm; du may be dm. */
    void (*relu2_backward)(float *du, const float *dm, const float *u, int64_t n);
    /* p = softmax(s * scale): ds = p * (dp - dot) * scale, dot = sum(p * dp); ds may be dp. */
    void (*softmax_backward)(float *ds, const float *p, const float *dp, float dot, float scale, int64_t n);
};

extern const struct train_ops train_ops_portable; /* kernels.c, compiled for each */
#ifdef __x86_64__
extern const struct train_ops train_ops_avx2, train_ops_avx512;
#endif

/* The table for the instruction set that `ops` uses. */
const struct train_ops *train_ops_select(const struct ops *ops);

#endif
