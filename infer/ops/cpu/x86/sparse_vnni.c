/* A group of neurons times their activations with AVX-512 VNNI: the digits of four neurons are interleaved, so that one instruction
 * multiplies and adds them up for sixteen rows. */
#include <immintrin.h>
#include <string.h>

#include "infer/ops/cpu/sparse_rows.h"
#include "infer/ops/cpu/x86/compiler.h"

/* 64 bytes of four neurons each, interleaved: register i holds rows 16 i .. 16 i + 15. */
static ALWAYS_INLINE void interleave(__m512i out[4], const uint8_t *const row[4], int64_t at)
{
    const __m512i a = _mm512_loadu_si512(row[0] + at), b = _mm512_loadu_si512(row[1] + at), c = _mm512_loadu_si512(row[2] + at),
                  d = _mm512_loadu_si512(row[3] + at);
    const __m512i ab0 = _mm512_unpacklo_epi8(a, b), ab1 = _mm512_unpackhi_epi8(a, b), cd0 = _mm512_unpacklo_epi8(c, d), cd1 = _mm512_unpackhi_epi8(c, d);
    out[0] = _mm512_unpacklo_epi16(ab0, cd0);
    out[1] = _mm512_unpackhi_epi16(ab0, cd0);
    out[2] = _mm512_unpacklo_epi16(ab1, cd1);
    out[3] = _mm512_unpackhi_epi16(ab1, cd1);
}

static ALWAYS_INLINE __m512i four_activations(const uint8_t *digit)
{
    int32_t four;
    memcpy(&four, digit, sizeof four);
    return _mm512_set1_epi32(four);
}

/* The sums of hi and lo times digits, for 64 rows. */
struct totals {
    __m512i hi[4], lo[4];
};

static ALWAYS_INLINE void add_four(struct totals *t, const __m512i digits[4], __m512i hi, __m512i lo)
{
    UNROLL
    for (int i = 0; i < 4; i++) {
        t->hi[i] = _mm512_dpbusd_epi32(t->hi[i], hi, digits[i]);
        t->lo[i] = _mm512_dpbusd_epi32(t->lo[i], lo, digits[i]);
    }
}

static ALWAYS_INLINE __m512 halves(const char *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

/* 64 rows from `at` on: their scales, and what the digits are too large by. */
static ALWAYS_INLINE void finish(float *y, const struct totals *t, const struct sparse_product *p, int64_t at, const enum dtype type)
{
    const struct sparse_group *g = p->active;
    const __m512 d = _mm512_set1_ps(g->d);
    const __m512i offset = _mm512_set1_epi32(type == DTYPE_Q4_0 ? 8 * g->sum : type == DTYPE_Q6_K ? 32 * g->sum : 0);
    UNROLL
    for (int i = 0; i < 4; i++) {
        const int64_t r = at + 16 * i;
        const __m512 total = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_add_epi32(_mm512_slli_epi32(t->hi[i], 8), t->lo[i]), offset));
        __m512 scale, sum = _mm512_loadu_ps(y + 16 * i);
        if (type == DTYPE_Q4_K) {
            const __m512 of_row = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(p->data + r))));
            const __m512 minimum = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(p->data + p->n + r))));
            scale = _mm512_mul_ps(halves(p->super + 2 * r), of_row);
            sum = _mm512_fnmadd_ps(_mm512_mul_ps(halves(p->super + 2 * (p->n + r)), minimum), _mm512_set1_ps((float)g->sum * g->d), sum);
        } else if (type == DTYPE_Q6_K) {
            scale = _mm512_mul_ps(halves(p->super + 2 * r), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p->data + r)))));
        } else {
            scale = halves(p->data + 2 * r);
        }
        _mm512_storeu_ps(y + 16 * i, _mm512_fmadd_ps(total, _mm512_mul_ps(scale, d), sum));
    }
}

/* Ask for what the next group will need of the digits at `at`. */
static ALWAYS_INLINE void ask(const struct sparse_product *p, const struct sparse_group *next, int64_t at)
{
    const char *digits = p->next + p->layout->header + at;
    for (int k = 0; k < next->n; k++)
        _mm_prefetch(digits + next->at[k] * p->layout->row, _MM_HINT_T0);
}

static ALWAYS_INLINE void group(float *y, const struct sparse_product *p, int64_t begin, int64_t end, const enum dtype type)
{
    const struct sparse_group *g = p->active;
    const int rows = type == DTYPE_Q8_0 ? 64 : 128; /* in 64 bytes of digits */
    const __m512i nibble = _mm512_set1_epi8(15);
    const uint8_t *digits = (const uint8_t *)p->data + p->layout->header;
    for (int64_t at = begin; at < end; at += rows) {
        struct totals t[2] = {{{{0}}}};
        if (p->next)
            ask(p, p->next_active, type == DTYPE_Q8_0 ? at : at / 2);
        if (p->next && type == DTYPE_Q6_K && at % 256 == 0)
            ask(p, p->next_active, p->n / 2 + at / 4);
        for (int k = 0; k < g->n; k += 4) {
            const uint8_t *row[4];
            UNROLL
            for (int i = 0; i < 4; i++)
                row[i] = digits + g->at[k + i] * p->layout->row;
            const __m512i hi = four_activations(g->hi + k), lo = four_activations(g->lo + k);
            __m512i q[4], half[4], upper[4];
            interleave(q, row, type == DTYPE_Q8_0 ? at : at / 2);
            if (type == DTYPE_Q8_0) {
                add_four(&t[0], q, hi, lo);
                continue;
            }
            if (type == DTYPE_Q6_K)
                interleave(upper, row, p->n / 2 + at / 256 * 64);
            UNROLL
            for (int h = 0; h < 2; h++) {
                UNROLL
                for (int i = 0; i < 4; i++) {
                    half[i] = _mm512_and_si512(h ? _mm512_srli_epi16(q[i], 4) : q[i], nibble);
                    if (type == DTYPE_Q6_K) { /* bits 2 h, and 4 more in the upper 128 rows, become bits 4 and 5 */
                        const __m512i u = at & 128 ? (h ? _mm512_srli_epi16(upper[i], 2) : upper[i])
                                                   : (h ? _mm512_slli_epi16(upper[i], 2) : _mm512_slli_epi16(upper[i], 4));
                        half[i] = _mm512_or_si512(half[i], _mm512_and_si512(u, _mm512_set1_epi8(0x30)));
                    }
                }
                add_four(&t[h], half, hi, lo);
            }
        }
        if (g->n) {
            finish(y + (at - begin), &t[0], p, at, type);
            if (type != DTYPE_Q8_0)
                finish(y + (at - begin) + 64, &t[1], p, at + 64, type);
        }
    }
}

void sparse_group_avx512vnni(float *y, const struct sparse_product *p, int64_t begin, int64_t end)
{
    switch (p->type) {
    case DTYPE_Q8_0: group(y, p, begin, end, DTYPE_Q8_0); break;
    case DTYPE_Q4_0: group(y, p, begin, end, DTYPE_Q4_0); break;
    case DTYPE_Q4_K: group(y, p, begin, end, DTYPE_Q4_K); break;
    default: group(y, p, begin, end, DTYPE_Q6_K); break;
    }
}
