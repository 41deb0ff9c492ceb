/* Panels of NARROW_NR rows of B for the integer kernels for Arm: digits (as digits_32 makes them) in an order that differs, then per
 * block the scales and, of q4_K, the minimums of the columns. */
#ifndef INFER_OPS_CPU_ARM_PANELS_H
#define INFER_OPS_CPU_ARM_PANELS_H

#include "infer/ops/cpu/arm/narrow_neon.h"

/* A scale per column and block: of 16 elements for q6_K, of 32 for the others. */
enum { NR = NARROW_NR, SCALES_AT = NARROW_KC * NR, MINIMUMS_AT = SCALES_AT + NARROW_KC / 16 * NR * 4 };
_Static_assert(MINIMUMS_AT + NARROW_KC / 32 * NR * 4 <= NARROW_PANEL_BYTES, "the panel fits");

/* Elements per scale. */
static inline int panel_block(enum dtype type)
{
    return type == DTYPE_Q6_K ? 16 : 32;
}

/* The scales and minimums of terms [p, p + n) of `columns` rows of B; zeros for columns that do not exist. */
void neon_pack_scales(char *panel, const char *rows, size_t row_bytes, int columns, int64_t p, int64_t n, enum dtype type);

/* Four sums in consecutive columns: to = alpha * value [+ to], for the first `columns` of them. */
static inline void store_columns(float *to, float32x4_t value, float alpha, bool accumulate, int columns)
{
    float v[4];
    if (columns >= 4) {
        vst1q_f32(to, accumulate ? vfmaq_n_f32(vld1q_f32(to), value, alpha) : vmulq_n_f32(value, alpha));
        return;
    }
    vst1q_f32(v, value);
    for (int j = 0; j < columns; j++)
        to[j] = accumulate ? __builtin_fmaf(v[j], alpha, to[j]) : v[j] * alpha;
}

#endif
