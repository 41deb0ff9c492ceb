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

/* y = sum over i with x[i] != 0 of x[i] * row_i [+ y]: the second half of a sparse MLP, with the weights stored neuron by
 * neuron (the transpose of ffn_down), so that only the rows of active neurons are read. x stays in float32, whatever the type
 * of the rows. A NaN counts as active. */
struct sparse_rows {
    int64_t n_rows, n;    /* neurons; elements per row */
    const float *x;       /* (n_rows) */
    const void *rows;     /* (n_rows, ld) elements of `type`; ld a whole number of blocks, at least n */
    enum dtype type;
    int64_t ld;
    float *y;             /* (n) */
    bool accumulate;      /* add to y instead of overwriting it */
    int32_t *active;      /* (n_rows) receives the indices of the active rows, ascending; the rest is overwritten */
};

struct ops {
    const char *name; /* "portable", "avx2", "avx512", "avx512vnni", "avx512bf16" */

    /* Matrix product, on the pool's threads. m = 1 (and small m) takes the matrix-vector path, bound by the bytes of B. */
    void (*gemm)(const struct gemm *g, struct thread_pool *pool);
    /* The same in the calling thread, for use inside a pool's loop. scratch: gemm_scratch_bytes, 64-byte aligned,
     * one per thread. */
    void (*gemm_serial)(const struct gemm *g, void *scratch);
    size_t (*gemm_scratch_bytes)(void);

    /* Returns the number of active rows. The pool's threads split the columns: every sum runs over the rows in order. */
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
    /* y = max(x, 0)^2 */
    void (*relu2)(float *y, const float *x, int64_t n);
    /* Rotate the pairs (x[2i], x[2i+1]) of one vector of n: x'[2i] = x[2i] c[i] - x[2i+1] s[i],
     * x'[2i+1] = x[2i] s[i] + x[2i+1] c[i]. cos, sin: (n/2). */
    void (*rope)(float *x, const float *cos, const float *sin, int64_t n);
};

enum ops_level { OPS_PORTABLE, OPS_AVX2, OPS_AVX512, OPS_AVX512VNNI, OPS_AVX512BF16, OPS_BEST };

/* The table for this processor, at most `level`; OPS_BEST: the one it is fastest with. Never NULL; the table is static. The
 * environment variable PLM_OPS, a table's name, takes the place of OPS_BEST, for tests and measurements. */
const struct ops *ops_select(enum ops_level level);

#endif
