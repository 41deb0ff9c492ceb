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
    float *c;
    int64_t ldc;
};

struct ops {
    const char *name; /* "portable", "avx2", "avx512" */

    /* Matrix product, on the pool's threads. m = 1 (and small m) takes the matrix-vector path, bound by the bytes of B. */
    void (*gemm)(const struct gemm *g, struct thread_pool *pool);
    /* The same in the calling thread, for use inside a pool's loop. scratch: gemm_scratch_bytes, 64-byte aligned,
     * one per thread. */
    void (*gemm_serial)(const struct gemm *g, void *scratch);
    size_t (*gemm_scratch_bytes)(void);

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
    /* y = max(x, 0)^2 */
    void (*relu2)(float *y, const float *x, int64_t n);
    /* Rotate the pairs (x[2i], x[2i+1]) of one vector of n: x'[2i] = x[2i] c[i] - x[2i+1] s[i],
     * x'[2i+1] = x[2i] s[i] + x[2i+1] c[i]. cos, sin: (n/2). */
    void (*rope)(float *x, const float *cos, const float *sin, int64_t n);
};

enum ops_level { OPS_PORTABLE, OPS_AVX2, OPS_AVX512, OPS_BEST };

/* The table for this processor, at most `level`. Never NULL; the table is static. The environment variable PLM_OPS
 * (portable, avx2, avx512) lowers OPS_BEST, for tests and measurements. */
const struct ops *ops_select(enum ops_level level);

#endif
