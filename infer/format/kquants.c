#include "infer/format/kquants.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

_Static_assert(sizeof(struct block_q4_k) == 144 && sizeof(struct block_q6_k) == 210, "the layouts in files");

#define NAN_F16 0x7e00
#define NO_SCALE 1e-15f /* ggml's bound: a sub-block whose largest magnitude is below this is zero */

void q4_k_scales(const struct block_q4_k *block, uint8_t scale[8], uint8_t minimum[8])
{
    const uint8_t *s = block->scales;
    for (int j = 0; j < 4; j++) {
        scale[j] = s[j] & 63;
        minimum[j] = s[j + 4] & 63;
        scale[j + 4] = (uint8_t)((s[j + 8] & 15) | s[j] >> 6 << 4);
        minimum[j + 4] = (uint8_t)(s[j + 8] >> 4 | s[j + 4] >> 6 << 4);
    }
}

static void q4_k_pack_scales(struct block_q4_k *block, const uint8_t scale[8], const uint8_t minimum[8])
{
    uint8_t *s = block->scales;
    for (int j = 0; j < 4; j++) {
        s[j] = (uint8_t)(scale[j] | scale[j + 4] >> 4 << 6);
        s[j + 4] = (uint8_t)(minimum[j] | minimum[j + 4] >> 4 << 6);
        s[j + 8] = (uint8_t)((scale[j + 4] & 15) | (minimum[j + 4] & 15) << 4);
    }
}

void q4_k_dequantize(float *out, const struct block_q4_k *block)
{
    uint8_t scale[8], minimum[8];
    float d = f16_to_f32(block->d), dmin = f16_to_f32(block->dmin);
    q4_k_scales(block, scale, minimum);
    for (int j = 0; j < 8; j++) {
        float s = d * (float)scale[j], m = dmin * (float)minimum[j];
        const uint8_t *q = block->q + j / 2 * 32;
        for (int i = 0; i < 32; i++)
            *out++ = s * (float)(j & 1 ? q[i] >> 4 : q[i] & 15) - m;
    }
}

void q6_k_dequantize(float *out, const struct block_q6_k *block)
{
    float d = f16_to_f32(block->d);
    for (int i = 0; i < 256; i++) { /* half, and quarter of 32 within it */
        int half = i / 128, quarter = i / 32 % 4, l = i % 32;
        int low = block->ql[half * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
        int high = block->qh[half * 32 + l] >> (quarter * 2) & 3;
        out[i] = d * (float)block->scales[i / 16] * (float)((low | high << 4) - 32);
    }
}

/* Whether the block can be searched: larger values overflow the sums, and an f16 scale long before. False for NaN. */
static bool all_moderate(const float *x, int n)
{
    bool moderate = true;
    for (int i = 0; i < n; i++)
        moderate &= fabsf(x[i]) <= 0x1p40f;
    return moderate;
}

/* x to the nearest integer in [low, high], ties to even; NaN becomes low. */
static inline int round_clamped(float x, float low, float high)
{
    return (int)rintf(fminf(fmaxf(x, low), high));
}

/* Scale s and minimum m >= 0 so that s q - m, q in [0, 15], is close to the 32 x in the sum of squares weighted by w: trial
 * scales give trial q, for which s and m are the solution of least squares. */
static float search_scale_and_minimum(const float *x, const float *w, float *minimum)
{
    float low = 0, high = x[0], sum_w = 0, sum_x = 0;
    for (int i = 0; i < 32; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
        sum_w += w[i];
        sum_x += w[i] * x[i];
    }
    *minimum = -low;
    if (high <= low)
        return 0;
    float range = high - low, scale = range / 15, best = 0, found_low = low;
    for (int i = 0; i < 32; i++) {
        float error = scale * (float)round_clamped(15 / range * (x[i] - low), 0, 15) + low - x[i];
        best += w[i] * error * error;
    }
    for (int trial = 0; trial <= 20; trial++) {
        float inverse = (14 + 0.1f * (float)trial) / range, q[32], sum_q = 0, sum_qq = 0, sum_xq = 0;
        for (int i = 0; i < 32; i++) {
            q[i] = (float)round_clamped(inverse * (x[i] - low), 0, 15);
            sum_q += w[i] * q[i];
            sum_qq += w[i] * q[i] * q[i];
            sum_xq += w[i] * q[i] * x[i];
        }
        float determinant = sum_w * sum_qq - sum_q * sum_q;
        if (!(determinant > 0))
            continue;
        float s = (sum_w * sum_xq - sum_x * sum_q) / determinant, m = (sum_qq * sum_x - sum_q * sum_xq) / determinant, sum = 0;
        if (m > 0) { /* the format subtracts a minimum, it cannot add one */
            m = 0;
            s = sum_xq / sum_qq;
        }
        for (int i = 0; i < 32; i++) {
            float error = s * q[i] + m - x[i];
            sum += w[i] * error * error;
        }
        if (sum < best) {
            best = sum;
            scale = s;
            found_low = m;
        }
    }
    *minimum = -found_low;
    return scale;
}

void q4_k_quantize(struct block_q4_k *block, const float *x)
{
    float scales[8], minimums[8], max_scale = 0, max_minimum = 0;
    memset(block, 0, sizeof *block);
    if (!all_moderate(x, 256)) {
        block->d = block->dmin = NAN_F16;
        return;
    }
    for (int j = 0; j < 8; j++) {
        const float *sub = x + 32 * j;
        float weights[32], sum = 0;
        for (int i = 0; i < 32; i++)
            sum += sub[i] * sub[i];
        float rms = sqrtf(sum / 32);
        for (int i = 0; i < 32; i++)
            weights[i] = rms + fabsf(sub[i]);
        scales[j] = search_scale_and_minimum(sub, weights, &minimums[j]);
        max_scale = fmaxf(max_scale, scales[j]);
        max_minimum = fmaxf(max_minimum, minimums[j]);
    }
    uint8_t scale[8], minimum[8];
    for (int j = 0; j < 8; j++) {
        scale[j] = (uint8_t)(max_scale > 0 ? round_clamped(63 / max_scale * scales[j], 0, 63) : 0);
        minimum[j] = (uint8_t)(max_minimum > 0 ? round_clamped(63 / max_minimum * minimums[j], 0, 63) : 0);
    }
    q4_k_pack_scales(block, scale, minimum);
    block->d = f32_to_f16(max_scale / 63);
    block->dmin = f32_to_f16(max_minimum / 63);
    float stored_d = f16_to_f32(block->d), stored_dmin = f16_to_f32(block->dmin);
    for (int j = 0; j < 8; j++) {
        float d = stored_d * (float)scale[j], m = stored_dmin * (float)minimum[j];
        for (int i = 0; i < 32 && d != 0; i++) /* with d = 0 the digits say nothing and stay 0 */
            block->q[j / 2 * 32 + i] |= (uint8_t)(round_clamped((x[32 * j + i] + m) / d, 0, 15) << (j & 1 ? 4 : 0));
    }
}

/* Scale s so that s q, q in [-32, 31], is close to the 16 x in the sum of squares weighted by x^2. */
static float search_scale(const float *x)
{
    float largest = 0, signed_largest = 0;
    for (int i = 0; i < 16; i++)
        if (fabsf(x[i]) > largest) {
            largest = fabsf(x[i]);
            signed_largest = x[i];
        }
    if (largest < NO_SCALE)
        return 0;
    float scale = 0, best = 0;
    for (int trial = 0; trial < 19; trial++) {
        int step = trial == 0 ? 0 : trial <= 9 ? trial - 10 : trial - 9; /* the plain scale first, then -9 .. 9 */
        float inverse = -(32 + 0.1f * (float)step) / signed_largest, sum_xq = 0, sum_qq = 0;
        for (int i = 0; i < 16; i++) {
            float q = (float)round_clamped(inverse * x[i], -32, 31), w = x[i] * x[i];
            sum_xq += w * x[i] * q;
            sum_qq += w * q * q;
        }
        if (sum_qq > 0 && (trial == 0 || sum_xq * sum_xq > best * sum_qq)) {
            scale = sum_xq / sum_qq;
            best = scale * sum_xq;
        }
    }
    return scale;
}

void q6_k_quantize(struct block_q6_k *block, const float *x)
{
    float scales[16], largest = 0, signed_largest = 0;
    memset(block, 0, sizeof *block);
    if (!all_moderate(x, 256)) {
        block->d = NAN_F16;
        return;
    }
    for (int j = 0; j < 16; j++) {
        scales[j] = search_scale(x + 16 * j);
        if (fabsf(scales[j]) > largest) {
            largest = fabsf(scales[j]);
            signed_largest = scales[j];
        }
    }
    if (largest < NO_SCALE)
        return;
    float inverse = -128 / signed_largest;
    block->d = f32_to_f16(1 / inverse);
    float stored = f16_to_f32(block->d);
    for (int j = 0; j < 16; j++)
        block->scales[j] = (int8_t)round_clamped(inverse * scales[j], -128, 127);
    for (int i = 0; i < 256; i++) {
        float d = stored * (float)block->scales[i / 16];
        int q = d != 0 ? round_clamped(x[i] / d, -32, 31) + 32 : 32;
        int half = i / 128, quarter = i / 32 % 4, l = i % 32;
        block->ql[half * 64 + quarter % 2 * 32 + l] |= (uint8_t)((q & 15) << (quarter / 2 * 4));
        block->qh[half * 32 + l] |= (uint8_t)(q >> 4 << (quarter * 2));
    }
}
