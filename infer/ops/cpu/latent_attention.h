/* Absorbed attention over latent rows in one pass (struct latent_attention), for all CPU tables.
 *
 * The rows of an item are cut into parts by their number alone, so that the result does not depend on the threads. A part keeps,
 * per head, the running maximum, the sum and the unnormalised z of its rows (online softmax: Milakov and Gimelshein,
 * arXiv 1805.02867); the parts are merged in order. */
#ifndef INFER_OPS_CPU_LATENT_ATTENTION_H
#define INFER_OPS_CPU_LATENT_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include "infer/ops/cpu/gemm.h"

/* What a part of the rows of an item gives: z_h = sum_j exp(logit_hj - max_h) latent_j. */
struct latent_part {
    const struct latent_attention *item;
    int64_t begin, end;
    float *max;    /* (n_head); -inf when all rows are masked, then sum and z are 0 */
    float *sum;    /* (n_head) */
    float *z;      /* (n_head, rank) */
    float *logits; /* (n_head, end - begin) receives the scaled and biased logits; NULL: not wanted */
};

/* The first 64 bytes of a thread's scratch memory. */
struct latent_prepared {
    const struct latent_attention *item; /* whose queries the memory behind holds in the kernel's form; NULL when a call begins */
};

struct latent_kernel {
    const struct gemm_kernel *gemm;
    float (*max)(const float *x, int64_t n); /* these three as in struct ops */
    float (*exp_sum)(float *y, const float *x, int64_t n, float scale, float shift);
    void (*axpy)(float *y, float a, const void *row, enum dtype type, int64_t n);
    /* Fill one part; NULL: latent_part_gemm. scratch: part_scratch_bytes(n_head, rank + rope), 64-byte aligned, beginning with a
     * struct latent_prepared; one per thread. */
    void (*part)(const struct latent_kernel *kernel, const struct latent_part *part, void *scratch);
    size_t (*part_scratch_bytes)(const struct latent_kernel *kernel, int n_head, int dim);
};

/* The latent_attention entries of struct ops for a kernel. */
void latent_attention_run(const struct latent_kernel *kernel, const struct latent_attention *items, int n_items,
                          struct thread_pool *pool, void *scratch);
size_t latent_attention_bytes(const struct latent_kernel *kernel, int n_head, int rank, int rope, int64_t total_rows, int n_items,
                              int threads);

/* A part with the register tile of a matrix product: any shape, any row type. */
void latent_part_gemm(const struct latent_kernel *kernel, const struct latent_part *part, void *scratch);
size_t latent_part_gemm_bytes(const struct latent_kernel *kernel, int n_head, int dim);

extern const struct latent_kernel latent_kernel_avx512; /* x86-64 builds only */

/* The entries of the AVX-512 VNNI table: parts in 16-bit integers for f16 and q8_0 rows whose rank and rope are whole blocks of 32, for
 * all others as the AVX-512 table. */
void vnni_latent_attention(const struct latent_attention *items, int n_items, struct thread_pool *pool, void *scratch);
size_t vnni_latent_attention_scratch_bytes(int n_head, int rank, int rope, int64_t total_rows, int n_items, int threads);

#endif
