#include "infer/format/dtype.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include <strings.h>

#include "infer/format/kquants.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensor files are little-endian and used as mapped");
_Static_assert(sizeof(struct block_q8_0) == 34 && sizeof(struct block_q4_0) == 18, "the layouts in files");

static const struct dtype_info infos[DTYPE_COUNT] = {
    [DTYPE_F32] = {"f32", "F32", 0, 0, 1, 4},
    [DTYPE_F16] = {"f16", "F16", 1, 1, 1, 2},
    [DTYPE_BF16] = {"bf16", "BF16", 30, 32, 1, 2},
    [DTYPE_Q8_0] = {"q8_0", NULL, 8, 7, 32, sizeof(struct block_q8_0)},
    [DTYPE_Q4_0] = {"q4_0", NULL, 2, 2, 32, sizeof(struct block_q4_0)},
    [DTYPE_Q4_K] = {"q4_k", NULL, 12, 15, 256, sizeof(struct block_q4_k)},
    [DTYPE_Q6_K] = {"q6_k", NULL, 14, 18, 256, sizeof(struct block_q6_k)},
};

const struct dtype_info *dtype_info(enum dtype type)
{
    return (unsigned)type < DTYPE_COUNT ? &infos[type] : NULL;
}

enum dtype dtype_by_name(const char *name)
{
    int t = 0;
    while (t < DTYPE_COUNT && strcasecmp(infos[t].name, name) != 0)
        t++;
    return (enum dtype)t;
}

enum dtype dtype_by_safetensors_name(const char *name, size_t length)
{
    int t = 0;
    for (; t < DTYPE_COUNT; t++) {
        const char *known = infos[t].safetensors_name;
        if (known && strlen(known) == length && memcmp(known, name, length) == 0)
            break;
    }
    return (enum dtype)t;
}

enum dtype dtype_by_gguf_type(uint32_t gguf_type)
{
    int t = 0;
    while (t < DTYPE_COUNT && infos[t].gguf_type != gguf_type)
        t++;
    return (enum dtype)t;
}

size_t dtype_row_bytes(enum dtype type, int64_t n)
{
    const struct dtype_info *info = &infos[type];
    if (n < 0 || n % info->block_elements != 0)
        return 0;
    uint64_t blocks = (uint64_t)n / (uint64_t)info->block_elements;
    return blocks > SIZE_MAX / (size_t)info->block_bytes ? 0 : (size_t)blocks * (size_t)info->block_bytes;
}

size_t dtype_alignment(enum dtype type)
{
    return type == DTYPE_F32 ? _Alignof(float) : _Alignof(uint16_t);
}

static inline uint32_t float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = (h >> 10) & 0x1f, mantissa = h & 0x3ff;
    if (exponent == 31)
        return bits_float(sign | 0x7f800000 | mantissa << 13 | (mantissa ? 0x400000u : 0)); /* quiet NaN, as F16C does */
    if (exponent == 0) /* zero or subnormal: mantissa * 2^-24, exact */
        return bits_float(sign | float_bits((float)mantissa * 0x1p-24f));
    return bits_float(sign | (exponent + 127 - 15) << 23 | mantissa << 13);
}

uint16_t f32_to_f16(float f)
{
    uint32_t u = float_bits(f), sign = u >> 16 & 0x8000, magnitude = u & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) /* 65520, half way between the largest f16 and the next: rounds to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) { /* below 2^-14: adding 0.5 leaves the subnormal's 10 bits, rounded, in the low mantissa */
        uint32_t sum = float_bits(bits_float(magnitude) + 0.5f);
        return (uint16_t)(sign | (sum - 0x3f000000));
    }
    uint32_t rounded = magnitude - ((uint32_t)(127 - 15) << 23) + 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | rounded >> 13);
}

float bf16_to_f32(uint16_t b)
{
    return bits_float((uint32_t)b << 16);
}

uint16_t f32_to_bf16(float f)
{
    uint32_t u = float_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40); /* quiet: truncation alone could turn a NaN into infinity */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static void q8_0_quantize(struct block_q8_0 *block, const float *x)
{
    float largest = 0.0f;
    int finite = 1;
    for (int j = 0; j < 32; j++) {
        float a = fabsf(x[j]);
        finite &= a <= FLT_MAX;
        largest = a > largest ? a : largest;
    }
    if (!finite) { /* no scale can hold it; a NaN scale keeps the damage visible */
        *block = (struct block_q8_0){.d = 0x7e00};
        return;
    }
    float d = largest / 127.0f;
    float inverse = d >= FLT_MIN ? 1.0f / d : 0.0f; /* the f16 of a smaller d is zero anyway */
    block->d = f32_to_f16(d);
    for (int j = 0; j < 32; j++)
        block->q[j] = (int8_t)roundf(x[j] * inverse);
}

/* The element of largest magnitude becomes -8, the one digit that has no opposite. */
static void q4_0_quantize(struct block_q4_0 *block, const float *x)
{
    float largest = 0.0f, signed_largest = 0.0f;
    int finite = 1;
    for (int j = 0; j < 32; j++) {
        float a = fabsf(x[j]);
        finite &= a <= FLT_MAX;
        if (a > largest) {
            largest = a;
            signed_largest = x[j];
        }
    }
    *block = (struct block_q4_0){.d = 0x7e00};
    if (!finite)
        return;
    float d = signed_largest / -8.0f, inverse = fabsf(d) >= FLT_MIN ? 1.0f / d : 0.0f;
    block->d = f32_to_f16(d);
    for (int j = 0; j < 32; j++) {
        int q = (int)(x[j] * inverse + 8.5f);
        block->q[j % 16] |= (uint8_t)((q < 15 ? q : 15) << (j < 16 ? 0 : 4));
    }
}

void dtype_to_f32(enum dtype type, float *out, const void *row, int64_t n)
{
    switch (type) {
    case DTYPE_F32:
        memcpy(out, row, (size_t)n * sizeof *out);
        break;
    case DTYPE_F16:
        for (int64_t i = 0; i < n; i++)
            out[i] = f16_to_f32(((const uint16_t *)row)[i]);
        break;
    case DTYPE_BF16:
        for (int64_t i = 0; i < n; i++)
            out[i] = bf16_to_f32(((const uint16_t *)row)[i]);
        break;
    case DTYPE_Q8_0:
        for (int64_t i = 0; i < n; i += 32) {
            const struct block_q8_0 *block = (const struct block_q8_0 *)row + i / 32;
            float d = f16_to_f32(block->d);
            for (int j = 0; j < 32; j++)
                out[i + j] = d * (float)block->q[j];
        }
        break;
    case DTYPE_Q4_0:
        for (int64_t i = 0; i < n; i += 32) {
            const struct block_q4_0 *block = (const struct block_q4_0 *)row + i / 32;
            float d = f16_to_f32(block->d);
            for (int j = 0; j < 16; j++) {
                out[i + j] = d * (float)((block->q[j] & 15) - 8);
                out[i + j + 16] = d * (float)((block->q[j] >> 4) - 8);
            }
        }
        break;
    case DTYPE_Q4_K:
        for (int64_t i = 0; i < n; i += 256)
            q4_k_dequantize(out + i, (const struct block_q4_k *)row + i / 256);
        break;
    case DTYPE_Q6_K:
        for (int64_t i = 0; i < n; i += 256)
            q6_k_dequantize(out + i, (const struct block_q6_k *)row + i / 256);
        break;
    case DTYPE_COUNT:
        break;
    }
}

void dtype_from_f32(enum dtype type, void *row, const float *in, int64_t n)
{
    switch (type) {
    case DTYPE_F32:
        memcpy(row, in, (size_t)n * sizeof *in);
        break;
    case DTYPE_F16:
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)row)[i] = f32_to_f16(in[i]);
        break;
    case DTYPE_BF16:
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)row)[i] = f32_to_bf16(in[i]);
        break;
    case DTYPE_Q8_0:
        for (int64_t i = 0; i < n; i += 32)
            q8_0_quantize((struct block_q8_0 *)row + i / 32, in + i);
        break;
    case DTYPE_Q4_0:
        for (int64_t i = 0; i < n; i += 32)
            q4_0_quantize((struct block_q4_0 *)row + i / 32, in + i);
        break;
    case DTYPE_Q4_K:
        for (int64_t i = 0; i < n; i += 256)
            q4_k_quantize((struct block_q4_k *)row + i / 256, in + i);
        break;
    case DTYPE_Q6_K:
        for (int64_t i = 0; i < n; i += 256)
            q6_k_quantize((struct block_q6_k *)row + i / 256, in + i);
        break;
    case DTYPE_COUNT:
        break;
    }
}
