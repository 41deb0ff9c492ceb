/* Products whose activations are made as narrow as struct gemm's precision allows: integers of 8 or 15 bits for quantised
 * weights, bf16 for bf16 weights. A is converted once; with up to NARROW_MAX_M rows each row of B is read in place, with more,
 * panels of B are unpacked and used for all rows of A. What differs between instruction sets is a struct narrow_kernel. */
#ifndef INFER_OPS_CPU_NARROW_H
#define INFER_OPS_CPU_NARROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "infer/ops/cpu/gemm.h"

enum {
    NARROW_MAX_M = 4,     /* rows of A in a matrix-vector product */
    NARROW_MAX_K = 32768, /* longer sums take the float32 path: bounds the memory for a row of A */
    NARROW_PAD = 512,     /* the kernels see rows of A padded with zeros to a multiple of this */
    NARROW_KC = 512,      /* terms per panel of B */
    NARROW_NR = 32,       /* columns per panel of B */
    NARROW_PANEL_BYTES =
        NARROW_KC * NARROW_NR * 2 + NARROW_KC / 16 * NARROW_NR * 8, /* the largest panel: bf16, or digits with scales */
};

/* The type of B, how A is represented, and for which of the two algorithms. */
struct narrow_format {
    enum dtype type;
    enum precision precision;
    bool panels; /* A is used against panels; otherwise against rows of B in place */
};

struct narrow_kernel {
    /* Whether the kernel has this product; called only for trans_b, not trans_a, 0 < k <= NARROW_MAX_K, precision below full. */
    bool (*takes)(const struct gemm *g);

    /* Bytes of a converted row of A of k elements, a multiple of 64, and the conversion. */
    size_t (*a_bytes)(int64_t k, const struct narrow_format *f);
    void (*convert_a)(void *to, const float *x, int64_t k, const struct narrow_format *f);

    /* out[i] = dot(row of B, row i of A) for i < m <= NARROW_MAX_M, rows of A a_bytes apart. */
    void (*row_dot)(float *out, const void *row, const void *a, size_t a_bytes, int m, int64_t k, const struct narrow_format *f);

    /* The following may be NULL: then takes() declines more than NARROW_MAX_M rows. */
    int mr; /* rows of A in a tile */
    /* Unpack terms [p, p + n) of `columns` rows of B, p a multiple of NARROW_KC; columns that do not exist become zeros. */
    void (*pack)(void *panel, const void *rows, size_t row_bytes, int columns, int64_t p, int64_t n,
                 const struct narrow_format *f);
    /* C (rows, columns) = alpha * A panel [+ C] over the terms [p, p + n); k as given to a_bytes. */
    void (*tile)(float *c, int64_t ldc, const void *a, size_t a_bytes, int rows, const void *panel, int columns, int64_t p,
                 int64_t n, int64_t k, float alpha, bool accumulate, const struct narrow_format *f);
};

/* Compute g if the kernel takes it and, for narrow_gemm, there is memory for A; false: the caller uses its float32 product.
 * Results do not depend on the threads. scratch: at least NARROW_SCRATCH bytes, 64-byte aligned. */
bool narrow_gemm(const struct narrow_kernel *kernel, const struct gemm *g, struct thread_pool *pool);
bool narrow_gemm_serial(const struct narrow_kernel *kernel, const struct gemm *g, void *scratch);

/* Enough for any A of NARROW_MAX_M rows and any tile's rows. */
#define NARROW_SCRATCH ((size_t)12 * NARROW_MAX_K * 13 / 4)

extern const struct narrow_kernel narrow_kernel_portable;
extern const struct narrow_kernel narrow_kernel_avx2;       /* x86-64 builds only, as the following */
extern const struct narrow_kernel narrow_kernel_avx512vnni;
extern const struct narrow_kernel narrow_kernel_avx512bf16;

#endif
