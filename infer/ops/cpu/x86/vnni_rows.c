/* Quantised weights with AVX-512 VNNI: conversion of A, and products with rows of B read in place. */
#include <string.h>

#include "infer/ops/cpu/x86/compiler.h"
#include "infer/ops/cpu/x86/vnni.h"

static bool vnni_takes(const struct gemm *g)
{
    return dtype_is_quantized(g->b_type);
}

static size_t vnni_a_bytes(int64_t k, const struct narrow_format *f)
{
    int64_t padded = vnni_padded(k);
    /* An odd number of cache lines with panels: rows a power of two apart would share few sets of the caches. */
    return (size_t)(2 * padded + padded / 4 + (f->panels ? padded / 4 + 64 : padded));
}

/* Where in the row the two halves of a block lie: for rows of B in place, where their digits land when 64 bytes of digits are
 * split into low and high nibbles. */
static inline void block_places(int64_t block, const struct narrow_format *f, int64_t place[2])
{
    int64_t group = block / 4 * 128, i = block % 4;
    if (!f->panels && f->type == DTYPE_Q4_0) {
        place[0] = group + i * 16;
        place[1] = place[0] + 64;
    } else if (!f->panels && f->type == DTYPE_Q4_K) {
        place[0] = group + (i & 1) * 64 + (i >> 1) * 32;
        place[1] = place[0] + 16;
    } else {
        place[0] = block * 32;
        place[1] = place[0] + 16;
    }
}

/* The first n of 16 floats, 0 <= n. */
static inline __m512 load_first(const float *x, int64_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16)(n >= 16 ? 0xFFFF : n > 0 ? (1 << n) - 1 : 0), x);
}

static inline void convert_block(const struct vnni_row *to, int64_t block, __m512 x0, __m512 x1, const struct narrow_format *f)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i bits = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(x0), magnitude),
                                    _mm512_and_si512(_mm512_castps_si512(x1), magnitude));
    uint32_t largest_bits = _mm512_reduce_max_epu32(bits); /* as integers, so that NaN is the largest */
    bool high = f->precision == PRECISION_HIGH;
    float largest, levels = high ? 127.0f * 128.0f : 127.0f, d = 0, inverse = 0;
    memcpy(&largest, &largest_bits, sizeof largest);
    if (largest_bits >= 0x7f800000)
        d = __builtin_nanf(""); /* the damage stays visible */
    else if (largest > 0x1p-100f) { /* below, the reciprocal could overflow; the block counts as zero */
        d = largest / levels;
        inverse = levels / largest;
    }
    __m512 factor = _mm512_set1_ps(inverse);
    __m512i q0 = _mm512_setzero_si512(), q1 = q0;
    if (inverse != 0) {
        q0 = _mm512_cvtps_epi32(_mm512_mul_ps(x0, factor));
        q1 = _mm512_cvtps_epi32(_mm512_mul_ps(x1, factor));
    }
    ((float *)to->d)[block] = d;
    ((float *)to->sum)[block] = f->type == DTYPE_Q4_K ? d * (float)_mm512_reduce_add_epi32(_mm512_add_epi32(q0, q1)) : 0.0f;
    int64_t place[2];
    block_places(block, f, place);
    int8_t *hi = (int8_t *)to->hi, *lo = (int8_t *)to->lo;
    if (high) {
        const __m512i half = _mm512_set1_epi32(64);
        __m512i h0 = _mm512_srai_epi32(_mm512_add_epi32(q0, half), 7), h1 = _mm512_srai_epi32(_mm512_add_epi32(q1, half), 7);
        _mm_storeu_si128((__m128i *)(lo + place[0]), _mm512_cvtepi32_epi8(_mm512_sub_epi32(q0, _mm512_slli_epi32(h0, 7))));
        _mm_storeu_si128((__m128i *)(lo + place[1]), _mm512_cvtepi32_epi8(_mm512_sub_epi32(q1, _mm512_slli_epi32(h1, 7))));
        q0 = h0;
        q1 = h1;
    }
    _mm_storeu_si128((__m128i *)(hi + place[0]), _mm512_cvtepi32_epi8(q0));
    _mm_storeu_si128((__m128i *)(hi + place[1]), _mm512_cvtepi32_epi8(q1));
}

/* -128 * (sum of hi) - (sum of lo), where the sums run over the four bytes of a lane. Shifted left by the 7 bits of lo this is
 * -128 * sum of q. */
static inline __m512i lane_offset(const struct vnni_row *row, int64_t at, bool high)
{
    __m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(-128), _mm512_loadu_si512(row->hi + at));
    if (high)
        sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), _mm512_loadu_si512(row->lo + at));
    return _mm512_sub_epi32(_mm512_setzero_si512(), sum);
}

static void put_offsets(const struct vnni_row *row, int64_t k, const struct narrow_format *f)
{
    int32_t *to = (int32_t *)row->offset;
    bool high = f->precision == PRECISION_HIGH;
    if (f->type == DTYPE_Q4_K) {
        memset(to, 0, (size_t)(f->panels ? k / 32 : k / 4) * sizeof *to);
    } else if (!f->panels && f->type == DTYPE_Q4_0) { /* the halves of a block are summed in the same lanes */
        for (int64_t at = 0; at < k; at += 128, to += 16)
            _mm512_storeu_si512(to, _mm512_add_epi32(lane_offset(row, at, high), lane_offset(row, at + 64, high)));
    } else if (!f->panels) {
        for (int64_t at = 0; at < k; at += 64, to += 16)
            _mm512_storeu_si512(to, lane_offset(row, at, high));
    } else {
        for (int64_t at = 0; at < k; at += 64) {
            __m512i v = lane_offset(row, at, high); /* fold four lanes, and for blocks of 32 two times four */
            v = _mm512_add_epi32(v, _mm512_shuffle_epi32(v, _MM_PERM_CDAB));
            v = _mm512_add_epi32(v, _mm512_shuffle_epi32(v, _MM_PERM_BADC));
            if (f->type == DTYPE_Q6_K) {
                _mm_storeu_si128((__m128i *)to, _mm512_castsi512_si128(_mm512_maskz_compress_epi32(0x1111, v)));
                to += 4;
            } else {
                v = _mm512_add_epi32(v, _mm512_shuffle_i32x4(v, v, 0xB1));
                _mm_storel_epi64((__m128i *)to, _mm512_castsi512_si128(_mm512_maskz_compress_epi32(0x0101, v)));
                to += 2;
            }
        }
    }
}

static void vnni_convert_a(void *a, const float *x, int64_t k, const struct narrow_format *f)
{
    int64_t padded = vnni_padded(k);
    struct vnni_row row = vnni_row(a, padded);
    for (int64_t block = 0; block < padded / 32; block++)
        convert_block(&row, block, load_first(x + (block * 32 < k ? block * 32 : 0), k - block * 32),
                      load_first(x + (block * 32 + 16 < k ? block * 32 + 16 : 0), k - block * 32 - 16), f);
    put_offsets(&row, padded, f);
}

/* Sixteen f16 scales at a stride, as floats; zeros after `count`. Packed in general registers: the vector ports are busy. */
static ALWAYS_INLINE __m512 load_scales(const char *at, size_t stride, int count)
{
    uint64_t four[4] = {0};
    UNROLL
    for (int i = 0; i < 16; i++)
        if (i < count) {
            uint16_t d;
            memcpy(&d, at + (size_t)i * stride, 2);
            four[i / 4] |= (uint64_t)d << (i % 4 * 16);
            KEEP_SCALAR(four[i / 4]);
        }
    return _mm512_cvtph_ps(_mm256_set_epi64x((int64_t)four[3], (int64_t)four[2], (int64_t)four[1], (int64_t)four[0]));
}

/* sum += scale * (offset + digits . row at 64 bytes), with scales by lane. */
static ALWAYS_INLINE __m512 add_scaled(__m512 sum, __m512i integers, __m512 scale)
{
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(integers), scale, sum);
}

static ALWAYS_INLINE __m512i dot_bytes(__m512i from, __m512i digits, const struct vnni_row *a, int64_t at, const bool high)
{
    from = _mm512_dpbusd_epi32(from, digits, _mm512_loadu_si512(a->hi + at));
    if (high)
        from = _mm512_dpbusd_epi32(_mm512_slli_epi32(from, 7), digits, _mm512_loadu_si512(a->lo + at));
    return from;
}

/* Sums of the rows of A, two each to hide the latency. */
struct sums {
    __m512 even[NARROW_MAX_M], odd[NARROW_MAX_M];
};

static ALWAYS_INLINE __m512i q8_0_digits(const struct block_q8_0 *block, int count)
{
    __m512i q = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)block[0].q));
    if (count > 1)
        q = _mm512_inserti64x4(q, _mm256_loadu_si256((const __m256i *)block[1].q), 1);
    return _mm512_xor_si512(q, _mm512_set1_epi8(-128));
}

static ALWAYS_INLINE void q8_0_pair(struct sums *s, const struct block_q8_0 *block, int count, const struct vnni_row *a,
                                    const __m512 *scale, int64_t first, const int pair, const int m, const bool high)
{
    const __m512i twos = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    __m512i digits = q8_0_digits(block + 2 * pair, count), lanes = _mm512_add_epi32(twos, _mm512_set1_epi32(2 * pair));
    int64_t at = (first + 2 * pair) * 32;
    UNROLL
    for (int i = 0; i < m; i++) {
        __m512i dot = dot_bytes(_mm512_loadu_si512(a[i].offset + at / 4), digits, &a[i], at, high);
        __m512 *sum = pair & 1 ? &s->odd[i] : &s->even[i];
        *sum = add_scaled(*sum, dot, _mm512_permutexvar_ps(lanes, scale[i]));
    }
}

/* Blocks b .. b + count - 1, at most 16. */
static ALWAYS_INLINE void q8_0_blocks(struct sums *s, const void *row, const struct vnni_row *a, int64_t b, int count, const int m,
                                   const bool high)
{
    const struct block_q8_0 *block = (const struct block_q8_0 *)row + b;
    __m512 d = load_scales((const char *)block, sizeof *block, count), scale[NARROW_MAX_M];
    UNROLL
    for (int i = 0; i < m; i++)
        scale[i] = _mm512_mul_ps(d, _mm512_loadu_ps(a[i].d + b));
    UNROLL
    for (int pair = 0; pair < 8; pair++)
        if (2 * pair < count) {
            _mm_prefetch((const char *)block + WEIGHTS_AHEAD + 64 * pair, _MM_HINT_T1);
            q8_0_pair(s, block, count - 2 * pair, a, scale, b, pair, m, high);
        }
}

/* Four blocks: 64 bytes, the digits in the high nibbles, i.e. 16 times as large, which the caller's scales undo. */
static ALWAYS_INLINE void q4_0_four(struct sums *s, const struct block_q4_0 *block, int count, const struct vnni_row *a,
                                    const __m512 *scale, int64_t first, const int four, const int m, const bool high)
{
    const __m512i fours = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), mask = _mm512_set1_epi8(-16);
    block += 4 * four;
    __m512i q = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)block[0].q));
    if (count > 1)
        q = _mm512_inserti32x4(q, _mm_loadu_si128((const __m128i *)block[1].q), 1);
    if (count > 2)
        q = _mm512_inserti32x4(q, _mm_loadu_si128((const __m128i *)block[2].q), 2);
    if (count > 3)
        q = _mm512_inserti32x4(q, _mm_loadu_si128((const __m128i *)block[3].q), 3);
    __m512i front = _mm512_and_si512(_mm512_slli_epi16(q, 4), mask), back = _mm512_and_si512(q, mask);
    __m512i lanes = _mm512_add_epi32(fours, _mm512_set1_epi32(4 * four));
    int64_t at = (first + 4 * four) * 32;
    UNROLL
    for (int i = 0; i < m; i++) {
        __m512i dot = _mm512_loadu_si512(a[i].offset + at / 8);
        dot = _mm512_dpbusd_epi32(dot, front, _mm512_loadu_si512(a[i].hi + at));
        dot = _mm512_dpbusd_epi32(dot, back, _mm512_loadu_si512(a[i].hi + at + 64));
        if (high) {
            dot = _mm512_dpbusd_epi32(_mm512_slli_epi32(dot, 7), front, _mm512_loadu_si512(a[i].lo + at));
            dot = _mm512_dpbusd_epi32(dot, back, _mm512_loadu_si512(a[i].lo + at + 64));
        }
        __m512 *sum = four & 1 ? &s->odd[i] : &s->even[i];
        *sum = add_scaled(*sum, dot, _mm512_permutexvar_ps(lanes, scale[i]));
    }
}

static ALWAYS_INLINE void q4_0_blocks(struct sums *s, const void *row, const struct vnni_row *a, int64_t b, int count, const int m,
                                   const bool high)
{
    const struct block_q4_0 *block = (const struct block_q4_0 *)row + b;
    __m512 d = _mm512_mul_ps(load_scales((const char *)block, sizeof *block, count), _mm512_set1_ps(1.0f / 16)),
           scale[NARROW_MAX_M];
    UNROLL
    for (int i = 0; i < m; i++)
        scale[i] = _mm512_mul_ps(d, _mm512_loadu_ps(a[i].d + b));
    UNROLL
    for (int four = 0; four < 4; four++)
        if (4 * four < count) {
            _mm_prefetch((const char *)block + WEIGHTS_AHEAD + 72 * four, _MM_HINT_T0);
            q4_0_four(s, block, count - 4 * four, a, scale, b, four, m, high);
        }
}

/* The last blocks, fewer than 8: apart, so that the loop over the others keeps its sums in registers. */
static __attribute__((noinline)) void blocks_left(struct sums *s, const void *row, const struct vnni_row *a, int64_t b, int count, enum dtype type,
                                                  int m, bool high)
{
    for (int i = 0; i < m; i++) {
        struct sums one = {{s->even[i]}, {s->odd[i]}};
        if (type == DTYPE_Q8_0)
            q8_0_blocks(&one, row, a + i, b, count, 1, high);
        else
            q4_0_blocks(&one, row, a + i, b, count, 1, high);
        s->even[i] = one.even[0];
        s->odd[i] = one.odd[0];
    }
}

static ALWAYS_INLINE void blocks_of(struct sums *s, const void *row, const struct vnni_row *a, int64_t b, const int count, const enum dtype type,
                                    const int m, const bool high)
{
    if (type == DTYPE_Q8_0)
        q8_0_blocks(s, row, a, b, count, m, high);
    else
        q4_0_blocks(s, row, a, b, count, m, high);
}

static ALWAYS_INLINE void blocks_dot(struct sums *s, const void *row, const struct vnni_row *a, int64_t k, const enum dtype type, const int m,
                                     const bool high)
{
    const int64_t n = vnni_blocks(k);
    int64_t b = 0;
    for (; b + 16 <= n; b += 16)
        blocks_of(s, row, a, b, 16, type, m, high);
    if (b + 8 <= n) { /* rows of 256 are common in small models */
        blocks_of(s, row, a, b, 8, type, m, high);
        b += 8;
    }
    if (b < n) {
        struct sums in_memory = *s;
        blocks_left(&in_memory, row, a, b, (int)(n - b), type, m, high);
        *s = in_memory;
    }
}

/* The 6-bit scales in the low eight lanes, the minimums in the high eight, both multiplied by their f16 scale. */
static ALWAYS_INLINE __m512 q4_k_scales_and_minimums(const struct block_q4_k *block)
{
    uint32_t u[3];
    memcpy(u, block->scales, sizeof u);
    uint32_t scale_high = (u[2] & 0x0f0f0f0f) | (u[0] >> 6 & 0x03030303) << 4;
    uint32_t minimum_high = (u[2] >> 4 & 0x0f0f0f0f) | (u[1] >> 6 & 0x03030303) << 4;
    uint64_t scales = (u[0] & 0x3f3f3f3f) | (uint64_t)scale_high << 32,
             minimums = (u[1] & 0x3f3f3f3f) | (uint64_t)minimum_high << 32;
    int32_t halves;
    memcpy(&halves, &block->d, sizeof halves); /* d, dmin */
    __m512 factor = _mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi32_si128(halves)));
    factor = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), factor);
    return _mm512_mul_ps(factor, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_set_epi64x((int64_t)minimums, (int64_t)scales))));
}

static ALWAYS_INLINE void q4_k_dot(struct sums *s, const void *row, const struct vnni_row *a, int64_t k, const int m,
                                   const bool high)
{
    const __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2), nibble = _mm512_set1_epi8(15);
    for (int64_t at = 0; at < k; at += 256) {
        const struct block_q4_k *block = (const struct block_q4_k *)row + at / 256;
        __m512 weights = q4_k_scales_and_minimums(block), scale[NARROW_MAX_M];
        _mm_prefetch((const char *)block + WEIGHTS_AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)block + WEIGHTS_AHEAD + 64, _MM_HINT_T0);
        UNROLL
        for (int i = 0; i < m; i++) {
            __m512 d = _mm512_castps256_ps512(_mm256_loadu_ps(a[i].d + at / 32));
            scale[i] = _mm512_mul_ps(weights, _mm512_insertf32x8(d, _mm256_loadu_ps(a[i].sum + at / 32), 1));
            s->odd[i] = _mm512_mask_sub_ps(s->odd[i], 0xFF00, s->odd[i], scale[i]);
        }
        UNROLL
        for (int half = 0; half < 2; half++) {
            __m512i q = _mm512_loadu_si512(block->q + 64 * half);
            __m512i low = _mm512_and_si512(q, nibble), up = _mm512_and_si512(_mm512_srli_epi16(q, 4), nibble);
            UNROLL
            for (int i = 0; i < m; i++) {
                __m512i front = dot_bytes(_mm512_setzero_si512(), low, &a[i], at + 128 * half, high);
                __m512i back = dot_bytes(_mm512_setzero_si512(), up, &a[i], at + 128 * half + 64, high);
                s->even[i] = add_scaled(s->even[i], front,
                                        _mm512_permutexvar_ps(_mm512_add_epi32(lanes, _mm512_set1_epi32(4 * half)), scale[i]));
                s->odd[i] = add_scaled(s->odd[i], back,
                                       _mm512_permutexvar_ps(_mm512_add_epi32(lanes, _mm512_set1_epi32(4 * half + 1)), scale[i]));
            }
        }
    }
}

/* 64 digits of quarters 2 `pair` and 2 `pair` + 1 of a half, times 4, which the caller's scales undo. */
static ALWAYS_INLINE __m512i q6_k_digits(const struct block_q6_k *block, const int half, const int pair)
{
    __m512i low = _mm512_loadu_si512(block->ql + 64 * half);
    __m512i high = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(block->qh + 32 * half)));
    low = pair ? _mm512_srli_epi16(low, 2) : _mm512_slli_epi16(low, 2);
    const __m512i shifts = pair ? _mm512_inserti64x4(_mm512_set1_epi16(2), _mm256_setzero_si256(), 1)
                                : _mm512_inserti64x4(_mm512_set1_epi16(6), _mm256_set1_epi16(4), 1);
    high = _mm512_and_si512(_mm512_sllv_epi16(high, shifts), _mm512_set1_epi8(-64));
    return _mm512_ternarylogic_epi32(low, _mm512_set1_epi8(0x3C), high, 0xEA); /* (low & 0x3C) | high */
}

static ALWAYS_INLINE void q6_k_dot(struct sums *s, const void *row, const struct vnni_row *a, int64_t k, const int m,
                                   const bool high)
{
    const __m512i fours = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    const __m512i doubled = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    for (int64_t at = 0; at < k; at += 256) {
        const struct block_q6_k *block = (const struct block_q6_k *)row + at / 256;
        UNROLL
        for (int line = 0; line < 4; line++)
            _mm_prefetch((const char *)block + WEIGHTS_AHEAD + 64 * line, _MM_HINT_T0);
        __m512 weights = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)block->scales))),
               scale[NARROW_MAX_M];
        __m512 d = _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(block->d)));
        weights = _mm512_mul_ps(weights, _mm512_mul_ps(d, _mm512_set1_ps(0.25f)));
        UNROLL
        for (int i = 0; i < m; i++) {
            __m512 of_a = _mm512_permutexvar_ps(doubled, _mm512_castps256_ps512(_mm256_loadu_ps(a[i].d + at / 32)));
            scale[i] = _mm512_mul_ps(weights, of_a);
        }
        UNROLL
        for (int quarter = 0; quarter < 4; quarter++) {
            __m512i digits = q6_k_digits(block, quarter / 2, quarter % 2),
                    lanes = _mm512_add_epi32(fours, _mm512_set1_epi32(4 * quarter));
            int64_t place = at + 64 * quarter;
            UNROLL
            for (int i = 0; i < m; i++) {
                __m512i dot = dot_bytes(_mm512_loadu_si512(a[i].offset + place / 4), digits, &a[i], place, high);
                __m512 *sum = quarter & 1 ? &s->odd[i] : &s->even[i];
                *sum = add_scaled(*sum, dot, _mm512_permutexvar_ps(lanes, scale[i]));
            }
        }
    }
}

static ALWAYS_INLINE void row_dot_fixed(float *out, const void *row, const struct vnni_row *a, int64_t k, const enum dtype type,
                                        const int m, const bool high)
{
    struct sums s;
    UNROLL
    for (int i = 0; i < m; i++)
        s.even[i] = s.odd[i] = _mm512_setzero_ps();
    if (type == DTYPE_Q8_0 || type == DTYPE_Q4_0)
        blocks_dot(&s, row, a, k, type, m, high);
    else if (type == DTYPE_Q4_K)
        q4_k_dot(&s, row, a, k, m, high);
    else
        q6_k_dot(&s, row, a, k, m, high);
    UNROLL
    for (int i = 0; i < m; i++)
        out[i] = _mm512_reduce_add_ps(_mm512_add_ps(s.even[i], s.odd[i]));
}

/* The sums of a row of A do not depend on the rows beside it. */
static ALWAYS_INLINE void row_dot_type(float *out, const void *row, const struct vnni_row *a, int m, int64_t k,
                                       const enum dtype type, const bool high)
{
    if (m == 4) {
        row_dot_fixed(out, row, a, k, type, 4, high);
        return;
    }
    for (int i = 0; i < m; i++) /* a kernel of its own for two rows would be a third of this file's code */
        row_dot_fixed(out + i, row, a + i, k, type, 1, high);
}

static void vnni_row_dot(float *out, const void *row, const void *a, size_t a_bytes, int m, int64_t k,
                         const struct narrow_format *f)
{
    struct vnni_row rows[NARROW_MAX_M];
    int64_t padded = vnni_padded(k);
    for (int i = 0; i < m; i++)
        rows[i] = vnni_row((const char *)a + (size_t)i * a_bytes, padded);
    bool high = f->precision == PRECISION_HIGH;
    switch (f->type) {
#define TYPE(type) \
    case type: \
        if (high) \
            row_dot_type(out, row, rows, m, k, type, true); \
        else \
            row_dot_type(out, row, rows, m, k, type, false); \
        break
        TYPE(DTYPE_Q8_0);
        TYPE(DTYPE_Q4_0);
        TYPE(DTYPE_Q4_K);
        TYPE(DTYPE_Q6_K);
#undef TYPE
    default:
        break;
    }
}

const struct narrow_kernel narrow_kernel_avx512vnni = {
    .takes = vnni_takes, .a_bytes = vnni_a_bytes, .convert_a = vnni_convert_a, .row_dot = vnni_row_dot,
    .mr = VNNI_MR, .pack = vnni_pack, .tile = vnni_tile,
};
