/* The sparse_rows entry of every CPU table: columns are split over the threads, each adds its part of every active row. */
#ifndef INFER_OPS_CPU_SPARSE_ROWS_H
#define INFER_OPS_CPU_SPARSE_ROWS_H

#include "infer/ops/ops.h"

/* axpy: as in struct ops, of the instruction set. */
int64_t sparse_rows_run(const struct sparse_rows *s, struct thread_pool *pool,
                        void (*axpy)(float *y, float a, const void *row, enum dtype type, int64_t n));

#endif
