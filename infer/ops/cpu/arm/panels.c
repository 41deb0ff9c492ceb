#include "infer/ops/cpu/arm/panels.h"

/* Of one row, into column j. */
static void row_scales(float *scale, float *minimum, const void *row, enum dtype type, int64_t p, int64_t n)
{
    const float unit = digit_unit(type);
    if (type == DTYPE_Q8_0 || type == DTYPE_Q4_0) {
        for (int64_t b = p / 32; 32 * b < p + n; b++, scale += NR)
            *scale = unit * half(type == DTYPE_Q8_0 ? ((const struct block_q8_0 *)row)[b].d : ((const struct block_q4_0 *)row)[b].d);
        return;
    }
    for (int64_t at = p / 256; 256 * at < p + n; at++) {
        if (type == DTYPE_Q4_K) {
            const struct block_q4_k *block = (const struct block_q4_k *)row + at;
            const float d = half(block->d), dmin = half(block->dmin);
            uint8x8_t bytes[2];
            uint8_t small[16];
            q4_k_bytes(block, &bytes[0], &bytes[1]);
            vst1q_u8(small, vcombine_u8(bytes[0], bytes[1]));
            for (int b = 0; b < 8; b++, scale += NR, minimum += NR) {
                *scale = d * (float)small[b];
                *minimum = dmin * (float)small[8 + b];
            }
        } else {
            const struct block_q6_k *block = (const struct block_q6_k *)row + at;
            const float d = unit * half(block->d);
            for (int b = 0; b < 16; b++, scale += NR)
                *scale = d * (float)block->scales[b];
        }
    }
}

void neon_pack_scales(char *panel, const char *rows, size_t row_bytes, int columns, int64_t p, int64_t n, enum dtype type)
{
    float *scale = (float *)(void *)(panel + SCALES_AT), *minimum = (float *)(void *)(panel + MINIMUMS_AT);
    if (columns < NR)
        memset(scale, 0, NARROW_PANEL_BYTES - SCALES_AT);
    for (int j = 0; j < columns; j++)
        row_scales(scale + j, minimum + j, rows + (size_t)j * row_bytes, type, p, n);
}
