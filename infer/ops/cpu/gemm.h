/* The packed, cache-blocked matrix product behind the gemm entries of every CPU table, after BLIS (Van Zee and van de
 * Geijn, "BLIS: a framework for rapidly instantiating BLAS functionality", ACM TOMS 2015): five loops around a register
 * tile. One driver serves all instruction sets; what differs is a struct gemm_kernel. */
#ifndef INFER_OPS_CPU_GEMM_H
#define INFER_OPS_CPU_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "infer/ops/ops.h"

enum {
    GEMM_MAX_MR = 16,  /* bounds of the blocks of any kernel, see gemm_kernel_valid */
    GEMM_MAX_NR = 48,
    GEMM_MAX_KC = 512,
    GEMM_CONVERT = 64, /* elements of a row converted to f32 at a time, if that is a whole number of blocks */
    GEMM_MAX_BLOCK = 256, /* elements of the largest block of a type */
    GEMV_MAX_M = 8,    /* products with at most so many rows take the matrix-vector path */
};

struct gemm_kernel {
    int mr, nr;     /* the register tile: mr rows, nr columns of C */
    int mc, kc, nc; /* cache blocks: A (mc, kc) stays in L2, a panel of B (kc, nr) in L1, B (kc, nc) in L2 or L3 */

    /* C (rows, cols) = alpha * sum_p a[p * lda + i] * b[p * ldb + j] [+ C], rows <= mr, cols <= nr, k >= 1. The sum runs
     * over p in order for every element whatever rows and cols are: the position of a tile cannot change a result. alpha comes
     * by address so that it takes no register while the sum runs. */
    void (*tile)(int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc, int rows,
                 int cols, const float *alpha, bool accumulate);
    /* A whole tile of packed operands; meanwhile k lines of 64 bytes from `ahead` on are fetched into L2. NULL: there is none. */
    void (*tile_ahead)(int64_t k, const float *a, const float *b, const float *ahead, float *c, int64_t ldc, const float *alpha, bool accumulate);
    /* Panel packing: to[p * width + i] = from[i * ld + p] (rows to panel) or from[p * ld + i] (columns to panel), for
     * 0 <= i < count <= width, 0 <= p < k. What lands in i >= count is unspecified and never read into a result. */
    void (*pack_rows)(float *to, int width, const float *from, int64_t ld, int count, int64_t k);
    void (*pack_columns)(float *to, int width, const float *from, int64_t ld, int count, int64_t k);
    /* As in struct ops. */
    void (*to_f32)(float *out, const void *row, enum dtype type, int64_t n);
    /* out[i] = dot(row, a + i * lda) over k elements for i < m <= GEMV_MAX_M; each element of row is read once from memory. */
    void (*row_dot)(float *out, const void *row, enum dtype type, const float *a, int64_t lda, int m, int64_t k);
};

/* The gemm, gemm_serial and gemm_scratch_bytes entries of struct ops for a kernel. gemm keeps one workspace per thread,
 * allocated on first use and freed when the thread ends; without memory it works tile by tile on the stack, with the
 * same results. */
void gemm_parallel(const struct gemm_kernel *kernel, const struct gemm *g, struct thread_pool *pool);
void gemm_serial(const struct gemm_kernel *kernel, const struct gemm *g, void *scratch);
size_t gemm_scratch_bytes(const struct gemm_kernel *kernel);

/* op(B) (k, n) of float32 as its panels, for struct gemm's b_panels: they are packed once instead of at every product. */
size_t gemm_panels_bytes(const struct gemm_kernel *kernel, int64_t n, int64_t k);
/* to: 64-byte aligned. Uses g's n, k, b, ldb and trans_b. */
void gemm_panels_pack(const struct gemm_kernel *kernel, const struct gemm *g, float *to, struct thread_pool *pool);

/* The calling thread's workspace with at least `bytes`, 64-byte aligned, as of the last call; NULL without memory. */
void *gemm_workspace(size_t bytes);

/* Whether the block sizes keep the driver's promises: multiples of the tile, within the bounds above. */
bool gemm_kernel_valid(const struct gemm_kernel *kernel);

extern const struct gemm_kernel gemm_kernel_portable;
extern const struct gemm_kernel gemm_kernel_avx2;   /* x86-64 builds only */
extern const struct gemm_kernel gemm_kernel_avx512; /* x86-64 builds only */
extern const struct gemm_kernel gemm_kernel_neon;   /* 64-bit Arm builds only */

#endif
