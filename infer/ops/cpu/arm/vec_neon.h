/* The vector vocabulary of ../x86/kernels_*.inc for Advanced SIMD of any 64-bit Arm: 8 lanes in two registers, because most
 * conversions make two registers of one, and in-order cores need independent instructions side by side. See vec_avx512.h for the
 * words. */
#ifndef INFER_OPS_CPU_ARM_VEC_NEON_H
#define INFER_OPS_CPU_ARM_VEC_NEON_H

#include <arm_neon.h>
#include <stdint.h>

#include "infer/format/dtype.h"

typedef float32x4x2_t vec;
typedef int vec_mask; /* how many lanes, from the first */
enum { LANES = 8 };

static inline vec vec_of(float32x4_t low, float32x4_t high) { return (vec){{low, high}}; }
static inline vec vec_set1(float a) { return vec_of(vdupq_n_f32(a), vdupq_n_f32(a)); }
static inline vec vec_zero(void) { return vec_set1(0); }
static inline vec vec_load(const float *p) { return vec_of(vld1q_f32(p), vld1q_f32(p + 4)); }

static inline void vec_store(float *p, vec a)
{
    vst1q_f32(p, a.val[0]);
    vst1q_f32(p + 4, a.val[1]);
}

/* The first n of four floats, zeros after them; n may be negative or above 4. */
static inline float32x4_t four_load(const float *p, int n)
{
    if (n >= 4)
        return vld1q_f32(p);
    if (n <= 0)
        return vdupq_n_f32(0);
    const float32x4_t a = vcombine_f32(n & 2 ? vld1_f32(p) : vdup_n_f32(0), vdup_n_f32(0));
    return n == 3 ? vld1q_lane_f32(p + 2, a, 2) : n == 1 ? vld1q_lane_f32(p, a, 0) : a;
}

static inline void four_store(float *p, float32x4_t a, int n)
{
    if (n >= 4)
        vst1q_f32(p, a);
    else if (n >= 2)
        vst1_f32(p, vget_low_f32(a));
    if (n == 3)
        vst1q_lane_f32(p + 2, a, 2);
    else if (n == 1)
        vst1q_lane_f32(p, a, 0);
}

static inline vec_mask vec_first(int n) { return n; }

/* Not inlined: this is for the ends of rows. */
static __attribute__((noinline, unused)) vec vec_load_mask(const float *p, vec_mask n)
{
    return vec_of(four_load(p, n), four_load(p + 4, n - 4));
}

static __attribute__((noinline, unused)) void vec_store_part(float *p, vec_mask n, vec a)
{
    four_store(p, a.val[0], n);
    four_store(p + 4, a.val[1], n - 4);
}

static inline void vec_store_mask(float *p, vec_mask n, vec a)
{
    if (n >= LANES)
        vec_store(p, a);
    else
        vec_store_part(p, n, a);
}

static inline vec vec_select(vec_mask n, vec a, vec otherwise)
{
    const int32x4_t lanes = {0, 1, 2, 3};
    return vec_of(vbslq_f32(vcltq_s32(lanes, vdupq_n_s32(n)), a.val[0], otherwise.val[0]),
                  vbslq_f32(vcltq_s32(lanes, vdupq_n_s32(n - 4)), a.val[1], otherwise.val[1]));
}

static inline vec vec_add(vec a, vec b) { return vec_of(vaddq_f32(a.val[0], b.val[0]), vaddq_f32(a.val[1], b.val[1])); }
static inline vec vec_mul(vec a, vec b) { return vec_of(vmulq_f32(a.val[0], b.val[0]), vmulq_f32(a.val[1], b.val[1])); }
static inline vec vec_neg(vec a) { return vec_of(vnegq_f32(a.val[0]), vnegq_f32(a.val[1])); }

static inline vec vec_fma(vec a, vec b, vec c)
{
    return vec_of(vfmaq_f32(c.val[0], a.val[0], b.val[0]), vfmaq_f32(c.val[1], a.val[1], b.val[1]));
}

static inline vec vec_fnma(vec a, vec b, vec c)
{
    return vec_of(vfmsq_f32(c.val[0], a.val[0], b.val[0]), vfmsq_f32(c.val[1], a.val[1], b.val[1]));
}

static inline vec vec_fms(vec a, vec b, vec c) { return vec_fma(a, b, vec_neg(c)); }

/* Unlike on x86, NaN where either is NaN. */
static inline vec vec_max(vec a, vec b) { return vec_of(vmaxq_f32(a.val[0], b.val[0]), vmaxq_f32(a.val[1], b.val[1])); }
static inline vec vec_min(vec a, vec b) { return vec_of(vminq_f32(a.val[0], b.val[0]), vminq_f32(a.val[1], b.val[1])); }
static inline float vec_sum(vec a) { return vaddvq_f32(vaddq_f32(a.val[0], a.val[1])); }
static inline float vec_max_lane(vec a) { return vmaxvq_f32(vmaxq_f32(a.val[0], a.val[1])); }
static inline vec vec_round(vec a) { return vec_of(vrndnq_f32(a.val[0]), vrndnq_f32(a.val[1])); }

/* In two steps, because 2^n itself need not be a normal number. */
static inline float32x4_t four_scale2(float32x4_t a, float32x4_t n)
{
    const int32x4_t all = vcvtq_s32_f32(n), half = vshrq_n_s32(all, 1), rest = vsubq_s32(all, half), bias = vdupq_n_s32(127);
    const float32x4_t first = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
    return vmulq_f32(vmulq_f32(a, first), vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23)));
}

static inline vec vec_scale2(vec a, vec n)
{
    return vec_of(four_scale2(a.val[0], n.val[0]), four_scale2(a.val[1], n.val[1]));
}

static inline vec vec_from_f16(const void *p)
{
    const float16x8_t half = vreinterpretq_f16_u16(vld1q_u16(p));
    return vec_of(vcvt_f32_f16(vget_low_f16(half)), vcvt_high_f32_f16(half));
}

static inline vec vec_from_bf16(const void *p)
{
    const uint16x8_t half = vld1q_u16(p);
    return vec_of(vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(half), 16)), vreinterpretq_f32_u32(vshll_high_n_u16(half, 16)));
}

static inline vec vec_from_i8(const void *p)
{
    const int16x8_t a = vmovl_s8(vld1_s8(p));
    return vec_of(vcvtq_f32_s32(vmovl_s16(vget_low_s16(a))), vcvtq_f32_s32(vmovl_high_s16(a)));
}

static inline vec vec_from_bits(const uint8_t *p, int shift, int mask)
{
    const uint16x8_t a = vmovl_u8(vand_u8(vshl_u8(vld1_u8(p), vdup_n_s8((int8_t)-shift)), vdup_n_u8((uint8_t)mask)));
    return vec_of(vcvtq_f32_u32(vmovl_u16(vget_low_u16(a))), vcvtq_f32_u32(vmovl_high_u16(a)));
}

static inline vec vec_f16_set1(const uint16_t *p)
{
    const float32x4_t a = vcvt_f32_f16(vreinterpret_f16_u16(vld1_dup_u16(p)));
    return vec_of(a, a);
}

static inline vec vec_q8_0_scale(const struct block_q8_0 *block) { return vec_f16_set1(&block->d); }

static inline vec vec_load_pairs(const float *p)
{
    const float32x4_t a = vld1q_f32(p);
    return vec_of(vzip1q_f32(a, a), vzip2q_f32(a, a));
}

static inline vec vec_swap_pairs(vec a) { return vec_of(vrev64q_f32(a.val[0]), vrev64q_f32(a.val[1])); }

/* a b - c in even lanes, a b + c in odd ones. */
static inline vec vec_fmaddsub(vec a, vec b, vec c)
{
    const uint64x2_t even = vdupq_n_u64(0x80000000);
    for (int i = 0; i < 2; i++)
        c.val[i] = vreinterpretq_f32_u64(veorq_u64(vreinterpretq_u64_f32(c.val[i]), even));
    return vec_fma(a, b, c);
}

static inline vec vec_load_quads(const float *const *row, int i, int64_t at)
{
    return vec_of(vld1q_f32(row[i] + at), vld1q_f32(row[i + 4] + at));
}

static inline void vec_transpose_quads(vec r[4])
{
    for (int i = 0; i < 2; i++) {
        const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0].val[i], r[1].val[i]));
        const float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(r[0].val[i], r[1].val[i]));
        const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2].val[i], r[3].val[i]));
        const float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(r[2].val[i], r[3].val[i]));
        r[0].val[i] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
        r[1].val[i] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
        r[2].val[i] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
        r[3].val[i] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
    }
}

#endif
