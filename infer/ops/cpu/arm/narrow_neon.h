/* What the integer kernels for Arm share: the layout of a converted row of A, and the digits and scales of the quantised types.
 *
 * A block of 32 elements of A is d * q, with q = hi in [-127, 127] (PRECISION_FAST) or q = 128 hi + lo, lo in [-64, 63]
 * (PRECISION_HIGH). Digits are signed bytes. Those of q4_0 are made in the upper four bits of a byte and those of q6_K in the
 * upper six, i.e. 16 and 4 times as large, which saves a subtraction; digit_unit undoes it. Those of q4_K are as stored, and the
 * minimums go through `sum`. */
#ifndef INFER_OPS_CPU_ARM_NARROW_NEON_H
#define INFER_OPS_CPU_ARM_NARROW_NEON_H

#include <arm_neon.h>
#include <string.h>

#include "infer/ops/cpu/narrow.h"
#include "infer/ops/cpu/sparse_rows.h"
#include "infer/ops/cpu/x86/compiler.h"

struct narrow_row {
    const int8_t *hi, *lo; /* (k); lo only with PRECISION_HIGH */
    const float *d, *sum;  /* (k / 32): the scale, and d * sum of q */
};

static inline int64_t narrow_padded(int64_t k)
{
    return (k + NARROW_PAD - 1) / NARROW_PAD * NARROW_PAD;
}

/* k: padded. Every part is a multiple of 64 bytes. */
static inline struct narrow_row narrow_row(const void *a, int64_t k)
{
    const char *p = a;
    return (struct narrow_row){(const int8_t *)p, (const int8_t *)p + k + k / 4, (const float *)(const void *)(p + k),
                               (const float *)(const void *)(p + k + k / 8)};
}

/* Of narrow_kernel, for every Arm. */
size_t neon_a_bytes(int64_t k, const struct narrow_format *f);
void neon_convert_a(void *to, const float *x, int64_t k, const struct narrow_format *f);
/* With sdot. */
void neon_dotprod_row_dot(float *out, const void *row, const void *a, size_t a_bytes, int m, int64_t k,
                          const struct narrow_format *f);
/* Of struct sparse_kernel, for every Arm. */
void neon_sparse_group(float *y, const struct sparse_product *p, int64_t begin, int64_t end);
/* Of struct ops. */
size_t neon_gemm_scratch_bytes(void);

extern const struct narrow_kernel narrow_kernel_neon, narrow_kernel_neon_dotprod, narrow_kernel_neon_i8mm;

/* sum += a . b in four lanes of four. Without the instruction for it, pairs are summed in 16 bits: at most 2 * 128 * 127. */
static ALWAYS_INLINE int32x4_t dot_16(int32x4_t sum, int8x16_t a, int8x16_t b)
{
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(sum, a, b);
#else
    return vpadalq_s16(sum, vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), a, b));
#endif
}

/* Sixteen digits of a q6_K row: the high bits already at the top of their byte, the low ones in the upper half of theirs. */
static ALWAYS_INLINE int8x16_t q6_k_join(uint8x16_t high, uint8x16_t low)
{
    return vreinterpretq_s8_u8(vsriq_n_u8(high, low, 2));
}

/* The digits of elements [at, at + 32) of a row. */
static ALWAYS_INLINE void digits_32(int8x16_t to[2], const void *row, const enum dtype type, uint64_t at)
{
    if (type == DTYPE_Q8_0) {
        const struct block_q8_0 *block = (const struct block_q8_0 *)row + at / 32;
        to[0] = vld1q_s8(block->q);
        to[1] = vld1q_s8(block->q + 16);
    } else if (type == DTYPE_Q4_0) { /* 0 .. 15 less 8 is the nibble with its highest bit flipped, as a signed number */
        const uint8x16_t q = veorq_u8(vld1q_u8(((const struct block_q4_0 *)row + at / 32)->q), vdupq_n_u8(0x88));
        to[0] = vreinterpretq_s8_u8(vshlq_n_u8(q, 4));
        to[1] = vreinterpretq_s8_u8(vandq_u8(q, vdupq_n_u8(0xF0)));
    } else if (type == DTYPE_Q4_K) {
        const uint8_t *q = ((const struct block_q4_k *)row + at / 256)->q + at % 256 / 64 * 32;
        UNROLL
        for (int i = 0; i < 2; i++) {
            const uint8x16_t both = vld1q_u8(q + 16 * i);
            to[i] = vreinterpretq_s8_u8(at % 64 ? vshrq_n_u8(both, 4) : vandq_u8(both, vdupq_n_u8(15)));
        }
    } else {
        const struct block_q6_k *block = (const struct block_q6_k *)row + at / 256;
        const int half = (int)(at % 256 / 128), quarter = (int)(at % 128 / 32);
        UNROLL
        for (int i = 0; i < 2; i++) {
            const uint8x16_t low = vld1q_u8(block->ql + 64 * half + quarter % 2 * 32 + 16 * i);
            const uint8x16_t high = veorq_u8(vld1q_u8(block->qh + 32 * half + 16 * i), vdupq_n_u8(0xAA));
            const uint8x16_t nibble = quarter < 2 ? vshlq_n_u8(low, 4) : vandq_u8(low, vdupq_n_u8(0xF0));
            to[i] = q6_k_join(quarter == 0   ? vshlq_n_u8(high, 6)
                              : quarter == 1 ? vshlq_n_u8(high, 4)
                              : quarter == 2 ? vshlq_n_u8(high, 2)
                                             : high,
                              nibble);
        }
    }
}

/* What a digit of digits_32 stands for, before its scale. */
static inline float digit_unit(enum dtype type)
{
    return type == DTYPE_Q4_0 ? 1.0f / 16 : type == DTYPE_Q6_K ? 0.25f : 1.0f;
}

static inline float half(uint16_t h)
{
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
}

/* The eight 6-bit scales and minimums of a q4_K block, as bytes. */
static ALWAYS_INLINE void q4_k_bytes(const struct block_q4_k *block, uint8x8_t *scales, uint8x8_t *minimums)
{
    uint32_t u[3];
    memcpy(u, block->scales, sizeof u);
    *scales = vcreate_u8((u[0] & 0x3f3f3f3f) | (uint64_t)((u[2] & 0x0f0f0f0f) | (u[0] >> 6 & 0x03030303) << 4) << 32);
    *minimums = vcreate_u8((u[1] & 0x3f3f3f3f) | (uint64_t)((u[2] >> 4 & 0x0f0f0f0f) | (u[1] >> 6 & 0x03030303) << 4) << 32);
}

/* Eight bytes as two vectors of floats. */
static ALWAYS_INLINE void bytes_to_f32(float32x4_t to[2], int16x8_t bytes)
{
    to[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(bytes)));
    to[1] = vcvtq_f32_s32(vmovl_high_s16(bytes));
}

static ALWAYS_INLINE int16x8_t widen_u8(uint8x8_t bytes)
{
    return vreinterpretq_s16_u16(vmovl_u8(bytes));
}

#endif
