/* plm bench gemm --type: products with weights of one stored type, against what the machine allows. */
#ifndef TOOLS_BENCH_WEIGHTS_H
#define TOOLS_BENCH_WEIGHTS_H

#include <stdbool.h>

#include "infer/ops/ops.h"

struct bench_weights {
    enum dtype type;
    int rows; /* of activations; 0: 1 and 512 */
    bool json;
};

/* Measure and print. One row: GB/s of weights read, next to a plain read of the same bytes. More rows: GOP/s (a multiply-add is two),
 * next to a loop of nothing but the multiply-adds that the kernels use. Runs take turns, medians are shown. */
int bench_weights_run(const struct bench_weights *options, const struct ops *ops, struct thread_pool *pool, struct plm_status *st);

#endif
