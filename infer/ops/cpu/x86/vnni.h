/* What the two halves of the AVX-512 VNNI kernels share: the layout of a converted row of A.
 *
 * A block of 32 elements is represented as d * q, with q = hi in [-127, 127] (PRECISION_FAST) or q = 128 hi + lo, |q| <= 127 *
 * 128, lo in [-64, 63] (PRECISION_HIGH). vpdpbusd multiplies unsigned by signed bytes. The digits of B are its unsigned side: of
 * q8_0, q4_0 and q6_K shifted to be value / scale + 128, the 128 * sum(q) too much is taken off in advance by starting the sums
 * at `offset`; of q4_K the plain digits, whose minimum goes through `sum`. */
#ifndef INFER_OPS_CPU_X86_VNNI_H
#define INFER_OPS_CPU_X86_VNNI_H

#include <immintrin.h>

#include "infer/ops/cpu/narrow.h"

struct vnni_row {
    const int8_t *hi, *lo;  /* (k) */
    const float *d;         /* (k / 32) */
    const float *sum;       /* (k / 32): d * sum of q */
    const int32_t *offset;  /* rows of B in place: (k / 4), per lane; panels: per 32 elements, for q6_K per 16 */
};

static inline int64_t vnni_padded(int64_t k)
{
    return (k + NARROW_PAD - 1) / NARROW_PAD * NARROW_PAD;
}

/* k: padded. The sizes are multiples of 64 bytes. */
static inline struct vnni_row vnni_row(const void *a, int64_t k)
{
    const char *p = a;
    return (struct vnni_row){(const int8_t *)p, (const int8_t *)p + k, (const float *)(p + 2 * k),
                             (const float *)(p + 2 * k + k / 8), (const int32_t *)(p + 2 * k + k / 4)};
}

/* Blocks of 32 of a B with k terms. */
static inline int64_t vnni_blocks(int64_t k)
{
    return (k + 31) / 32;
}

void vnni_pack(void *panel, const void *rows, size_t row_bytes, int columns, int64_t p, int64_t n, const struct narrow_format *f);
void vnni_tile(float *c, int64_t ldc, const void *a, size_t a_bytes, int rows, const void *panel, int columns, int64_t p,
               int64_t n, int64_t k, float alpha, bool accumulate, const struct narrow_format *f);
enum { VNNI_MR = 6 };

/* Entries of struct ops. */
void vnni_attention_narrow(const struct attention_block *b, void *scratch);
size_t vnni_attention_narrow_scratch_bytes(int64_t n, int width, int v);

/* out (rows, ldo) += unit * p value in half precision, for 12, 4 or 1 rows and `columns` columns of out, at most VNNI_HALVES. */
enum { VNNI_HALVES = 64 };
struct half_values {
    int rows;
    int64_t n, columns;
    const uint32_t *p;     /* (rows, ldp): n halves, each twice */
    int64_t ldp;
    const uint16_t *value; /* (n, VNNI_HALVES) at most 1 */
    float unit;
    float *out;
    int64_t ldo;
};

/* The same with that function in the place of float32 products; NULL: none. */
void vnni_attention(const struct attention_block *b, void *scratch, void (*add_values)(const struct half_values *h));

#endif
