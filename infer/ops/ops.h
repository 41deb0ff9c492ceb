/* The operations of the model, as a table of function pointers per kind of processor.
 *
 * ops_select starts from the portable C table, in which every entry is filled, and lets faster tables override entries:
 * a missing kernel is slow, never broken. Matrices are row-major; ld* is the distance between rows in elements. All
 * results are independent of the number of threads: parallelism splits outputs, never sums. */
#ifndef INFER_OPS_OPS_H
#define INFER_OPS_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "infer/base/threads.h"
#include "infer/format/dtype.h"

/* How exactly a product with quantised weights must represent A. Products with f32 weights are always full. */
enum precision {
    PRECISION_FULL, /* float32 activations */
    PRECISION_HIGH, /* 15 bits and a sign: two int8 terms per block of 32, or better */
    PRECISION_FAST, /* at least 8 bits per block of 32 (bf16 for 16-bit weights), or better */
};

/* C (m, n) = alpha * op(A) op(B) [+ C], with op(A) (m, k), op(B) (k, n). */
struct gemm {
    int64_t m, n, k;
    bool trans_a;       /* A is stored (k, m) */
    bool trans_b;       /* B is stored (n, k): a weight matrix [out, in] */
    bool accumulate;    /* add to C instead of overwriting it */
    float alpha;
    const float *a;
    int64_t lda;
    const void *b;      /* b_type other than f32 only with trans_b; rows are then ldb elements apart (whole blocks) */
    int64_t ldb;
    enum dtype b_type;
    const float *b_panels; /* op(B) of f32 once more, as gemm_panels_pack stores it for the table's kernel (infer/ops/cpu/gemm.h); NULL: not there */
    enum precision precision; /* for b_type other than f32 */
    float *c;
    int64_t ldc;
};

/* Absorbed attention of one query over the rows of a latent cache (plm.md 1.4; d2o.md 3.5): for every head h
 *     p_h = softmax_j(scale * q_h . row_j + bias_j);  z_h = sum_j p_h[j] row_j[0 .. rank);  weight_j += sum_h p_h[j]
 * where row_j = [latent (rank), rotated key (rope)] and q_h = [absorbed query (rank), rotated query (rope)]. */
struct latent_attention {
    int n_head, rank, rope;
    const float *q;       /* (n_head, rank + rope) */
    const void *rows;     /* (n, row_bytes): latent, then rotated key, each a whole number of blocks of `type` */
    size_t row_bytes;
    enum dtype type;      /* f32, f16 or q8_0 */
    int64_t n;            /* rows, >= 1 */
    float scale;
    const float *bias;    /* (n) added to the scaled logits, e.g. ln(count); NULL: none */
    float *weight;        /* (n) receives the probabilities summed over the heads, added; NULL: not wanted */
    float *z;             /* (n_head, rank) */
};

/* Attention of some queries of one head over a block of its keys, one block of several: the largest logit and the sum of each query
 * are carried from block to block, and what was added up before is rescaled (Milakov and Gimelshein, "Online normalizer calculation
 * for softmax", 2018). out / sum is the result once all blocks are in. A logit is scale * (q1 . k1 + q2 . k2). */
struct attention_block {
    int64_t m, n;         /* queries, keys */
    int64_t seen;         /* query i sees the first seen + i keys of the block, if that is more than 0, and at most n */
    int width1, width2, v;
    float scale;
    const float *q;       /* (m, ldq): width1, then width2 values */
    int64_t ldq;
    const float *k1, *value; /* (n, ld1): width1 values; v values */
    int64_t ld1;
    const float *k2;      /* (n, ld2): width2 values */
    int64_t ld2;
    float *max, *sum;     /* (m, ld_state): of what went before; -inf and 0 before the first block */
    int64_t ld_state;
    float *out;           /* (m, ldo): v values; 0 before the first block */
    int64_t ldo;
};

/* y[r] (n) = sum over i with x[r][i] != 0 of x[r][i] * W[:, i] [+ y[r]] for m rows: the second half of a sparse MLP, W (n, n_rows)
 * stored neuron by neuron (infer/ops/neuron_major.h), so that only what belongs to active neurons is read. No x may be negative:
 * it is a square. With plain types x stays in float32, with quantised ones it has 15 bits relative to the largest of the neurons
 * that share a scale. A NaN counts as active. A row's result does not depend on the rows beside it. */
struct sparse_rows {
    int64_t m, n_rows, n; /* rows of x and y; neurons; elements of a row of y */
    const float *x;       /* (m, n_rows), rows ldx apart */
    int64_t ldx;
    const void *rows;     /* as neuron_major_pack stores them */
    enum dtype type;
    float *y;             /* (m, n), rows ldy apart */
    int64_t ldy;
    bool accumulate;      /* add to y instead of overwriting it */
    void *scratch;        /* sparse_rows_scratch(m, n_rows) bytes */
};
size_t sparse_rows_scratch(int64_t m, int64_t n_rows);

struct gemm_kernel;

struct ops {
    const char *name; /* "portable"; "avx2", "avx512", "avx512vnni", "avx512bf16", "avx512fp16"; "neon", "neon-dotprod", "neon-i8mm" */

    /* Matrix product, on the pool's threads. m = 1 (and small m) takes the matrix-vector path, bound by the bytes of B. */
    void (*gemm)(const struct gemm *g, struct thread_pool *pool);
    /* The same in the calling thread, for use inside a pool's loop. scratch: gemm_scratch_bytes, 64-byte aligned,
     * one per thread. */
    void (*gemm_serial)(const struct gemm *g, void *scratch);
    size_t (*gemm_scratch_bytes)(void);
    const struct gemm_kernel *kernel; /* of products with f32: it knows how B is packed for them */
    /* What gemm may round activations by, relative to each, where B is bf16 and the precision FAST: half a unit in the last place
     * of bf16 where the table multiplies in bf16, which it need not do for every m; 0: it never does. */
    float bf16_rounding;

    /* Returns the number of active neurons of all rows. The pool's threads split y: every sum runs over the neurons in order. */
    int64_t (*sparse_rows)(const struct sparse_rows *s, struct thread_pool *pool);

    float (*dot)(const float *x, const float *y, int64_t n);
    /* y += a * row, where row holds n elements of `type`. */
    void (*axpy)(float *y, float a, const void *row, enum dtype type, int64_t n);
    /* x *= a */
    void (*scale)(float *x, float a, int64_t n);
    /* y += x */
    void (*add)(float *y, const float *x, int64_t n);
    float (*max)(const float *x, int64_t n); /* n >= 1 */
    /* y[i] = exp(scale * x[i] - shift); returns the sum of y. y may be x. Relative error below 3e-7; -inf gives 0. */
    float (*exp_sum)(float *y, const float *x, int64_t n, float scale, float shift);
    /* Convert a row of n elements to float32 (embedding look-up). */
    void (*to_f32)(float *out, const void *row, enum dtype type, int64_t n);

    /* y = weight * x * rstd, rstd = 1/sqrt(mean(x^2) + eps), for `rows` rows of n (plm.md 1.3). rstd (rows) may be NULL.
     * y may be x. The mean is accumulated in float32 lanes or wider. */
    void (*rms_norm)(float *y, int64_t ldy, float *rstd, const float *x, int64_t ldx, const float *weight, int64_t rows,
                     int64_t n, float eps);
    /* Absorbed attention of n queries (e.g. one per sequence of a batch) on the pool's threads; the result does not depend on
     * their number. scratch: latent_attention_scratch_bytes(items, n_items, pool_size), 64-byte aligned. */
    void (*latent_attention)(const struct latent_attention *items, int n_items, struct thread_pool *pool, void *scratch);
    size_t (*latent_attention_scratch_bytes)(int n_head, int rank, int rope, int64_t total_rows, int n_items, int threads);
    /* The block in the calling thread with logits from integers of 11 bits or more per element (3e-4 of |q| |k| scale), for keys that
     * come from a cache narrower than float32. NULL: the table has none. scratch: attention_narrow_scratch_bytes, 64-byte aligned. */
    void (*attention_narrow)(const struct attention_block *b, void *scratch);
    size_t (*attention_narrow_scratch_bytes)(int64_t n, int width, int v);
    /* y = max(x, 0)^2 */
    void (*relu2)(float *y, const float *x, int64_t n);
    /* Rotate the pairs (x[2i], x[2i+1]) of one vector of n: x'[2i] = x[2i] c[i] - x[2i+1] s[i],
     * x'[2i+1] = x[2i] s[i] + x[2i+1] c[i]. cos, sin: (n/2). */
    void (*rope)(float *x, const float *cos, const float *sin, int64_t n);
};

enum ops_level {
    OPS_PORTABLE,
    OPS_AVX2, OPS_AVX512, OPS_AVX512VNNI, OPS_AVX512BF16, OPS_AVX512FP16, /* x86-64 */
    OPS_NEON, OPS_NEON_DOTPROD, OPS_NEON_I8MM,                            /* 64-bit Arm */
    OPS_BEST
};

/* The table for this processor, at most `level` (of another architecture: the table before); OPS_BEST: the one it is fastest with.
 * Never NULL; the table is static. The environment variable PLM_OPS, a table's name, takes the place of OPS_BEST, for tests and
 * measurements. */
const struct ops *ops_select(enum ops_level level);

#endif
