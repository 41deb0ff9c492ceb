/* Element types of stored tensors and their block layouts (the GGUF ones; safetensors has the first three). */
#ifndef INFER_FORMAT_DTYPE_H
#define INFER_FORMAT_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "infer/base/status.h"

enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_Q8_0, /* blocks of 32: one f16 scale d, 32 int8 q; value = d * q */
    DTYPE_Q4_0, /* blocks of 32: one f16 scale d, 32 4-bit q; value = d * (q - 8) */
    DTYPE_Q4_K, /* super-blocks of 256: 8 sub-blocks of 32 with 6-bit scale and minimum; value = d * sc * q - dmin * m */
    DTYPE_Q6_K, /* super-blocks of 256: 16 sub-blocks of 16 with int8 scale; value = d * sc * (q - 32) */
    DTYPE_COUNT
};

struct dtype_info {
    const char *name;             /* lower case: "f32", "q8_0" */
    const char *safetensors_name; /* "F32", or NULL where safetensors has none */
    uint32_t gguf_type;           /* GGML_TYPE_* number in GGUF files */
    uint32_t gguf_file_type;      /* general.file_type for a file mostly of this type */
    int block_elements;           /* elements per block (1 for plain types) */
    int block_bytes;
};

struct block_q8_0 {
    uint16_t d;    /* f16 bits */
    int8_t q[32];
};

struct block_q4_0 {
    uint16_t d;    /* f16 bits */
    uint8_t q[16]; /* element i: low nibble of q[i] for i < 16, high nibble of q[i - 16] otherwise */
};

struct block_q4_k {
    uint16_t d, dmin;   /* f16 bits: scale of the sub-block scales, and of the minimums */
    uint8_t scales[12]; /* 8 scales and 8 minimums of 6 bits, packed as ggml packs them */
    uint8_t q[128];     /* 64 elements in 32 bytes: low nibbles the first 32, high nibbles the next */
};

struct block_q6_k {
    uint8_t ql[128];   /* low 4 bits */
    uint8_t qh[64];    /* high 2 bits */
    int8_t scales[16];
    uint16_t d;        /* f16 bits */
};

/* Never NULL for a valid enum value. */
const struct dtype_info *dtype_info(enum dtype type);

/* Whether the type's blocks share scales, i.e. have more than one element. */
static inline bool dtype_is_quantized(enum dtype type)
{
    return type >= DTYPE_Q8_0 && type < DTYPE_COUNT;
}

/* By name in any case ("Q8_0"), safetensors name, GGUF number: DTYPE_COUNT when unknown. */
enum dtype dtype_by_name(const char *name);
enum dtype dtype_by_safetensors_name(const char *name, size_t length);
enum dtype dtype_by_gguf_type(uint32_t gguf_type);

/* Bytes of a row of n elements; 0 when n is negative, not a multiple of the block, or too large to count. */
size_t dtype_row_bytes(enum dtype type, int64_t n);

/* Alignment in bytes that a row needs in memory. */
size_t dtype_alignment(enum dtype type);

/* Scalar conversions, round to nearest even; NaN stays NaN, overflow becomes infinity. */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
float bf16_to_f32(uint16_t b);
uint16_t f32_to_bf16(float f);

/* One row of n elements (n a multiple of the block), portable reference. `row` is aligned to dtype_alignment. Quantising
 * q8_0 as ggml does: d = max|x| / 127, rounded to f16 only in storage, q = round(x * (1 / d)), halves away from zero. A
 * block with an infinite or NaN element becomes all NaN. */
void dtype_to_f32(enum dtype type, float *out, const void *row, int64_t n);
void dtype_from_f32(enum dtype type, void *row, const float *in, int64_t n);

#endif
