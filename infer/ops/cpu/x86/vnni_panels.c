/* Quantised weights with AVX-512 VNNI: panels of 32 columns of B, and the register tile of 6 by 32 over them. */
#include "infer/ops/cpu/x86/compiler.h"
#include "infer/ops/cpu/x86/transpose.h"
#include "infer/ops/cpu/x86/vnni.h"

/* A panel: digits (NARROW_KC / 4, NARROW_NR, 4), scales (blocks, NARROW_NR), minimums (blocks, NARROW_NR) of q4_K. */
enum { NR = NARROW_NR, SCALES_AT = NARROW_KC * NR, MINIMUMS_AT = SCALES_AT + NARROW_KC / 16 * NR * 4 };
_Static_assert(MINIMUMS_AT + NARROW_KC / 32 * NR * 4 <= NARROW_PANEL_BYTES && NARROW_KC % 256 == 0, "the panel fits");

/* Digits of elements [at, at + 64) of a row as unsigned bytes, for what they stand see vnni.h; `one`: the row ends after 32. */
static ALWAYS_INLINE __m512i digits_64(const void *row, const enum dtype type, int64_t at, bool one)
{
    const __m512i nibble = _mm512_set1_epi8(15);
    if (type == DTYPE_Q8_0) {
        const struct block_q8_0 *block = (const struct block_q8_0 *)row + at / 32;
        __m512i q = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)block[0].q));
        if (!one)
            q = _mm512_inserti64x4(q, _mm256_loadu_si256((const __m256i *)block[1].q), 1);
        return _mm512_xor_si512(q, _mm512_set1_epi8(-128));
    }
    if (type == DTYPE_Q4_0) {
        const struct block_q4_0 *block = (const struct block_q4_0 *)row + at / 32;
        __m128i first = _mm_loadu_si128((const __m128i *)block[0].q), second = _mm_setzero_si128();
        if (!one)
            second = _mm_loadu_si128((const __m128i *)block[1].q);
        __m256i low = _mm256_set_m128i(first, _mm_slli_epi16(first, 4));
        __m256i up = _mm256_set_m128i(second, _mm_slli_epi16(second, 4));
        return _mm512_and_si512(_mm512_inserti64x4(_mm512_castsi256_si512(low), up, 1), _mm512_set1_epi8(-16));
    }
    if (type == DTYPE_Q4_K) {
        const struct block_q4_k *block = (const struct block_q4_k *)row + at / 256;
        __m256i q = _mm256_loadu_si256((const __m256i *)(block->q + at % 256 / 2));
        return _mm512_and_si512(_mm512_inserti64x4(_mm512_castsi256_si512(q), _mm256_srli_epi16(q, 4), 1), nibble);
    }
    const struct block_q6_k *block = (const struct block_q6_k *)row + at / 256;
    int half = (int)(at % 256 / 128);
    bool upper = at % 128 != 0;
    __m512i low = _mm512_loadu_si512(block->ql + 64 * half);
    __m512i high = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(block->qh + 32 * half)));
    low = _mm512_slli_epi16(_mm512_and_si512(upper ? _mm512_srli_epi16(low, 4) : low, nibble), 2);
    __m512i shifts = _mm512_inserti64x4(_mm512_set1_epi16(upper ? 2 : 6), _mm256_set1_epi16(upper ? 0 : 4), 1);
    return _mm512_or_si512(low, _mm512_and_si512(_mm512_sllv_epi16(high, shifts), _mm512_set1_epi8(-64)));
}

static inline float half(uint16_t h)
{
    return _cvtsh_ss(h);
}

/* Scales, and for q4_K minimums, of column j of the panel over [p, p + n). */
static ALWAYS_INLINE void put_scales(float *scale, float *minimum, const void *row, const enum dtype type, int j, int64_t p,
                                     int64_t n)
{
    if (type == DTYPE_Q8_0 || type == DTYPE_Q4_0) {
        for (int64_t b = 0; b * 32 < n; b++)
            scale[b * NR + j] = type == DTYPE_Q8_0 ? half(((const struct block_q8_0 *)row + p / 32 + b)->d)
                                                   : half(((const struct block_q4_0 *)row + p / 32 + b)->d) * (1.0f / 16);
    } else if (type == DTYPE_Q4_K) {
        for (int64_t at = 0; at < n; at += 256) {
            const struct block_q4_k *block = (const struct block_q4_k *)row + (p + at) / 256;
            float d = half(block->d), dmin = half(block->dmin);
            const uint8_t *s = block->scales;
            for (int b = 0; b < 8; b++) {
                int i = b & 3, sc = b < 4 ? s[i] & 63 : (s[i + 8] & 15) | s[i] >> 6 << 4;
                int m = b < 4 ? s[i + 4] & 63 : s[i + 8] >> 4 | s[i + 4] >> 6 << 4;
                scale[(at / 32 + b) * NR + j] = d * (float)sc;
                minimum[(at / 32 + b) * NR + j] = dmin * (float)m;
            }
        }
    } else {
        for (int64_t at = 0; at < n; at += 256) {
            const struct block_q6_k *block = (const struct block_q6_k *)row + (p + at) / 256;
            float d = half(block->d) * 0.25f;
            for (int b = 0; b < 16; b++)
                scale[(at / 16 + b) * NR + j] = d * (float)block->scales[b];
        }
    }
}

static ALWAYS_INLINE void pack_type(char *panel, const char *rows, size_t row_bytes, int columns, int64_t p, int64_t n,
                                    const enum dtype type)
{
    float *scale = (float *)(panel + SCALES_AT), *minimum = (float *)(panel + MINIMUMS_AT);
    for (int first = 0; first < NR; first += 16)
        for (int64_t at = 0; at < n; at += 64) {
            __m512i r[16];
            UNROLL
            for (int j = 0; j < 16; j++)
                r[j] = first + j < columns ? digits_64(rows + (size_t)(first + j) * row_bytes, type, p + at, n - at <= 32)
                                           : _mm512_setzero_si512();
            transpose_16(r);
            UNROLL
            for (int q = 0; q < 16; q++)
                _mm512_store_si512(panel + (at / 4 + q) * NR * 4 + first * 4, r[q]);
        }
    for (int j = 0; j < NR; j++)
        if (j < columns)
            put_scales(scale, minimum, rows + (size_t)j * row_bytes, type, j, p, n);
        else
            for (int b = 0; b < NARROW_KC / 16; b++)
                scale[b * NR + j] = minimum[b / 2 * NR + j] = 0;
}

void vnni_pack(void *panel, const void *rows, size_t row_bytes, int columns, int64_t p, int64_t n, const struct narrow_format *f)
{
    switch (f->type) {
    case DTYPE_Q8_0:
        pack_type(panel, rows, row_bytes, columns, p, n, DTYPE_Q8_0);
        break;
    case DTYPE_Q4_0:
        pack_type(panel, rows, row_bytes, columns, p, n, DTYPE_Q4_0);
        break;
    case DTYPE_Q4_K:
        pack_type(panel, rows, row_bytes, columns, p, n, DTYPE_Q4_K);
        break;
    default:
        pack_type(panel, rows, row_bytes, columns, p, n, DTYPE_Q6_K);
    }
}

static ALWAYS_INLINE __m512i broadcast_4(const int8_t *p)
{
    int32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

/* One block of `sub` terms of each row's digits times the panel's, as integers. */
static ALWAYS_INLINE void dot_block(__m512i *left, __m512i *right, const int8_t *const *a, int64_t at, const char *b,
                                    const int rows, const int sub)
{
    UNROLL
    for (int q = 0; q < sub / 4; q++) {
        __m512i b0 = _mm512_load_si512(b + q * NR * 4), b1 = _mm512_load_si512(b + q * NR * 4 + 64);
        UNROLL
        for (int i = 0; i < rows; i++) {
            __m512i four = broadcast_4(a[i] + at + 4 * q);
            left[i] = _mm512_dpbusd_epi32(left[i], b0, four);
            right[i] = _mm512_dpbusd_epi32(right[i], b1, four);
        }
    }
}

static ALWAYS_INLINE void store_row(float *to, __m512 value, __mmask16 mask, __m512 alpha, bool accumulate)
{
    __m512 before = accumulate ? _mm512_maskz_loadu_ps(mask, to) : _mm512_setzero_ps();
    _mm512_mask_storeu_ps(to, mask, _mm512_fmadd_ps(alpha, value, before));
}

static ALWAYS_INLINE void tile_fixed(float *c, int64_t ldc, const char *a, size_t a_bytes, const char *panel, int columns,
                                     int64_t p, int64_t n, int64_t padded, float alpha, bool accumulate, const int rows,
                                     const int sub, const bool with_minimum, const bool high)
{
    const int8_t *hi[VNNI_MR], *lo[VNNI_MR];
    const float *d[VNNI_MR], *sum[VNNI_MR];
    const int32_t *offset[VNNI_MR];
    __m512 left[VNNI_MR], right[VNNI_MR];
    UNROLL
    for (int i = 0; i < rows; i++) {
        struct vnni_row row = vnni_row(a + (size_t)i * a_bytes, padded);
        hi[i] = row.hi + p;
        lo[i] = row.lo + p;
        d[i] = row.d + p / 32;
        sum[i] = row.sum + p / 32;
        offset[i] = row.offset + p / sub;
        left[i] = right[i] = _mm512_setzero_ps();
        __builtin_prefetch(c + i * ldc, 1);
        __builtin_prefetch(c + i * ldc + 16, 1);
    }
    const float *scale = (const float *)(panel + SCALES_AT), *minimum = (const float *)(panel + MINIMUMS_AT);
    for (int64_t at = 0; at < n; at += sub, scale += NR) {
        __m512i l[VNNI_MR], r[VNNI_MR];
        UNROLL
        for (int i = 0; i < rows; i++)
            l[i] = r[i] = with_minimum ? _mm512_setzero_si512() : _mm512_set1_epi32(offset[i][at / sub]);
        dot_block(l, r, hi, at, panel + at * NR, rows, sub);
        if (high) {
            UNROLL
            for (int i = 0; i < rows; i++) {
                l[i] = _mm512_slli_epi32(l[i], 7);
                r[i] = _mm512_slli_epi32(r[i], 7);
            }
            dot_block(l, r, lo, at, panel + at * NR, rows, sub);
        }
        __m512 s0 = _mm512_load_ps(scale), s1 = _mm512_load_ps(scale + 16);
        UNROLL
        for (int i = 0; i < rows; i++) {
            __m512 of_a = _mm512_set1_ps(d[i][at / 32]);
            left[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(l[i]), _mm512_mul_ps(s0, of_a), left[i]);
            right[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(r[i]), _mm512_mul_ps(s1, of_a), right[i]);
        }
        if (with_minimum) {
            __m512 m0 = _mm512_load_ps(minimum + at), m1 = _mm512_load_ps(minimum + at + 16);
            UNROLL
            for (int i = 0; i < rows; i++) {
                __m512 of_a = _mm512_set1_ps(sum[i][at / 32]);
                left[i] = _mm512_fnmadd_ps(m0, of_a, left[i]);
                right[i] = _mm512_fnmadd_ps(m1, of_a, right[i]);
            }
        }
    }
    __mmask16 first = (__mmask16)(columns >= 16 ? 0xFFFF : (1 << columns) - 1);
    __mmask16 second = (__mmask16)(columns >= 32 ? 0xFFFF : columns > 16 ? (1 << (columns - 16)) - 1 : 0);
    UNROLL
    for (int i = 0; i < rows; i++, c += ldc) {
        store_row(c, left[i], first, _mm512_set1_ps(alpha), accumulate);
        store_row(c + 16, right[i], second, _mm512_set1_ps(alpha), accumulate);
    }
}

/* minimum + at: a block of 32 elements has NR = 32 minimums. */
_Static_assert(NR == 32, "tile_fixed steps through the minimums by elements");

#define TILE_NAME(precision, kind, rows) tile_##precision##_##kind##_##rows
#define TILE(precision, kind, rows, sub, with_minimum, high) \
    static void TILE_NAME(precision, kind, rows)(float *c, int64_t ldc, const char *a, size_t a_bytes, const char *panel, int columns, \
                                                 int64_t p, int64_t n, int64_t padded, float alpha, bool accumulate) \
    { \
        tile_fixed(c, ldc, a, a_bytes, panel, columns, p, n, padded, alpha, accumulate, rows, sub, with_minimum, high); \
    }
#define TILES(precision, kind, sub, with_minimum, high) \
    TILE(precision, kind, 6, sub, with_minimum, high) \
    TILE(precision, kind, 3, sub, with_minimum, high) \
    TILE(precision, kind, 1, sub, with_minimum, high)
TILES(fast, plain, 32, false, false)
TILES(fast, minimum, 32, true, false)
TILES(fast, short, 16, false, false)
TILES(high, plain, 32, false, true)
TILES(high, minimum, 32, true, true)
TILES(high, short, 16, false, true)

typedef void tile_function(float *c, int64_t ldc, const char *a, size_t a_bytes, const char *panel, int columns, int64_t p,
                           int64_t n, int64_t padded, float alpha, bool accumulate);
#define ROWS(precision, kind) \
    {TILE_NAME(precision, kind, 6), TILE_NAME(precision, kind, 3), TILE_NAME(precision, kind, 1)}
static tile_function *const tiles[2][3][3] = { /* by precision, kind of blocks, rows */
    {ROWS(fast, plain), ROWS(fast, minimum), ROWS(fast, short)},
    {ROWS(high, plain), ROWS(high, minimum), ROWS(high, short)},
};

void vnni_tile(float *c, int64_t ldc, const void *a, size_t a_bytes, int rows, const void *panel, int columns, int64_t p,
               int64_t n, int64_t k, float alpha, bool accumulate, const struct narrow_format *f)
{
    static const int sizes[] = {6, 3, 1};
    int64_t padded = vnni_padded(k);
    int kind = f->type == DTYPE_Q4_K ? 1 : f->type == DTYPE_Q6_K ? 2 : 0;
    tile_function *const *by_rows = tiles[f->precision == PRECISION_HIGH][kind];
    const char *from = a;
    for (int s = 0; s < 3; s++)
        for (; rows >= sizes[s]; rows -= sizes[s], from += (size_t)sizes[s] * a_bytes, c += sizes[s] * ldc)
            by_rows[s](c, ldc, from, a_bytes, panel, columns, p, n, padded, alpha, accumulate);
}
