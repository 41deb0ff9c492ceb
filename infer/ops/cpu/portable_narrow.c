/* Quantised weights in portable C: integer products of blocks of 32, which compilers turn into whatever the target has. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "infer/format/kquants.h"
#include "infer/ops/cpu/narrow.h"

/* A converted row: per block of 32 the scale, the integers of either precision as 16 bits, and the scaled sum of them. */
struct block_a {
    float d, sum;
    int16_t q[32];
};

static bool takes(const struct gemm *g)
{
    return dtype_is_quantized(g->b_type) && g->m <= NARROW_MAX_M;
}

static int64_t padded_blocks(int64_t k)
{
    return (k + NARROW_PAD - 1) / NARROW_PAD * (NARROW_PAD / 32);
}

static size_t a_bytes(int64_t k, const struct narrow_format *f)
{
    (void)f;
    return ((size_t)padded_blocks(k) * sizeof(struct block_a) + 63) / 64 * 64;
}
_Static_assert(NARROW_MAX_M * sizeof(struct block_a) * (NARROW_MAX_K / 32) <= NARROW_SCRATCH, "rows of A fit into the scratch");

static void convert_block(struct block_a *to, const float *x, int count, float levels)
{
    float largest = 0;
    bool finite = true;
    for (int i = 0; i < count; i++) {
        float a = fabsf(x[i]);
        finite &= a <= FLT_MAX;
        largest = a > largest ? a : largest;
    }
    memset(to, 0, sizeof *to);
    if (!finite) {
        to->d = to->sum = NAN; /* the damage stays visible */
    } else if (largest > 0x1p-100f) { /* below, the reciprocal could overflow; the block counts as zero */
        float inverse = levels / largest;
        int sum = 0;
        for (int i = 0; i < count; i++) {
            to->q[i] = (int16_t)rintf(x[i] * inverse);
            sum += to->q[i];
        }
        to->d = largest / levels;
        to->sum = to->d * (float)sum;
    }
}

static void convert_a(void *to, const float *x, int64_t k, const struct narrow_format *f)
{
    struct block_a *blocks = to;
    for (int64_t b = 0; b < padded_blocks(k); b++) {
        int64_t left = k - 32 * b;
        convert_block(&blocks[b], left > 0 ? x + 32 * b : x, left >= 32 ? 32 : left > 0 ? (int)left : 0,
                      f->precision == PRECISION_HIGH ? 127.0f * 128.0f : 127.0f);
    }
}

/* The sum of n products. n is a constant where this is inlined. */
static inline int dot(const int16_t *a, const int16_t *b, int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Signed digits of q8_0 or q4_0, unsigned ones of q4_K. */
static void digits_32(int16_t out[32], const void *row, enum dtype type, int64_t block)
{
    if (type == DTYPE_Q8_0) {
        const int8_t *q = ((const struct block_q8_0 *)row)[block].q;
        for (int i = 0; i < 32; i++)
            out[i] = q[i];
    } else if (type == DTYPE_Q4_0) {
        const uint8_t *q = ((const struct block_q4_0 *)row)[block].q;
        for (int i = 0; i < 16; i++) {
            out[i] = (int16_t)((q[i] & 15) - 8);
            out[i + 16] = (int16_t)((q[i] >> 4) - 8);
        }
    } else {
        const uint8_t *q = ((const struct block_q4_k *)row)[block / 8].q + block % 8 / 2 * 32;
        int shift = block & 1 ? 4 : 0;
        for (int i = 0; i < 32; i++)
            out[i] = q[i] >> shift & 15;
    }
}

static void dot_32(float *out, const void *row, enum dtype type, const char *a, size_t bytes, int m, int64_t k)
{
    int64_t n = (k + 31) / 32;
    int16_t q[32];
    for (int64_t b = 0; b < n; b++) {
        float d = type == DTYPE_Q8_0 ? f16_to_f32(((const struct block_q8_0 *)row)[b].d)
                                     : f16_to_f32(((const struct block_q4_0 *)row)[b].d);
        digits_32(q, row, type, b);
        for (int i = 0; i < m; i++) {
            const struct block_a *block = (const struct block_a *)(const void *)(a + (size_t)i * bytes) + b;
            out[i] += d * block->d * (float)dot(block->q, q, 32);
        }
    }
}

static void dot_q4_k(float *out, const void *row, const char *a, size_t bytes, int m, int64_t k)
{
    int16_t q[32];
    for (int64_t at = 0; at < k; at += 256) {
        const struct block_q4_k *super = (const struct block_q4_k *)row + at / 256;
        uint8_t scale[8], minimum[8];
        q4_k_scales(super, scale, minimum);
        float d = f16_to_f32(super->d), dmin = f16_to_f32(super->dmin);
        for (int b = 0; b < 8; b++) {
            digits_32(q, row, DTYPE_Q4_K, at / 32 + b);
            for (int i = 0; i < m; i++) {
                const struct block_a *block = (const struct block_a *)(const void *)(a + (size_t)i * bytes) + at / 32 + b;
                out[i] += d * (float)scale[b] * block->d * (float)dot(block->q, q, 32) - dmin * (float)minimum[b] * block->sum;
            }
        }
    }
}

static void dot_q6_k(float *out, const void *row, const char *a, size_t bytes, int m, int64_t k)
{
    int16_t q[256];
    for (int64_t at = 0; at < k; at += 256) {
        const struct block_q6_k *super = (const struct block_q6_k *)row + at / 256;
        float d = f16_to_f32(super->d);
        for (int i = 0; i < 128; i++) {
            int half = i / 64 * 128, l = i % 64, high = super->qh[i / 64 * 32 + l % 32] >> (l / 32 * 2);
            q[half + l] = (int16_t)(((super->ql[i] & 15) | (high & 3) << 4) - 32);
            q[half + 64 + l] = (int16_t)((super->ql[i] >> 4 | (high >> 4 & 3) << 4) - 32);
        }
        for (int i = 0; i < m; i++) {
            const struct block_a *block = (const struct block_a *)(const void *)(a + (size_t)i * bytes) + at / 32;
            for (int b = 0; b < 16; b++)
                out[i] += d * (float)super->scales[b] * block[b / 2].d * (float)dot(block[b / 2].q + b % 2 * 16, q + 16 * b, 16);
        }
    }
}

static void row_dot(float *out, const void *row, const void *a, size_t bytes, int m, int64_t k, const struct narrow_format *f)
{
    memset(out, 0, (size_t)m * sizeof *out);
    if (f->type == DTYPE_Q4_K)
        dot_q4_k(out, row, a, bytes, m, k);
    else if (f->type == DTYPE_Q6_K)
        dot_q6_k(out, row, a, bytes, m, k);
    else
        dot_32(out, row, f->type, a, bytes, m, k);
}

const struct narrow_kernel narrow_kernel_portable = {
    .takes = takes, .a_bytes = a_bytes, .convert_a = convert_a, .row_dot = row_dot};
