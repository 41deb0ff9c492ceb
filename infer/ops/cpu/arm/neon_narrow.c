/* Quantised weights with any 64-bit Arm: conversion of A, products with rows of B read in place, and with groups of neurons. */
#include "infer/ops/cpu/arm/narrow_neon.h"

enum { ROWS = 1 };
#include "infer/ops/cpu/arm/kernels_rows.inc"

#include "infer/ops/cpu/arm/kernels_sparse.inc"

void neon_sparse_group(float *y, const struct sparse_product *p, int64_t begin, int64_t end)
{
    sparse_group(y, p, begin, end);
}

size_t neon_a_bytes(int64_t k, const struct narrow_format *f)
{
    const size_t padded = (size_t)narrow_padded(k);
    return padded + padded / 4 + (f->precision == PRECISION_HIGH ? padded : 0);
}

static void convert_block(const struct narrow_row *to, int64_t block, const float *x, const bool high)
{
    uint32x4_t most = vdupq_n_u32(0);
    float32x4_t v[8];
    UNROLL
    for (int i = 0; i < 8; i++) {
        v[i] = vld1q_f32(x + 4 * i);
        most = vmaxq_u32(most, vreinterpretq_u32_f32(vabsq_f32(v[i]))); /* as integers: NaN is the largest */
    }
    const uint32_t largest_bits = vmaxvq_u32(most);
    float largest, levels = high ? 127.0f * 128.0f : 127.0f, d = 0, inverse = 0;
    memcpy(&largest, &largest_bits, sizeof largest);
    if (largest_bits >= 0x7f800000)
        d = __builtin_nanf(""); /* the damage stays visible; the integers become 0 */
    else if (largest > 0x1p-100f) { /* below, the reciprocal could overflow; the block counts as zero */
        d = largest / levels;
        inverse = levels / largest;
    }
    int32x4_t total = vdupq_n_s32(0);
    UNROLL
    for (int i = 0; i < 4; i++) {
        int32x4_t q0 = vcvtnq_s32_f32(vmulq_n_f32(v[2 * i], inverse)), q1 = vcvtnq_s32_f32(vmulq_n_f32(v[2 * i + 1], inverse));
        total = vaddq_s32(total, vaddq_s32(q0, q1));
        int16x8_t q = vmovn_high_s32(vmovn_s32(q0), q1), h = q;
        if (high) {
            h = vrshrq_n_s16(q, 7);
            vst1_s8((int8_t *)to->lo + 32 * block + 8 * i, vmovn_s16(vsubq_s16(q, vshlq_n_s16(h, 7))));
        }
        vst1_s8((int8_t *)to->hi + 32 * block + 8 * i, vmovn_s16(h));
    }
    ((float *)to->d)[block] = d;
    ((float *)to->sum)[block] = d * (float)vaddvq_s32(total);
}

void neon_convert_a(void *a, const float *x, int64_t k, const struct narrow_format *f)
{
    const struct narrow_row to = narrow_row(a, narrow_padded(k));
    for (int64_t block = 0; block < narrow_padded(k) / 32; block++) {
        const int64_t left = k - 32 * block;
        float last[32] = {0};
        if (left > 0 && left < 32)
            memcpy(last, x + 32 * block, (size_t)left * sizeof *last);
        convert_block(&to, block, left >= 32 ? x + 32 * block : last, f->precision == PRECISION_HIGH);
    }
}

static bool takes(const struct gemm *g)
{
    return dtype_is_quantized(g->b_type) && g->m <= NARROW_MAX_M;
}

const struct narrow_kernel narrow_kernel_neon = {
    .takes = takes, .a_bytes = neon_a_bytes, .convert_a = neon_convert_a, .row_dot = row_dot};
