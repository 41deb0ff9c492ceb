/* Element types of stored tensors and their block layouts (the GGUF ones; safetensors has the first three). */
#ifndef INFER_FORMAT_DTYPE_H
#define INFER_FORMAT_DTYPE_H

#include <stddef.h>
#include <stdint.h>

#include "infer/base/status.h"

enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_Q8_0, /* blocks of 32: one f16 scale d, 32 int8 q; value = d * q */
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

/* Never NULL for a valid enum value. */
const struct dtype_info *dtype_info(enum dtype type);

/* By lower-case name, safetensors name, GGUF number: DTYPE_COUNT when unknown. */
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
