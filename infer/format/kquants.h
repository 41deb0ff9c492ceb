/* The block-quantised types that search for their scales: one block at a time, in ggml's bit layout. */
#ifndef INFER_FORMAT_KQUANTS_H
#define INFER_FORMAT_KQUANTS_H

#include "infer/format/dtype.h"

/* The eight 6-bit scales and minimums of a q4_K super-block. */
void q4_k_scales(const struct block_q4_k *block, uint8_t scale[8], uint8_t minimum[8]);

/* Values of a super-block of 256. */
void q4_k_dequantize(float *out, const struct block_q4_k *block);
void q6_k_dequantize(float *out, const struct block_q6_k *block);

/* Quantise 256 finite values as ggml's reference does: for q4_K each sub-block's scale and minimum by weighted least squares
 * over 21 trial scales (weights rms + |x|), for q6_K each sub-block's scale over 19 trials with weights x^2; then scales and
 * minimums rounded to 6 (8) bits and the elements quantised again with them. A value that is NaN, infinite or beyond 2^40 makes
 * the whole block NaN. */
void q4_k_quantize(struct block_q4_k *block, const float *x);
void q6_k_quantize(struct block_q6_k *block, const float *x);

#endif
