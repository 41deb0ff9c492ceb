/* The vector vocabulary of the x86 kernels, for AVX2 with FMA and F16C: 8 lanes. See vec_avx512.h for the words. */
#ifndef INFER_OPS_CPU_X86_VEC_AVX2_H
#define INFER_OPS_CPU_X86_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#include "infer/format/dtype.h"

typedef __m256 vec;
typedef __m256i vec_mask;
enum { LANES = 8 };

static inline vec vec_zero(void) { return _mm256_setzero_ps(); }
static inline vec vec_set1(float a) { return _mm256_set1_ps(a); }
static inline vec vec_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vec_store(float *p, vec a) { _mm256_storeu_ps(p, a); }

static inline vec_mask vec_first(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vec vec_load_mask(const float *p, vec_mask m) { return _mm256_maskload_ps(p, m); }
static inline void vec_store_mask(float *p, vec_mask m, vec a) { _mm256_maskstore_ps(p, m, a); }
static inline vec vec_select(vec_mask m, vec a, vec otherwise) { return _mm256_blendv_ps(otherwise, a, _mm256_castsi256_ps(m)); }

static inline vec vec_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec vec_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec vec_fms(vec a, vec b, vec c) { return _mm256_fmsub_ps(a, b, c); }
static inline vec vec_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); }
static inline vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec vec_min(vec a, vec b) { return _mm256_min_ps(a, b); }

static inline float vec_sum(vec a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline float vec_max_lane(vec a)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

static inline vec vec_round(vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

/* In two steps, because 2^n itself need not be a normal number. */
static inline vec vec_scale2(vec a, vec n)
{
    __m256i all = _mm256_cvtps_epi32(n), bias = _mm256_set1_epi32(127);
    __m256i half = _mm256_srai_epi32(all, 1), rest = _mm256_sub_epi32(all, half);
    vec first = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    vec second = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(a, first), second);
}

static inline vec vec_from_f16(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

static inline vec vec_from_bf16(const void *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}

static inline vec vec_from_i8(const void *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

static inline vec vec_from_bits(const uint8_t *p, int shift, int mask)
{
    __m256i bits = _mm256_srl_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)), _mm_cvtsi32_si128(shift));
    return _mm256_cvtepi32_ps(_mm256_and_si256(bits, _mm256_set1_epi32(mask)));
}

static inline vec vec_f16_set1(const uint16_t *p) { return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(*p))); }

static inline vec vec_q8_0_scale(const struct block_q8_0 *block)
{
    return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)block)));
}

static inline vec vec_load_pairs(const float *p)
{
    __m256i lanes = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), lanes);
}
static inline vec vec_swap_pairs(vec a) { return _mm256_permute_ps(a, 0xB1); }
static inline vec vec_fmaddsub(vec a, vec b, vec c) { return _mm256_fmaddsub_ps(a, b, c); }

/* Four floats from each of the rows i, i + 4. */
static inline vec vec_load_quads(const float *const *row, int i, int64_t at)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row[i] + at)), _mm_loadu_ps(row[i + 4] + at), 1);
}

static inline void vec_transpose_quads(vec r[4])
{
    vec a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
    vec c = _mm256_unpacklo_ps(r[2], r[3]), d = _mm256_unpackhi_ps(r[2], r[3]);
    r[0] = _mm256_shuffle_ps(a, c, 0x44);
    r[1] = _mm256_shuffle_ps(a, c, 0xEE);
    r[2] = _mm256_shuffle_ps(b, d, 0x44);
    r[3] = _mm256_shuffle_ps(b, d, 0xEE);
}

#endif
