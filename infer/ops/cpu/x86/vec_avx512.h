/* The vector vocabulary of the x86 kernels, for AVX-512: 16 lanes, masks in mask registers. vec_avx2.h says the same words
 * with 8 lanes; x86/kernels_*.inc are written in them. */
#ifndef INFER_OPS_CPU_X86_VEC_AVX512_H
#define INFER_OPS_CPU_X86_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#include "infer/format/dtype.h"

typedef __m512 vec;
typedef __mmask16 vec_mask;
enum { LANES = 16 };

static inline vec vec_zero(void) { return _mm512_setzero_ps(); }
static inline vec vec_set1(float a) { return _mm512_set1_ps(a); }
static inline vec vec_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vec_store(float *p, vec a) { _mm512_storeu_ps(p, a); }

/* The first n lanes, 0 <= n <= LANES. Masked loads give 0 elsewhere and touch no other memory. */
static inline vec_mask vec_first(int n) { return (vec_mask)((1u << n) - 1); }
static inline vec vec_load_mask(const float *p, vec_mask m) { return _mm512_maskz_loadu_ps(m, p); }
static inline void vec_store_mask(float *p, vec_mask m, vec a) { _mm512_mask_storeu_ps(p, m, a); }
static inline vec vec_select(vec_mask m, vec a, vec otherwise) { return _mm512_mask_blend_ps(m, otherwise, a); }

static inline vec vec_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec vec_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }   /* a b + c */
static inline vec vec_fms(vec a, vec b, vec c) { return _mm512_fmsub_ps(a, b, c); }   /* a b - c */
static inline vec vec_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a b */
static inline vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }               /* b where either is NaN */
static inline vec vec_min(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline float vec_sum(vec a) { return _mm512_reduce_add_ps(a); }
/* The sums of the lanes of four vectors. */
#define HAS_VEC_SUMS
static inline __m128 vec_sums(vec a, vec b, vec c, vec d)
{
    const vec ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); /* in each quarter: a0 + a2, b0 + b2, a1 + a3, b1 + b3 */
    const vec cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const vec quarters = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(1, 0, 1, 0)), _mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 2, 3, 2)));
    const __m256 halves = _mm256_add_ps(_mm512_castps512_ps256(quarters), _mm512_extractf32x8_ps(quarters, 1));
    return _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
}
static inline float vec_max_lane(vec a) { return _mm512_reduce_max_ps(a); }

static inline vec vec_round(vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* a * 2^n for integral n in [-200, 200], with gradual underflow and overflow to infinity. */
static inline vec vec_scale2(vec a, vec n) { return _mm512_scalef_ps(a, n); }

static inline vec vec_from_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

static inline vec vec_from_bf16(const void *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}

static inline vec vec_from_i8(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

/* LANES bytes, of each the bits (byte >> shift) & mask. */
static inline vec vec_from_bits(const uint8_t *p, int shift, int mask)
{
    __m512i bits = _mm512_srl_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)), _mm_cvtsi32_si128(shift));
    return _mm512_cvtepi32_ps(_mm512_and_si512(bits, _mm512_set1_epi32(mask)));
}

static inline vec vec_f16_set1(const uint16_t *p) { return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(*p))); }

/* The scale of a q8_0 block in all lanes. Converting from memory, where unused bytes follow the scale, spares a shuffle. */
static inline vec vec_q8_0_scale(const struct block_q8_0 *block)
{
    return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)block)));
}

/* (c0, c0, c1, c1, ...) from LANES / 2 values; (x1, x0, x3, x2, ...); even lanes a b - c, odd lanes a b + c. */
static inline vec vec_load_pairs(const float *p)
{
    __m512i lanes = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(lanes, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}
static inline vec vec_swap_pairs(vec a) { return _mm512_permute_ps(a, 0xB1); }
static inline vec vec_fmaddsub(vec a, vec b, vec c) { return _mm512_fmaddsub_ps(a, b, c); }

/* Four floats from each of the rows i, i + 4, i + 8, i + 12. */
static inline vec vec_load_quads(const float *const *row, int i, int64_t at)
{
    vec v = _mm512_castps128_ps512(_mm_loadu_ps(row[i] + at));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(row[i + 4] + at), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(row[i + 8] + at), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps(row[i + 12] + at), 3);
}

/* Transpose the 4 x 4 matrices that lie in the 128-bit parts of r[0..3]. */
static inline void vec_transpose_quads(vec r[4])
{
    vec a = _mm512_unpacklo_ps(r[0], r[1]), b = _mm512_unpackhi_ps(r[0], r[1]);
    vec c = _mm512_unpacklo_ps(r[2], r[3]), d = _mm512_unpackhi_ps(r[2], r[3]);
    r[0] = _mm512_shuffle_ps(a, c, 0x44);
    r[1] = _mm512_shuffle_ps(a, c, 0xEE);
    r[2] = _mm512_shuffle_ps(b, d, 0x44);
    r[3] = _mm512_shuffle_ps(b, d, 0xEE);
}

#endif
