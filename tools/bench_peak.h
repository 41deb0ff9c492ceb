/* What this machine can do at most, for the benchmarks to compare with. */
#ifndef TOOLS_BENCH_PEAK_H
#define TOOLS_BENCH_PEAK_H

#include <stddef.h>

#include "infer/base/threads.h"
#include "infer/ops/ops.h"

/* The float32 multiply-add peak in GFLOP/s of the instruction set of a table, all threads of the pool together. */
double bench_fma_peak(const struct ops *ops, struct thread_pool *pool);

/* GOP/s of the multiply-adds that the table's kernels spend on weights of a type, and their name: "int8", "bf16" or "f32". */
double bench_type_peak(const struct ops *ops, enum dtype type, struct thread_pool *pool, const char **name);

/* GB/s of a plain read of `bytes` (64-byte aligned, a multiple of 64), each thread its own piece. */
double bench_read_rate(const void *from, size_t bytes, struct thread_pool *pool);

/* The median; sorts the values. */
double bench_median(double *values, int n);

#endif
