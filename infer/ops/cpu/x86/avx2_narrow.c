/* Quantised weights with AVX2: products with rows of B read in place. vpmaddubsw multiplies unsigned by signed bytes into 16
 * bits: signed digits go in as |digit| and activation * sign(digit), so that no sum exceeds 2 * 127 * 127. */
#include <string.h>

#include "infer/ops/cpu/narrow.h"
#include "infer/ops/cpu/x86/compiler.h"
#include "infer/ops/cpu/x86/vec_avx2.h"

static bool takes(const struct gemm *g)
{
    return dtype_is_quantized(g->b_type) && g->m <= NARROW_MAX_M;
}

static int64_t padded(int64_t k)
{
    return (k + NARROW_PAD - 1) / NARROW_PAD * NARROW_PAD;
}

/* A converted row of k (padded) elements: hi (k), lo (k), d (k / 32), d * sum of the integers (k / 32). A block is d * q, with q
 * = hi, or with PRECISION_HIGH q = 128 hi + lo. */
struct row {
    const int8_t *hi, *lo;
    const float *d, *sum;
};

static struct row row_at(const void *a, int64_t k)
{
    const int8_t *p = a;
    return (struct row){p, p + k, (const float *)(const void *)(p + 2 * k), (const float *)(const void *)(p + 2 * k + k / 8)};
}

static size_t a_bytes(int64_t k, const struct narrow_format *f)
{
    (void)f;
    return (size_t)(2 * padded(k) + padded(k) / 4);
}

/* Four vectors of 32-bit integers in [-128, 127] as 32 bytes in order. */
static inline __m256i narrow_bytes(const __m256i q[4])
{
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

static inline int sum_lanes(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
}

static void convert_block(const struct row *to, int64_t block, const float *x, bool high)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256 v[4];
    __m256i most = _mm256_setzero_si256(), q[4];
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        most =
            _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude)); /* as integers: NaN is the largest */
    }
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1));
    int32_t largest_bits = _mm_cvtsi128_si32(m);
    float largest, levels = high ? 127.0f * 128.0f : 127.0f, d = 0, inverse = 0;
    memcpy(&largest, &largest_bits, sizeof largest);
    if (largest_bits >= 0x7f800000)
        d = __builtin_nanf(""); /* the damage stays visible */
    else if (largest > 0x1p-100f) { /* below, the reciprocal could overflow; the block counts as zero */
        d = largest / levels;
        inverse = levels / largest;
    }
    __m256i total = _mm256_setzero_si256(), h[4];
    for (int i = 0; i < 4; i++) {
        q[i] = inverse != 0 ? _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse))) : _mm256_setzero_si256();
        total = _mm256_add_epi32(total, q[i]);
        h[i] = q[i];
        if (high) {
            h[i] = _mm256_srai_epi32(_mm256_add_epi32(q[i], _mm256_set1_epi32(64)), 7);
            q[i] = _mm256_sub_epi32(q[i], _mm256_slli_epi32(h[i], 7));
        }
    }
    _mm256_storeu_si256((__m256i *)(to->hi + 32 * block), narrow_bytes(h));
    if (high)
        _mm256_storeu_si256((__m256i *)(to->lo + 32 * block), narrow_bytes(q));
    ((float *)to->d)[block] = d;
    ((float *)to->sum)[block] = d * (float)sum_lanes(total);
}

static void convert_a(void *a, const float *x, int64_t k, const struct narrow_format *f)
{
    struct row to = row_at(a, padded(k));
    for (int64_t block = 0; block < padded(k) / 32; block++) {
        int64_t left = k - 32 * block;
        float last[32] = {0};
        if (left > 0 && left < 32)
            memcpy(last, x + 32 * block, (size_t)left * sizeof *last);
        convert_block(&to, block, left >= 32 ? x + 32 * block : last, f->precision == PRECISION_HIGH);
    }
}

/* Products of 32 digits with 32 bytes of A in 8 lanes of 4. */
static ALWAYS_INLINE __m256i dot_signed(__m256i digits, const int8_t *a)
{
    __m256i pairs =
        _mm256_maddubs_epi16(_mm256_abs_epi8(digits), _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)a), digits));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

static ALWAYS_INLINE __m256i dot_unsigned(__m256i digits, const int8_t *a)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(digits, _mm256_loadu_si256((const __m256i *)a)), _mm256_set1_epi16(1));
}

static ALWAYS_INLINE __m256 dot_block(__m256i digits, const bool is_signed, const struct row *a, int64_t block, const bool high)
{
    __m256i sum = is_signed ? dot_signed(digits, a->hi + 32 * block) : dot_unsigned(digits, a->hi + 32 * block);
    if (high) {
        __m256i low = is_signed ? dot_signed(digits, a->lo + 32 * block) : dot_unsigned(digits, a->lo + 32 * block);
        sum = _mm256_add_epi32(_mm256_slli_epi32(sum, 7), low);
    }
    return _mm256_cvtepi32_ps(sum);
}

static inline float half(uint16_t h)
{
    return _cvtsh_ss(h);
}

/* Sums of the rows of A: products with digits, and what the minimums of q4_K take off. */
struct sums {
    __m256 product[NARROW_MAX_M];
    __m256 minimum[NARROW_MAX_M];
};

static ALWAYS_INLINE void dot_plain(struct sums *s, const void *row, const enum dtype type, const struct row *a, int64_t k,
                                    const int m, const bool high)
{
    for (int64_t b = 0; 32 * b < k; b++) {
        __m256i digits;
        float d;
        if (type == DTYPE_Q8_0) {
            const struct block_q8_0 *block = (const struct block_q8_0 *)row + b;
            _mm_prefetch((const char *)block + WEIGHTS_AHEAD, _MM_HINT_T0);
            d = half(block->d);
            digits = _mm256_loadu_si256((const __m256i *)block->q);
        } else {
            const struct block_q4_0 *block = (const struct block_q4_0 *)row + b;
            _mm_prefetch((const char *)block + WEIGHTS_AHEAD, _MM_HINT_T0);
            d = half(block->d);
            __m128i q = _mm_loadu_si128((const __m128i *)block->q);
            digits = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(q, 4), q), _mm256_set1_epi8(15));
            digits = _mm256_sub_epi8(digits, _mm256_set1_epi8(8));
        }
        UNROLL
        for (int i = 0; i < m; i++)
            s->product[i] =
                _mm256_fmadd_ps(dot_block(digits, true, &a[i], b, high), _mm256_set1_ps(d * a[i].d[b]), s->product[i]);
    }
}

static ALWAYS_INLINE void dot_q4_k(struct sums *s, const void *row, const struct row *a, int64_t k, const int m, const bool high)
{
    for (int64_t at = 0; at < k; at += 256) {
        const struct block_q4_k *block = (const struct block_q4_k *)row + at / 256;
        UNROLL
        for (int line = 0; line < 3; line++)
            _mm_prefetch((const char *)block + 64 * line + WEIGHTS_AHEAD, _MM_HINT_T0);
        uint32_t u[3];
        memcpy(u, block->scales, sizeof u);
        uint64_t scales = (u[0] & 0x3f3f3f3f) | (uint64_t)((u[2] & 0x0f0f0f0f) | (u[0] >> 6 & 0x03030303) << 4) << 32;
        uint64_t minimums = (u[1] & 0x3f3f3f3f) | (uint64_t)((u[2] >> 4 & 0x0f0f0f0f) | (u[1] >> 6 & 0x03030303) << 4) << 32;
        __m256 d = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)scales))),
                                 _mm256_set1_ps(half(block->d)));
        __m256 mins = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)minimums))),
                                    _mm256_set1_ps(half(block->dmin)));
        float scale[NARROW_MAX_M][8];
        UNROLL
        for (int i = 0; i < m; i++) {
            _mm256_storeu_ps(scale[i], _mm256_mul_ps(d, _mm256_loadu_ps(a[i].d + at / 32)));
            s->minimum[i] = _mm256_fmadd_ps(mins, _mm256_loadu_ps(a[i].sum + at / 32), s->minimum[i]);
        }
        for (int b = 0; b < 8; b += 2) {
            __m256i q = _mm256_loadu_si256((const __m256i *)(block->q + 16 * b)), nibble = _mm256_set1_epi8(15);
            __m256i low = _mm256_and_si256(q, nibble), up = _mm256_and_si256(_mm256_srli_epi16(q, 4), nibble);
            UNROLL
            for (int i = 0; i < m; i++) {
                s->product[i] =
                    _mm256_fmadd_ps(dot_block(low, false, &a[i], at / 32 + b, high), _mm256_set1_ps(scale[i][b]), s->product[i]);
                s->product[i] = _mm256_fmadd_ps(dot_block(up, false, &a[i], at / 32 + b + 1, high),
                                                _mm256_set1_ps(scale[i][b + 1]), s->product[i]);
            }
        }
    }
}

/* 32 signed digits: quarter b % 4 of half b / 4. */
static ALWAYS_INLINE __m256i q6_k_digits(const struct block_q6_k *block, int b)
{
    __m256i low = _mm256_loadu_si256((const __m256i *)(block->ql + b / 4 * 64 + b % 2 * 32));
    __m256i high = _mm256_loadu_si256((const __m256i *)(block->qh + b / 4 * 32));
    low = _mm256_and_si256(_mm256_srl_epi16(low, _mm_cvtsi32_si128(b % 4 / 2 * 4)), _mm256_set1_epi8(15));
    high = _mm256_and_si256(_mm256_srl_epi16(high, _mm_cvtsi32_si128(b % 4 * 2)), _mm256_set1_epi8(3));
    return _mm256_sub_epi8(_mm256_or_si256(low, _mm256_slli_epi16(high, 4)), _mm256_set1_epi8(32));
}

static ALWAYS_INLINE void dot_q6_k(struct sums *s, const void *row, const struct row *a, int64_t k, const int m, const bool high)
{
    for (int64_t at = 0; at < k; at += 256) {
        const struct block_q6_k *block = (const struct block_q6_k *)row + at / 256;
        float d = half(block->d);
        UNROLL
        for (int line = 0; line < 4; line++)
            _mm_prefetch((const char *)block + 64 * line + WEIGHTS_AHEAD, _MM_HINT_T0);
        UNROLL
        for (int b = 0; b < 8; b++) {
            __m256i digits = q6_k_digits(block, b);
            __m256 of_b =
                _mm256_set_m128(_mm_set1_ps(d * (float)block->scales[2 * b + 1]), _mm_set1_ps(d * (float)block->scales[2 * b]));
            UNROLL
            for (int i = 0; i < m; i++)
                s->product[i] = _mm256_fmadd_ps(dot_block(digits, true, &a[i], at / 32 + b, high),
                                                _mm256_mul_ps(of_b, _mm256_set1_ps(a[i].d[at / 32 + b])), s->product[i]);
        }
    }
}

static ALWAYS_INLINE void row_dot_fixed(float *out, const void *row, const enum dtype type, const struct row *a, int64_t k,
                                        const int m, const bool high)
{
    struct sums s;
    UNROLL
    for (int i = 0; i < m; i++)
        s.product[i] = s.minimum[i] = _mm256_setzero_ps();
    if (type == DTYPE_Q4_K)
        dot_q4_k(&s, row, a, k, m, high);
    else if (type == DTYPE_Q6_K)
        dot_q6_k(&s, row, a, k, m, high);
    else
        dot_plain(&s, row, type, a, k, m, high);
    UNROLL
    for (int i = 0; i < m; i++)
        out[i] = vec_sum(_mm256_sub_ps(s.product[i], s.minimum[i]));
}

/* The sums of a row of A do not depend on the rows beside it. */
static ALWAYS_INLINE void row_dot_type(float *out, const void *row, const enum dtype type, const struct row *a, int m, int64_t k,
                                       const bool high)
{
    int i = 0;
    for (; i + 2 <= m; i += 2)
        row_dot_fixed(out + i, row, type, a + i, k, 2, high);
    if (i < m)
        row_dot_fixed(out + i, row, type, a + i, k, 1, high);
}

static void row_dot(float *out, const void *row, const void *a, size_t bytes, int m, int64_t k, const struct narrow_format *f)
{
    struct row rows[NARROW_MAX_M];
    for (int i = 0; i < m; i++)
        rows[i] = row_at((const char *)a + (size_t)i * bytes, padded(k));
    bool high = f->precision == PRECISION_HIGH;
    switch (f->type) {
#define TYPE(type) \
    case type: \
        if (high) \
            row_dot_type(out, row, type, rows, m, k, true); \
        else \
            row_dot_type(out, row, type, rows, m, k, false); \
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

const struct narrow_kernel narrow_kernel_avx2 = {.takes = takes, .a_bytes = a_bytes, .convert_a = convert_a, .row_dot = row_dot};
