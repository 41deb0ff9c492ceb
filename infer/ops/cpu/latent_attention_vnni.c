/* A part of the latent rows in 16-bit integers, for AVX-512 with VNNI: vpdpwssd does 32 multiply-adds where a float32 FMA does 16.
 *
 * Tiles of TILE rows become int16 with one scale per block of 32 columns, common to the tile's rows; latents are RMS-normed, so rows
 * differ little and columns may differ much. Queries have a scale per head and block, probabilities are relative to the head's maximum
 * in the tile. Sums are exact in int32 and go to float32 after a block (logits) or a tile (z). What is lost is rounding to 12 to 13
 * bits and a sign, the order of what storing a row as f16 has lost already; float32 rows do not come here. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "infer/ops/cpu/latent_attention.h"
#include "infer/ops/cpu/x86/compiler.h"

enum {
    BLOCK = 32,    /* columns with a scale of their own: two vectors of 16 */
    HALF = 16,     /* dwords of a vector: heads in the logits, columns in z */
    GROUP = 12,    /* rows whose logits are worked on at a time: 12 integer and 12 float accumulators */
    TILE = 4 * GROUP,
    PAIRS = TILE / 2,
    /* Bounds of the integers, such that no sum overflows. */
    ROW_MAX = 5460,
    QUERY_MAX = 12287,
    PROBABILITY_MAX = 8191,
    Q8_SHIFT = 5, /* a q8_0 element becomes at most 128 << 5 */
};
_Static_assert((int64_t)BLOCK * ROW_MAX * QUERY_MAX <= INT32_MAX, "the sum over a block must fit");
_Static_assert((int64_t)TILE * ROW_MAX * PROBABILITY_MAX <= INT32_MAX, "the sum over a tile must fit");
_Static_assert(128 << Q8_SHIFT <= ROW_MAX, "the elements of q8_0 must fit");

/* What a part works with; sizes by n_head and dim = rank + rope, heads rounded up to vectors of 16. */
struct workspace {
    float *query_scale;   /* (head vectors, blocks, 16): the softmax scale over the query's */
    int32_t *query;       /* (head vectors, blocks, 16 pairs of columns, 16 heads): two int16 each */
    float *transposed;    /* (dim, 16) */
    float *row_scale;     /* (blocks) */
    float *row_inverse;   /* (blocks) */
    uint16_t *block_scale; /* (TILE, blocks), of q8_0; f16 bits */
    int32_t *block_factor; /* (TILE, blocks): an int16 twice */
    int16_t *group;       /* (blocks, GROUP, BLOCK) */
    int32_t *pairs;       /* (latent blocks, PAIRS, 2, 16): the same column of two rows */
    float *logits;        /* (head vectors, TILE, 16) */
    int32_t *probability; /* (head vectors, PAIRS, 16): two rows each */
    float *z;             /* (latent blocks, n_head, BLOCK) */
    float *old_factor;    /* (head vectors, 16): what z so far is multiplied with */
    float *new_factor;    /* (head vectors, 16): what the tile's sum is multiplied with */
};

static void *take(unsigned char *base, size_t *at, size_t n)
{
    void *p = base ? base + *at : NULL;
    *at += (n + 63) / 64 * 64;
    return p;
}

static int head_vectors(int n_head) { return (n_head + HALF - 1) / HALF; }

/* Lays the workspace out from `base`, or from nowhere to know its size, which is returned. */
static size_t workspace_layout(struct workspace *w, unsigned char *base, int n_head, int dim)
{
    const size_t vectors = (size_t)head_vectors(n_head), blocks = (size_t)dim / BLOCK, vec = 64;
    const size_t padded = (blocks + BLOCK - 1) / BLOCK * BLOCK;
    size_t at = 64; /* struct latent_prepared */
    w->query_scale = take(base, &at, vectors * blocks * vec);
    w->query = take(base, &at, vectors * blocks * HALF * vec);
    w->transposed = take(base, &at, (size_t)dim * vec);
    w->row_scale = take(base, &at, padded * sizeof *w->row_scale);
    w->row_inverse = take(base, &at, padded * sizeof *w->row_inverse);
    w->block_scale = take(base, &at, TILE * padded * sizeof *w->block_scale);
    w->block_factor = take(base, &at, TILE * padded * sizeof *w->block_factor);
    w->group = take(base, &at, blocks * GROUP * vec);
    w->pairs = take(base, &at, blocks * PAIRS * 2 * vec);
    w->logits = take(base, &at, vectors * TILE * vec);
    w->probability = take(base, &at, vectors * PAIRS * vec);
    w->z = take(base, &at, (size_t)n_head * (size_t)dim * sizeof *w->z);
    w->old_factor = take(base, &at, vectors * vec);
    w->new_factor = take(base, &at, vectors * vec);
    return at;
}

/* (low half of a, low half of b) in every dword: two int16 side by side. */
static inline __m512i join(__m512i a, __m512i b)
{
    return _mm512_mask_blend_epi16(0xAAAAAAAAu, a, _mm512_slli_epi32(b, 16));
}

/* Column of the row that stands at place `pair` (of two) of a converted block: what packing two vectors of 32 bits into one of 16 gives. */
static inline int pair_column(int pair)
{
    const int lane = pair / 4, within = pair % 4;
    return 4 * lane + (within < 2 ? 2 * within : HALF + 2 * (within - 2));
}

static void query_convert(const struct latent_kernel *kernel, const struct latent_attention *a, struct workspace *w)
{
    const int dim = a->rank + a->rope, blocks = dim / BLOCK;
    for (int v = 0; v < head_vectors(a->n_head); v++) {
        const int heads = a->n_head - v * HALF < HALF ? a->n_head - v * HALF : HALF;
        kernel->gemm->pack_rows(w->transposed, HALF, a->q + (int64_t)v * HALF * dim, dim, heads, dim);
        for (int b = 0; b < blocks; b++) {
            const float *from = w->transposed + (int64_t)b * BLOCK * HALF;
            __m512 most = _mm512_setzero_ps(), poison = _mm512_setzero_ps(); /* 0, or not a number: vmaxps would lose it */
            for (int i = 0; i < BLOCK; i++) {
                __m512 q = _mm512_load_ps(from + i * HALF);
                most = _mm512_max_ps(most, _mm512_abs_ps(q));
                poison = _mm512_fmadd_ps(q, _mm512_setzero_ps(), poison);
            }
            __mmask16 some = _mm512_cmp_ps_mask(most, _mm512_setzero_ps(), _CMP_GT_OQ);
            __m512 inverse = _mm512_maskz_div_ps(some, _mm512_set1_ps(QUERY_MAX), most);
            __m512 back = _mm512_fmadd_ps(most, _mm512_set1_ps(a->scale / QUERY_MAX), poison);
            _mm512_store_ps(w->query_scale + ((int64_t)v * blocks + b) * HALF, back);
            for (int p = 0; p < HALF; p++) {
                const float *column = from + pair_column(p) * HALF;
                __m512i even = _mm512_cvtps_epi32(_mm512_mul_ps(inverse, _mm512_load_ps(column)));
                __m512i odd = _mm512_cvtps_epi32(_mm512_mul_ps(inverse, _mm512_load_ps(column + HALF)));
                _mm512_store_si512(w->query + (((int64_t)v * blocks + b) * HALF + p) * HALF, join(even, odd));
            }
        }
    }
}

static inline const unsigned char *row_at(const struct latent_attention *a, int64_t j)
{
    return (const unsigned char *)a->rows + (size_t)j * a->row_bytes;
}

/* The largest of 32 f16 without sign. As integers they are ordered as their values, infinity and then not-a-numbers last. */
static inline uint16_t largest_half(__m512i halves)
{
    __m256i m = _mm256_max_epu16(_mm512_castsi512_si256(halves), _mm512_extracti64x4_epi64(halves, 1));
    __m128i s = _mm_max_epu16(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    return (uint16_t)~_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(s, _mm_set1_epi16(-1))));
}

/* The scales of the tile's blocks, such that its largest element becomes ROW_MAX. */
static void scales_f16(const struct latent_attention *a, int64_t row, int count, struct workspace *w)
{
    enum { AT_ONCE = 6 };
    const __m512i no_sign = _mm512_set1_epi16(0x7fff);
    const int blocks = (a->rank + a->rope) / BLOCK;
    for (int b = 0; b < blocks; b += AT_ONCE) {
        const int n = blocks - b < AT_ONCE ? blocks - b : AT_ONCE;
        __m512i most[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++)
            most[i] = _mm512_setzero_si512();
        for (int j = 0; j < count; j++) {
            const unsigned char *from = row_at(a, row + j) + b * 64;
            if (n == AT_ONCE)
                UNROLL
                for (int i = 0; i < AT_ONCE; i++)
                    most[i] = _mm512_max_epu16(most[i], _mm512_and_si512(no_sign, _mm512_loadu_si512(from + i * 64)));
            else
                for (int i = 0; i < n; i++)
                    most[i] = _mm512_max_epu16(most[i], _mm512_and_si512(no_sign, _mm512_loadu_si512(from + i * 64)));
        }
        for (int i = 0; i < n; i++) {
            const float top = _cvtsh_ss(largest_half(most[i]));
            w->row_scale[b + i] = top / ROW_MAX;
            w->row_inverse[b + i] = top > 0 ? ROW_MAX / top : 0;
        }
    }
}

/* The same for q8_0, and what brings each block of each row to the common scale: a fraction of 2^15. */
static void scales_q8_0(const struct latent_attention *a, int64_t row, int count, struct workspace *w)
{
    const int blocks = (a->rank + a->rope) / BLOCK, padded = (blocks + BLOCK - 1) / BLOCK * BLOCK;
    for (int j = 0; j < count; j++) {
        const struct block_q8_0 *block = (const struct block_q8_0 *)(const void *)row_at(a, row + j);
        for (int b = 0; b < blocks; b++)
            w->block_scale[j * padded + b] = block[b].d;
    }
    for (int b = 0; b < padded; b += HALF) {
        const __m256i no_sign = _mm256_set1_epi16(0x7fff);
        __m256i most = _mm256_setzero_si256();
        for (int j = 0; j < count; j++)
            most = _mm256_max_epu16(most, _mm256_and_si256(no_sign, _mm256_load_si256((__m256i *)(void *)(w->block_scale + j * padded + b))));
        const __m512 top = _mm512_cvtph_ps(most);
        const __mmask16 some = _mm512_cmp_ps_mask(top, _mm512_setzero_ps(), _CMP_GT_OQ);
        const __m512 inverse = _mm512_maskz_div_ps(some, _mm512_set1_ps(INT16_MAX), top);
        _mm512_store_ps(w->row_scale + b, _mm512_mul_ps(top, _mm512_set1_ps(1.0f / (1 << Q8_SHIFT))));
        for (int j = 0; j < count; j++) {
            const __m512 d = _mm512_cvtph_ps(_mm256_load_si256((__m256i *)(void *)(w->block_scale + j * padded + b)));
            const __m512i factor = _mm512_cvtps_epi32(_mm512_mul_ps(d, inverse));
            _mm512_store_si512(w->block_factor + j * padded + b, join(factor, factor));
        }
    }
}

/* 32 columns of a row as int16, in the order of pair_column. */
static ALWAYS_INLINE __m512i block_convert(const enum dtype type, const unsigned char *row, int b, const int32_t *factor,
                                           const float *inverse)
{
    if (type == DTYPE_Q8_0) {
        const struct block_q8_0 *block = (const struct block_q8_0 *)(const void *)row + b;
        __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)block->q);
        q = _mm256_permutevar8x32_epi32(q, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        return _mm512_mulhrs_epi16(_mm512_slli_epi16(_mm512_cvtepi8_epi16(q), Q8_SHIFT), _mm512_set1_epi32(factor[b]));
    }
    const __m512 scale = _mm512_set1_ps(inverse[b]);
    const __m256i *halves = (const __m256i *)(const void *)(row + b * 64);
    const __m512 low = _mm512_mul_ps(scale, _mm512_cvtph_ps(_mm256_loadu_si256(halves)));
    const __m512 high = _mm512_mul_ps(scale, _mm512_cvtph_ps(_mm256_loadu_si256(halves + 1)));
    return _mm512_packs_epi32(_mm512_cvtps_epi32(low), _mm512_cvtps_epi32(high));
}

/* Rows first .. first + GROUP of the tile: all their columns for the logits, the latent ones in pairs of rows for z. Rows from `count`
 * on become zeros. */
static ALWAYS_INLINE void group_convert(const enum dtype type, const struct latent_attention *a, int64_t row, int first, int count,
                                        struct workspace *w)
{
    const int blocks = (a->rank + a->rope) / BLOCK, latent_blocks = a->rank / BLOCK, padded = (blocks + BLOCK - 1) / BLOCK * BLOCK;
    for (int j = 0; j < GROUP; j += 2) {
        const bool even_there = first + j < count, odd_there = first + j + 1 < count;
        const unsigned char *even_row = row_at(a, row + first + j), *odd_row = even_row + a->row_bytes;
        const int32_t *factor = w->block_factor + (first + j) * padded;
        int16_t *to = w->group + j * BLOCK;
        int32_t *pair = w->pairs + (first + j) / 2 * BLOCK;
        for (int b = 0; b < blocks; b++, to += GROUP * BLOCK, pair += PAIRS * BLOCK) {
            const __m512i even = even_there ? block_convert(type, even_row, b, factor, w->row_inverse) : _mm512_setzero_si512();
            const __m512i odd = odd_there ? block_convert(type, odd_row, b, factor + padded, w->row_inverse) : _mm512_setzero_si512();
            _mm512_store_si512(to, even);
            _mm512_store_si512(to + BLOCK, odd);
            if (b < latent_blocks) { /* the order of the block makes these columns 0 .. 15 and 16 .. 31 */
                _mm512_store_si512(pair, _mm512_unpacklo_epi16(even, odd));
                _mm512_store_si512(pair + HALF, _mm512_unpackhi_epi16(even, odd));
            }
        }
    }
}

/* Logits of GROUP rows for 16 heads: to (GROUP, 16). Meanwhile `ahead`, rows to come, moves towards the cache. */
static void group_logits(const struct workspace *w, int vector, int blocks, float *to, const unsigned char *ahead, size_t ahead_step)
{
    const float *query_scale = w->query_scale + (int64_t)vector * blocks * HALF;
    const int32_t *query = w->query + (int64_t)vector * blocks * HALF * HALF;
    const int32_t *rows = (const int32_t *)(const void *)w->group;
    __m512 sum[GROUP];
    UNROLL
    for (int j = 0; j < GROUP; j++)
        sum[j] = _mm512_setzero_ps();
    for (int b = 0; b < blocks; b++, rows += GROUP * HALF, query += HALF * HALF) {
        __m512i dot[GROUP];
        UNROLL
        for (int j = 0; j < GROUP; j++)
            dot[j] = _mm512_setzero_si512();
        for (size_t i = 0; i < ahead_step; i += 64)
            _mm_prefetch((const char *)ahead + (size_t)b * ahead_step + i, _MM_HINT_T1);
        UNROLL
        for (int p = 0; p < HALF; p++) {
            const __m512i q = _mm512_load_si512(query + p * HALF);
            UNROLL
            for (int j = 0; j < GROUP; j++)
                dot[j] = _mm512_dpwssd_epi32(dot[j], q, _mm512_set1_epi32(rows[j * HALF + p]));
        }
        const __m512 scale = _mm512_mul_ps(_mm512_load_ps(query_scale + b * HALF), _mm512_set1_ps(w->row_scale[b]));
        UNROLL
        for (int j = 0; j < GROUP; j++)
            sum[j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[j]), scale, sum[j]);
    }
    UNROLL
    for (int j = 0; j < GROUP; j++)
        _mm512_store_ps(to + j * HALF, sum[j]);
}

/* Bias and mask the logits of 16 heads, turn them into probabilities against the tile's maximum, and bring the part's maximum and sum
 * up to date. */
static void tile_softmax(const struct latent_kernel *kernel, const struct latent_part *part, int64_t row, int count, int vector,
                         struct workspace *w)
{
    const struct latent_attention *a = part->item;
    const int heads = a->n_head - vector * HALF < HALF ? a->n_head - vector * HALF : HALF;
    const __mmask16 there = (__mmask16)((1u << heads) - 1);
    const __m512 lowest = _mm512_set1_ps(-INFINITY);
    float *logits = w->logits + (int64_t)vector * TILE * HALF;
    __m512 top = lowest;
    for (int j = 0; j < count; j++) {
        __m512 s = _mm512_load_ps(logits + j * HALF);
        if (a->bias) {
            s = _mm512_add_ps(s, _mm512_set1_ps(a->bias[row + j]));
            _mm512_store_ps(logits + j * HALF, s);
        }
        top = _mm512_max_ps(top, s);
    }
    if (part->logits)
        for (int h = 0; h < heads; h++)
            for (int j = 0; j < count; j++)
                part->logits[(int64_t)(vector * HALF + h) * (part->end - part->begin) + (row - part->begin) + j] = logits[j * HALF + h];
    /* Where everything is masked so far, any finite shift gives zeros and no -inf less -inf. */
    float *max = part->max + vector * HALF, *sum = part->sum + vector * HALF;
    const __m512 before = _mm512_mask_loadu_ps(lowest, there, max), after = _mm512_max_ps(before, top);
    const __m512 shift = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(top, lowest, _CMP_EQ_OQ), top, _mm512_setzero_ps());
    const __m512 base = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(after, lowest, _CMP_EQ_OQ), after, _mm512_setzero_ps());
    for (int j = 0; j < count; j++)
        _mm512_store_ps(logits + j * HALF, _mm512_sub_ps(_mm512_load_ps(logits + j * HALF), shift));
    kernel->exp_sum(logits, logits, (int64_t)count * HALF, 1, 0);
    float *old_factor = w->old_factor + vector * HALF, *new_factor = w->new_factor + vector * HALF;
    _mm512_store_ps(old_factor, _mm512_sub_ps(before, base));
    _mm512_store_ps(new_factor, _mm512_sub_ps(top, base));
    kernel->exp_sum(old_factor, old_factor, HALF, 1, 0);
    kernel->exp_sum(new_factor, new_factor, HALF, 1, 0);
    /* The sum of the rounded probabilities, so that the weights add up to one; not-a-numbers stay visible in it. */
    __m512i total = _mm512_setzero_si512();
    __m512 poison = _mm512_setzero_ps();
    const __m512 unit = _mm512_set1_ps(PROBABILITY_MAX);
    for (int j = 0; j < count; j += 2) {
        const __m512 first = _mm512_load_ps(logits + j * HALF);
        const __m512 second = j + 1 < count ? _mm512_load_ps(logits + (j + 1) * HALF) : _mm512_setzero_ps();
        const __m512i even = _mm512_cvtps_epi32(_mm512_mul_ps(first, unit)), odd = _mm512_cvtps_epi32(_mm512_mul_ps(second, unit));
        total = _mm512_add_epi32(total, _mm512_add_epi32(even, odd));
        poison = _mm512_fmadd_ps(_mm512_setzero_ps(), _mm512_add_ps(first, second), poison);
        _mm512_store_si512(w->probability + ((int64_t)vector * PAIRS + j / 2) * HALF, join(even, odd));
    }
    const __m512 grown = _mm512_mul_ps(_mm512_load_ps(new_factor), _mm512_set1_ps(1.0f / PROBABILITY_MAX));
    const __m512 tile_sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), grown, poison);
    _mm512_store_ps(new_factor, grown);
    _mm512_mask_storeu_ps(sum, there, _mm512_fmadd_ps(_mm512_maskz_loadu_ps(there, sum), _mm512_load_ps(old_factor), tile_sum));
    _mm512_mask_storeu_ps(max, there, after);
}

/* z of `heads` heads (a constant) in one block of columns: z = old z + new sum over the tile's pairs of rows. */
static ALWAYS_INLINE void block_sum(const int heads, const int32_t *probability, const int32_t *pairs, int n_pairs, float row_scale,
                                    const float *old_factor, const float *new_factor, float *z)
{
    __m512i left[8], right[8];
    UNROLL
    for (int h = 0; h < heads; h++)
        left[h] = right[h] = _mm512_setzero_si512();
    for (int p = 0; p < n_pairs; p++, pairs += BLOCK, probability += HALF) {
        const __m512i x0 = _mm512_load_si512(pairs), x1 = _mm512_load_si512(pairs + HALF);
        UNROLL
        for (int h = 0; h < heads; h++) {
            const __m512i w = _mm512_set1_epi32(probability[h]);
            left[h] = _mm512_dpwssd_epi32(left[h], w, x0);
            right[h] = _mm512_dpwssd_epi32(right[h], w, x1);
        }
    }
    UNROLL
    for (int h = 0; h < heads; h++, z += BLOCK) {
        const __m512 old = _mm512_set1_ps(old_factor[h]), new = _mm512_set1_ps(new_factor[h] * row_scale);
        const __m512 z0 = _mm512_mul_ps(old, _mm512_loadu_ps(z)), z1 = _mm512_mul_ps(old, _mm512_loadu_ps(z + HALF));
        _mm512_storeu_ps(z, _mm512_fmadd_ps(_mm512_cvtepi32_ps(left[h]), new, z0));
        _mm512_storeu_ps(z + HALF, _mm512_fmadd_ps(_mm512_cvtepi32_ps(right[h]), new, z1));
    }
}

static void tile_sum(const struct latent_attention *a, int n_pairs, const struct workspace *w)
{
    for (int b = 0; b < a->rank / BLOCK; b++) {
        const int32_t *pairs = w->pairs + (int64_t)b * PAIRS * BLOCK;
        for (int h = 0, left; (left = a->n_head - h) > 0;) {
            const int32_t *probability = w->probability + (int64_t)(h / HALF) * PAIRS * HALF + h % HALF;
            const float *old = w->old_factor + h, *new = w->new_factor + h, scale = w->row_scale[b];
            float *z = w->z + ((int64_t)b * a->n_head + h) * BLOCK;
            if (left >= 8) {
                block_sum(8, probability, pairs, n_pairs, scale, old, new, z);
                h += 8;
            } else if (left >= 4) {
                block_sum(4, probability, pairs, n_pairs, scale, old, new, z);
                h += 4;
            } else {
                block_sum(1, probability, pairs, n_pairs, scale, old, new, z);
                h += 1;
            }
        }
    }
}

static ALWAYS_INLINE void part_run(const enum dtype type, const struct latent_kernel *kernel, const struct latent_part *part,
                                   struct workspace *w)
{
    const struct latent_attention *a = part->item;
    const int blocks = (a->rank + a->rope) / BLOCK, vectors = head_vectors(a->n_head);
    for (int64_t row = part->begin; row < part->end; row += TILE) {
        const int count = part->end - row < TILE ? (int)(part->end - row) : TILE;
        /* The rows after this tile, in equal pieces for every call of group_logits; reading ahead of the end does no harm. */
        const size_t piece = TILE * a->row_bytes / (TILE / GROUP), step = (piece / (size_t)blocks + 63) / 64 * 64;
        if (type == DTYPE_Q8_0)
            scales_q8_0(a, row, count, w);
        else
            scales_f16(a, row, count, w);
        for (int first = 0; first < count; first += GROUP) {
            group_convert(type, a, row, first, count, w);
            for (int v = 0; v < vectors; v++)
                group_logits(w, v, blocks, w->logits + ((int64_t)v * TILE + first) * HALF,
                             (const unsigned char *)a->rows + (size_t)(row + TILE) * a->row_bytes + (size_t)(first / GROUP) * piece, v ? 0 : step);
        }
        for (int v = 0; v < vectors; v++)
            tile_softmax(kernel, part, row, count, v, w);
        tile_sum(a, (count + 1) / 2, w);
    }
}

static bool suits(const struct latent_attention *a)
{
    return (a->type == DTYPE_F16 || a->type == DTYPE_Q8_0) && a->rank % BLOCK == 0 && a->rope % BLOCK == 0;
}

static void part_vnni(const struct latent_kernel *kernel, const struct latent_part *part, void *scratch)
{
    const struct latent_attention *a = part->item;
    struct latent_prepared *prepared = scratch;
    struct workspace w;
    if (!suits(a)) {
        prepared->item = NULL;
        latent_kernel_avx512.part(kernel, part, scratch);
        return;
    }
    workspace_layout(&w, scratch, a->n_head, a->rank + a->rope);
    for (int h = 0; h < a->n_head; h++) {
        part->max[h] = -INFINITY;
        part->sum[h] = 0;
    }
    memset(w.z, 0, (size_t)a->n_head * (size_t)a->rank * sizeof *w.z);
    if (prepared->item != a)
        query_convert(kernel, a, &w);
    prepared->item = a;
    if (a->type == DTYPE_Q8_0)
        part_run(DTYPE_Q8_0, kernel, part, &w);
    else
        part_run(DTYPE_F16, kernel, part, &w);
    for (int b = 0; b < a->rank / BLOCK; b++)
        for (int h = 0; h < a->n_head; h++)
            memcpy(part->z + (int64_t)h * a->rank + b * BLOCK, w.z + ((int64_t)b * a->n_head + h) * BLOCK, BLOCK * sizeof *w.z);
}

static size_t part_vnni_bytes(const struct latent_kernel *kernel, int n_head, int dim)
{
    struct workspace w;
    const size_t own = workspace_layout(&w, NULL, n_head, dim), fallback = latent_kernel_avx512.part_scratch_bytes(kernel, n_head, dim);
    return own > fallback ? own : fallback;
}

static struct latent_kernel kernel_vnni(void)
{
    struct latent_kernel kernel = latent_kernel_avx512;
    kernel.part = part_vnni;
    kernel.part_scratch_bytes = part_vnni_bytes;
    return kernel;
}

void vnni_latent_attention(const struct latent_attention *items, int n_items, struct thread_pool *pool, void *scratch)
{
    const struct latent_kernel kernel = kernel_vnni();
    latent_attention_run(&kernel, items, n_items, pool, scratch);
}

size_t vnni_latent_attention_scratch_bytes(int n_head, int rank, int rope, int64_t total_rows, int n_items, int threads)
{
    const struct latent_kernel kernel = kernel_vnni();
    return latent_attention_bytes(&kernel, n_head, rank, rope, total_rows, n_items, threads);
}
