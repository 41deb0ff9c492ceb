/* A block of expanded attention with AVX-512 VNNI: logits from 16-bit integers (vpdpwssd: twice the multiply-adds of float32). The
 * tails of a softmax need the range of floats: probabilities and values are float32, or with AVX-512 FP16 half precision. */
#include <math.h>
#include <string.h>

#include "infer/ops/cpu/tables.h"
#include "infer/ops/cpu/x86/compiler.h"
#include "infer/ops/cpu/x86/transpose.h"
#include "infer/ops/cpu/x86/vnni.h"

enum { MR = 12, NR = 32, HALVES = VNNI_HALVES }; /* queries by keys, and queries by NR values or HALVES of them, of a register tile */

static int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/* The parts of the scratch, for n keys: panels of NR keys as pairs (width / 2, NR, 2), their scales, panels of NR values (n, NR) or of
 * HALVES, and for MR queries the integers, their scales and the logits. */
struct parts {
    int64_t width, keys; /* padded with zeros */
    int16_t *k, *q;
    float *k_scale, *q_scale, *value, *s;
    int64_t lds;
    size_t bytes;
};

static struct parts parts_of(char *scratch, int64_t n, int width, int v)
{
    struct parts p = {.width = round_up(width, 32), .keys = round_up(n, NR)};
    p.lds = p.keys + 16; /* rows of a power of two would share their sets of the cache */
    const size_t keys = (size_t)p.keys, w = (size_t)p.width;
    size_t at = 0;
    p.k = (int16_t *)(void *)(scratch + at), at += keys * w * sizeof *p.k;
    p.q = (int16_t *)(void *)(scratch + at), at += 16 * w * sizeof *p.q; /* 16: also the keys of a panel before they are interleaved */
    p.value = (float *)(void *)(scratch + at), at += keys * (size_t)round_up(v, HALVES) * sizeof *p.value;
    p.k_scale = (float *)(void *)(scratch + at), at += keys * sizeof *p.k_scale;
    p.q_scale = (float *)(void *)(scratch + at), at += 16 * sizeof *p.q_scale;
    p.s = (float *)(void *)(scratch + at), at += MR * (size_t)p.lds * sizeof *p.s;
    p.bytes = at;
    return p;
}

size_t vnni_attention_narrow_scratch_bytes(int64_t n, int width, int v) { return parts_of(NULL, n, width, v).bytes; }

static inline __mmask16 first_lanes(int64_t n) { return (__mmask16)(n >= 16 ? 0xFFFF : n > 0 ? (1 << n) - 1 : 0); }

/* The largest magnitude in n floats, by lane; as integers, so that NaN is the largest. */
static ALWAYS_INLINE __m512i largest(__m512i most, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16)
        most = _mm512_max_epu32(most, _mm512_castps_si512(_mm512_abs_ps(_mm512_maskz_loadu_ps(first_lanes(n - i), x + i))));
    return most;
}

static ALWAYS_INLINE void put_integers(int16_t *to, const float *x, int64_t n, __m512 factor)
{
    for (int64_t i = 0; i < n; i += 16) {
        const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(first_lanes(n - i), x + i), factor));
        _mm256_mask_storeu_epi16(to + i, first_lanes(n - i), _mm512_cvtepi32_epi16(q));
    }
}

/* Two vectors one after the other as integers of at most `levels` times the scale that is returned, zeros up to `width`. */
static float quantise(int16_t *to, int64_t width, const float *x1, int n1, const float *x2, int n2, float levels)
{
    const uint32_t bits = _mm512_reduce_max_epu32(largest(largest(_mm512_setzero_si512(), x1, n1), x2, n2));
    float most;
    memcpy(&most, &bits, sizeof most);
    /* NaN where the damage must stay visible; zero where the reciprocal could overflow */
    const float scale = bits >= 0x7f800000 ? NAN : most < 0x1p-100f ? 0 : most / levels;
    const __m512 factor = _mm512_set1_ps(scale > 0 ? levels / most : 0);
    put_integers(to, x1, n1, factor);
    put_integers(to + n1, x2, n2, factor);
    for (int64_t i = n1 + n2; i < width; i++)
        to[i] = 0;
    return scale;
}

/* Keys and values lie far apart: ask for those AHEAD of this one. */
enum { AHEAD = 8 };
static ALWAYS_INLINE void ask_for(const struct attention_block *b, int64_t key, int64_t n)
{
    const int64_t next = key + AHEAD < n ? key + AHEAD : n - 1;
    for (int64_t i = 0; i < b->width1; i += 16)
        _mm_prefetch((const char *)(b->k1 + next * b->ld1 + i), _MM_HINT_T0);
    for (int64_t i = 0; i < b->width2; i += 16)
        _mm_prefetch((const char *)(b->k2 + next * b->ld2 + i), _MM_HINT_T0);
    for (int64_t i = 0; i < b->v; i += 16)
        _mm_prefetch((const char *)(b->value + next * b->ld1 + i), _MM_HINT_T0);
}

static void pack_value(const struct parts *p, const struct attention_block *b, int64_t key)
{
    for (int64_t d = 0; d < round_up(b->v, NR); d += 16)
        _mm512_store_ps(p->value + d / NR * NR * p->keys + key * NR + d % NR,
                        _mm512_maskz_loadu_ps(first_lanes(b->v - d), b->value + key * b->ld1 + d));
}

/* The largest magnitude among the values; NaN when one is. */
static float largest_value(const struct attention_block *b, int64_t n)
{
    __m512i most = _mm512_setzero_si512();
    for (int64_t key = 0; key < n; key++)
        most = largest(most, b->value + key * b->ld1, b->v);
    const uint32_t bits = _mm512_reduce_max_epu32(most);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Values times `inverse`: at most 1, so that no sum of a run overflows. */
static void pack_value_half(const struct parts *p, const struct attention_block *b, int64_t key, __m512 inverse)
{
    for (int64_t d = 0; d < round_up(b->v, HALVES); d += 16) {
        const __m512 x = _mm512_mul_ps(inverse, _mm512_maskz_loadu_ps(first_lanes(b->v - d), b->value + key * b->ld1 + d));
        _mm256_store_si256((__m256i *)(void *)((uint16_t *)p->value + d / HALVES * HALVES * p->keys + key * HALVES + d % HALVES),
                           _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    }
}

static void pack(const struct parts *p, const struct attention_block *b, int64_t n, float levels, bool half)
{
    for (int64_t group = 0; group < n; group += 16) {
        for (int64_t j = 0; j < 16; j++) {
            const int64_t key = group + j;
            p->k_scale[key] = 0; /* beyond the last: what is left in the integers does not matter */
            if (key >= n)
                continue;
            ask_for(b, key, n);
            p->k_scale[key] = quantise(p->q + j * p->width, p->width, b->k1 + key * b->ld1, b->width1, b->k2 + key * b->ld2, b->width2, levels);
            if (!half)
                pack_value(p, b, key);
        }
        int16_t *panel = p->k + group / NR * NR * p->width + group % NR * 2;
        for (int64_t at = 0; at < p->width; at += 32) {
            __m512i r[16];
            UNROLL
            for (int j = 0; j < 16; j++)
                r[j] = _mm512_load_si512(p->q + j * p->width + at);
            transpose_16(r);
            UNROLL
            for (int j = 0; j < 16; j++)
                _mm512_store_si512(panel + (at / 2 + j) * NR * 2, r[j]);
        }
    }
}

/* sum += a . b by pairs. Compilers shuffle the sums of the intrinsic between registers, and to memory, in every round of a loop. */
static ALWAYS_INLINE void add_pairs(__m512i *sum, __m512i a, __m512i b)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(*sum) : "v"(a), "v"(b));
}

/* s (rows, NR) = q k / (q's scales), over `pairs` pairs. */
static ALWAYS_INLINE void score_fixed(float *s, int64_t lds, const int16_t *q, int64_t ldq, const int16_t *panel, int64_t pairs,
                                      const float *scale, const int rows)
{
    __m512i left[MR], right[MR];
    UNROLL
    for (int i = 0; i < rows; i++)
        left[i] = right[i] = _mm512_setzero_si512();
    for (int64_t p = 0; p < pairs; p++, panel += 2 * NR) {
        __m512i k0 = _mm512_load_si512(panel), k1 = _mm512_load_si512(panel + NR);
        UNROLL
        for (int i = 0; i < rows; i++) {
            int32_t two;
            memcpy(&two, q + i * ldq + 2 * p, sizeof two);
            const __m512i pair = _mm512_set1_epi32(two);
            add_pairs(&left[i], k0, pair);
            add_pairs(&right[i], k1, pair);
        }
    }
    __m512 scale0 = _mm512_load_ps(scale), scale1 = _mm512_load_ps(scale + 16);
    UNROLL
    for (int i = 0; i < rows; i++) {
        _mm512_store_ps(s + i * lds, _mm512_mul_ps(_mm512_cvtepi32_ps(left[i]), scale0));
        _mm512_store_ps(s + i * lds + 16, _mm512_mul_ps(_mm512_cvtepi32_ps(right[i]), scale1));
    }
}

/* out (rows, up to NR) = shrink * out + p value, over n keys. */
static ALWAYS_INLINE void value_fixed(float *out, int64_t ldo, int columns, const float *shrink, const float *p, int64_t lds,
                                      const float *value, int64_t n, const int rows)
{
    const __mmask16 first = first_lanes(columns), second = first_lanes(columns - 16);
    __m512 left[MR], right[MR];
    UNROLL
    for (int i = 0; i < rows; i++) {
        left[i] = _mm512_mul_ps(_mm512_maskz_loadu_ps(first, out + i * ldo), _mm512_set1_ps(shrink[i]));
        right[i] = _mm512_mul_ps(_mm512_maskz_loadu_ps(second, out + i * ldo + 16), _mm512_set1_ps(shrink[i]));
    }
    for (int64_t j = 0; j < n; j++, value += NR) {
        __m512 v0 = _mm512_load_ps(value), v1 = _mm512_load_ps(value + 16);
        UNROLL
        for (int i = 0; i < rows; i++) {
            const __m512 pi = _mm512_set1_ps(p[i * lds + j]);
            left[i] = _mm512_fmadd_ps(pi, v0, left[i]);
            right[i] = _mm512_fmadd_ps(pi, v1, right[i]);
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        _mm512_mask_storeu_ps(out + i * ldo, first, left[i]);
        _mm512_mask_storeu_ps(out + i * ldo + 16, second, right[i]);
    }
}

/* Floats in place into pairs of equal halves. */
static void put_halves(float *s, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        const __m512i h = _mm512_cvtepu16_epi32(_mm512_cvtps_ph(_mm512_load_ps(s + i), _MM_FROUND_TO_NEAREST_INT));
        _mm512_store_si512(s + i, _mm512_or_si512(h, _mm512_slli_epi32(h, 16)));
    }
}

static int64_t clamp(int64_t n, int64_t most) { return n < 0 ? 0 : n < most ? n : most; }

/* Queries [i0, i0 + rows) over the n keys that the last of them sees. */
static ALWAYS_INLINE void attend_fixed(const struct parts *p, const struct attention_block *b, int64_t i0, float levels, float unit,
                                       void (*add_values)(const struct half_values *h), const int rows)
{
    const int64_t n = clamp(b->seen + i0 + rows - 1, b->n);
    float shrink[MR];
    for (int i = 0; i < rows; i++)
        p->q_scale[i] = quantise(p->q + i * p->width, p->width, b->q + (i0 + i) * b->ldq, b->width1, b->q + (i0 + i) * b->ldq + b->width1,
                                 b->width2, levels);
    for (int64_t key = 0; key < n; key += NR)
        score_fixed(p->s + key, p->lds, p->q, p->width, p->k + key * p->width, p->width / 2, p->k_scale + key, rows);
    for (int i = 0; i < rows; i++) {
        const int64_t seen = clamp(b->seen + i0 + i, n);
        float *s = p->s + i * p->lds, *max = b->max + (i0 + i) * b->ld_state, *sum = b->sum + (i0 + i) * b->ld_state;
        memset(s + seen, 0, (size_t)(n - seen) * sizeof *s);
        shrink[i] = 1;
        if (seen == 0)
            continue;
        const float factor = b->scale * p->q_scale[i], most = factor * ops_table_avx512.max(s, seen), before = *max;
        *max = most > before || most != most ? most : before;
        shrink[i] = expf(before - *max);
        *sum = *sum * shrink[i] + ops_table_avx512.exp_sum(s, s, seen, factor, *max);
    }
    if (add_values) {
        for (int i = 0; i < rows; i++) {
            put_halves(p->s + i * p->lds, n);
            ops_table_avx512.scale(b->out + (i0 + i) * b->ldo, shrink[i], b->v);
        }
        struct half_values h = {.rows = rows, .n = n, .p = (const uint32_t *)(const void *)p->s, .ldp = p->lds, .unit = unit, .ldo = b->ldo};
        for (int d = 0; d < b->v; d += HALVES) {
            h.columns = b->v - d, h.value = (const uint16_t *)p->value + d * p->keys, h.out = b->out + i0 * b->ldo + d;
            add_values(&h);
        }
        return;
    }
    for (int d = 0; d < b->v; d += NR)
        value_fixed(b->out + i0 * b->ldo + d, b->ldo, b->v - d, shrink, p->s, p->lds, p->value + d * p->keys, n, rows);
}

void vnni_attention(const struct attention_block *b, void *scratch, void (*add_values)(const struct half_values *h))
{
    const struct parts p = parts_of(scratch, b->n, b->width1 + b->width2, b->v);
    const int64_t n = clamp(b->seen + b->m - 1, b->n);
    const float levels = floorf(sqrtf(2147483000.0f / (float)p.width)); /* no sum of products overflows */
    float unit = 1;
    pack(&p, b, n, levels, add_values != NULL);
    if (add_values) {
        unit = largest_value(b, n);
        const __m512 inverse = _mm512_set1_ps(unit < 0x1p-100f ? 0 : 1 / unit);
        for (int64_t key = 0; key < n; key++)
            pack_value_half(&p, b, key, inverse);
    }
    int64_t i = 0;
    for (; i + 12 <= b->m; i += 12)
        attend_fixed(&p, b, i, levels, unit, add_values, 12);
    for (; i + 4 <= b->m; i += 4)
        attend_fixed(&p, b, i, levels, unit, add_values, 4);
    for (; i < b->m; i++)
        attend_fixed(&p, b, i, levels, unit, add_values, 1);
}

void vnni_attention_narrow(const struct attention_block *b, void *scratch) { vnni_attention(b, scratch, NULL); }
