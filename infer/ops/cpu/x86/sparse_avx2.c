/* A group of neurons times their activations with AVX2: the digits of two neurons side by side in 16 bits, eight rows at a time. */
#include <immintrin.h>
#include <string.h>

#include "infer/ops/cpu/sparse_rows.h"
#include "infer/ops/cpu/x86/compiler.h"

/* The sums of 32 bytes of digits, register i holding bytes 16 (lane) + 4 i .. + 3. */
struct totals {
    __m256i at[4];
};

static ALWAYS_INLINE void add_two(struct totals *t, __m256i a, __m256i b, __m256i x)
{
    const __m256i lo = _mm256_unpacklo_epi8(a, b), hi = _mm256_unpackhi_epi8(a, b); /* bytes: a b a b ... */
    const __m256i lo_even = _mm256_srai_epi16(_mm256_slli_epi16(lo, 8), 8), lo_odd = _mm256_srai_epi16(lo, 8);
    const __m256i hi_even = _mm256_srai_epi16(_mm256_slli_epi16(hi, 8), 8), hi_odd = _mm256_srai_epi16(hi, 8);
    t->at[0] = _mm256_add_epi32(t->at[0], _mm256_madd_epi16(_mm256_unpacklo_epi16(lo_even, lo_odd), x));
    t->at[1] = _mm256_add_epi32(t->at[1], _mm256_madd_epi16(_mm256_unpackhi_epi16(lo_even, lo_odd), x));
    t->at[2] = _mm256_add_epi32(t->at[2], _mm256_madd_epi16(_mm256_unpacklo_epi16(hi_even, hi_odd), x));
    t->at[3] = _mm256_add_epi32(t->at[3], _mm256_madd_epi16(_mm256_unpackhi_epi16(hi_even, hi_odd), x));
}

/* Digits of 32 bytes of a neuron: `at` the first row of 64, second: the later 32 bytes of them. */
static ALWAYS_INLINE __m256i unpack(const uint8_t *row, int64_t n, int64_t at, int second, const enum dtype type)
{
    if (type == DTYPE_Q8_0)
        return _mm256_loadu_si256((const __m256i *)(row + at + 32 * second));
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i q = _mm256_loadu_si256((const __m256i *)(row + at / 128 * 64 + 32 * second));
    q = _mm256_and_si256(at & 64 ? _mm256_srli_epi16(q, 4) : q, nibble);
    if (type != DTYPE_Q6_K)
        return q;
    __m256i upper = _mm256_loadu_si256((const __m256i *)(row + n / 2 + at / 256 * 64 + 32 * second));
    upper = _mm256_srl_epi16(upper, _mm_cvtsi32_si128((int)(at & 192) / 32));
    return _mm256_or_si256(q, _mm256_slli_epi16(_mm256_and_si256(upper, _mm256_set1_epi8(3)), 4));
}

static ALWAYS_INLINE __m256 halves(const char *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

/* Rows r .. r + 7. */
static ALWAYS_INLINE void finish(float *y, __m256i total, const struct sparse_product *p, int64_t r, const enum dtype type)
{
    const struct sparse_group *g = p->active;
    __m256 scale, sum = _mm256_loadu_ps(y);
    if (type == DTYPE_Q4_0)
        total = _mm256_sub_epi32(total, _mm256_set1_epi32(8 * g->sum));
    if (type == DTYPE_Q6_K)
        total = _mm256_sub_epi32(total, _mm256_set1_epi32(32 * g->sum));
    if (type == DTYPE_Q4_K) {
        const __m256 minimum = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p->data + p->n + r))));
        scale = _mm256_mul_ps(halves(p->super + 2 * r), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p->data + r)))));
        sum = _mm256_fnmadd_ps(_mm256_mul_ps(halves(p->super + 2 * (p->n + r)), minimum), _mm256_set1_ps((float)g->sum * g->d), sum);
    } else if (type == DTYPE_Q6_K) {
        scale = _mm256_mul_ps(halves(p->super + 2 * r), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p->data + r)))));
    } else {
        scale = halves(p->data + 2 * r);
    }
    _mm256_storeu_ps(y, _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), _mm256_mul_ps(scale, _mm256_set1_ps(g->d)), sum));
}

static ALWAYS_INLINE void group(float *y, const struct sparse_product *p, int64_t begin, int64_t end, const enum dtype type)
{
    const struct sparse_group *g = p->active;
    const uint8_t *digits = (const uint8_t *)p->data + p->layout->header;
    for (int64_t at = begin; at < end; at += 64) {
        struct totals t[2] = {{{{0}}}};
        for (int k = 0; k < g->n; k += 2) {
            const uint8_t *a = digits + g->at[k] * p->layout->row, *b = digits + g->at[k + 1] * p->layout->row;
            const __m256i x = _mm256_set1_epi32((g->hi[k] << 8 | g->lo[k]) | (g->hi[k + 1] << 8 | g->lo[k + 1]) << 16);
            UNROLL
            for (int second = 0; second < 2; second++)
                add_two(&t[second], unpack(a, p->n, at, second, type), unpack(b, p->n, at, second, type), x);
        }
        UNROLL
        for (int i = 0; i < 4; i++) { /* rows 16 i: four of each 16 bytes */
            finish(y + (at - begin) + 16 * i, t[0].at[i], p, at + 16 * i, type);
            finish(y + (at - begin) + 16 * i + 8, t[1].at[i], p, at + 16 * i + 8, type);
        }
    }
}

void sparse_group_avx2(float *y, const struct sparse_product *p, int64_t begin, int64_t end)
{
    if (p->active->n == 0)
        return;
    switch (p->type) {
    case DTYPE_Q8_0: group(y, p, begin, end, DTYPE_Q8_0); break;
    case DTYPE_Q4_0: group(y, p, begin, end, DTYPE_Q4_0); break;
    case DTYPE_Q4_K: group(y, p, begin, end, DTYPE_Q4_K); break;
    default: group(y, p, begin, end, DTYPE_Q6_K); break;
    }
}
