/* The table of Arm processors with smmla, the product of 2 x 8 by 8 x 2 bytes: panels of quantised weights, all others as the table
 * for sdot.
 *
 * A panel's digits are (terms / 8, NR / 2, 2, 8): one vector holds eight terms of two columns. The rows of A are brought into the same
 * form, two by two, once per tile of 8 by 32. Of a tile 8 by 8 are summed at a time, a block in 16 registers; each holds two rows
 * by two columns. The float sums stay in L1. */
#include "infer/ops/cpu/arm/panels.h"
#include "infer/ops/cpu/tables.h"

enum { MR = 8, PAIRS = MR / 2, WIDE = 4 /* pairs of columns */ };

static bool takes(const struct gemm *g)
{
    return dtype_is_quantized(g->b_type);
}

/* Sixteen terms of two rows: eight of both, eight of both. */
static ALWAYS_INLINE void put_pair(int8_t *to, int64_t apart, int8x16_t first, int8x16_t second)
{
    const int64x2_t a = vreinterpretq_s64_s8(first), b = vreinterpretq_s64_s8(second);
    vst1q_s8(to, vreinterpretq_s8_s64(vzip1q_s64(a, b)));
    vst1q_s8(to + apart, vreinterpretq_s8_s64(vzip2q_s64(a, b)));
}

static ALWAYS_INLINE void pack_type(int8_t *panel, const char *rows, size_t row_bytes, int columns, int64_t p, int64_t n,
                                    const enum dtype type)
{
    for (int j = 0; j < columns; j += 2) {
        const char *left = rows + (size_t)j * row_bytes, *right = j + 1 < columns ? left + row_bytes : left; /* its scale is then 0 */
        for (int64_t at = 0; at < n; at += 32) {
            int8x16_t a[2], b[2];
            digits_32(a, left, type, (uint64_t)(p + at));
            digits_32(b, right, type, (uint64_t)(p + at));
            UNROLL
            for (int i = 0; i < 2; i++)
                put_pair(panel + (at + 16 * i) * NR + 8 * j, 8 * NR, a[i], b[i]);
        }
    }
}

static void pack(void *panel, const void *rows, size_t row_bytes, int columns, int64_t p, int64_t n, const struct narrow_format *f)
{
    neon_pack_scales(panel, rows, row_bytes, columns, p, n, f->type);
    switch (f->type) {
    case DTYPE_Q8_0: pack_type(panel, rows, row_bytes, columns, p, n, DTYPE_Q8_0); break;
    case DTYPE_Q4_0: pack_type(panel, rows, row_bytes, columns, p, n, DTYPE_Q4_0); break;
    case DTYPE_Q4_K: pack_type(panel, rows, row_bytes, columns, p, n, DTYPE_Q4_K); break;
    default: pack_type(panel, rows, row_bytes, columns, p, n, DTYPE_Q6_K); break;
    }
}

/* Rows of A in pairs, over the terms of a panel: bytes as in the panel, scales and sums twice each, as the results lie. */
struct pairs {
    int8_t hi[NARROW_KC * MR], lo[NARROW_KC * MR];               /* (terms / 8, PAIRS, 2, 8) */
    float d[NARROW_KC / 32 * MR * 2], sum[NARROW_KC / 32 * MR * 2]; /* (terms / 32, PAIRS, 2, 2) */
};

/* Whole blocks of 32: rows of A are padded with zeros. Rows that do not exist repeat the last one. */
static void pairs_fill(struct pairs *to, const char *a, size_t a_bytes, int rows, int64_t p, int64_t n, int64_t padded, bool high)
{
    for (int i = 0; i < rows; i += 2) {
        const struct narrow_row x = narrow_row(a + (size_t)i * a_bytes, padded);
        const struct narrow_row y = narrow_row(a + (size_t)(i + 1 < rows ? i + 1 : i) * a_bytes, padded);
        for (int64_t at = 0; at < (n + 31) / 32 * 32; at += 16) {
            put_pair(to->hi + at * MR + 8 * i, 8 * MR, vld1q_s8(x.hi + p + at), vld1q_s8(y.hi + p + at));
            if (high)
                put_pair(to->lo + at * MR + 8 * i, 8 * MR, vld1q_s8(x.lo + p + at), vld1q_s8(y.lo + p + at));
        }
        for (int64_t b = 0; 32 * b < n; b++) {
            const int64_t from = p / 32 + b;
            vst1q_f32(to->d + (b * MR + i) * 2, vcombine_f32(vdup_n_f32(x.d[from]), vdup_n_f32(y.d[from])));
            vst1q_f32(to->sum + (b * MR + i) * 2, vcombine_f32(vdup_n_f32(x.sum[from]), vdup_n_f32(y.sum[from])));
        }
    }
}

/* sum += 16 terms of bytes of A with the panel's. */
static ALWAYS_INLINE void dot_terms(int32x4_t sum[PAIRS][WIDE], const int8_t *a, const int8_t *digits, const int pairs)
{
    UNROLL
    for (int q = 0; q < 16; q += 8) {
        int8x16_t b[WIDE];
        UNROLL
        for (int j = 0; j < WIDE; j++)
            b[j] = vld1q_s8(digits + q * NR + 16 * j);
        UNROLL
        for (int i = 0; i < pairs; i++) {
            const int8x16_t ai = vld1q_s8(a + q * MR + 16 * i);
            UNROLL
            for (int j = 0; j < WIDE; j++)
                sum[i][j] = vmmlaq_s32(sum[i][j], ai, b[j]);
        }
    }
}

/* Two neighbouring columns' values, for both rows of a pair. */
static ALWAYS_INLINE float32x4_t load_two(const float *p)
{
    const float32x2_t two = vld1_f32(p);
    return vcombine_f32(two, two);
}

/* `pairs` of rows, of which `rows` exist, by 8 columns: `block` elements have a scale. */
static ALWAYS_INLINE void tile_fixed(float *c, int64_t ldc, const struct pairs *a, int first, int rows, const char *panel, int column,
                                     int columns, int64_t n, float alpha, bool accumulate, const int pairs, const int block,
                                     const bool minimums, const bool high)
{
    const int8_t *digits = (const int8_t *)panel + 8 * column;
    const float *scale = (const float *)(const void *)(panel + SCALES_AT) + column;
    const float *minimum = (const float *)(const void *)(panel + MINIMUMS_AT) + column;
    float total[PAIRS][WIDE][4];
    UNROLL
    for (int i = 0; i < pairs; i++)
        UNROLL
        for (int j = 0; j < WIDE; j++)
            vst1q_f32(total[i][j], vdupq_n_f32(0));
    for (int64_t at = 0; at < n; at += block, scale += NR) {
        int32x4_t sum[PAIRS][WIDE];
        UNROLL
        for (int i = 0; i < pairs; i++)
            UNROLL
            for (int j = 0; j < WIDE; j++)
                sum[i][j] = vdupq_n_s32(0);
        const int64_t from = at * MR + 8 * first;
        for (int q = 0; q < block; q += 16) /* not unrolled, or compilers keep digits for the second pass and run out of registers */
            dot_terms(sum, a->hi + from + q * MR, digits + (at + q) * NR, pairs);
        if (high) {
            UNROLL
            for (int i = 0; i < pairs; i++)
                UNROLL
                for (int j = 0; j < WIDE; j++)
                    sum[i][j] = vshlq_n_s32(sum[i][j], 7);
            for (int q = 0; q < block; q += 16)
                dot_terms(sum, a->lo + from + q * MR, digits + (at + q) * NR, pairs);
        }
        const float *d = a->d + at / 32 * MR * 2 + 2 * first, *of_sum = a->sum + at / 32 * MR * 2 + 2 * first;
        UNROLL
        for (int j = 0; j < WIDE; j++) {
            const float32x4_t of_b = load_two(scale + 2 * j), least = minimums ? load_two(minimum + at + 2 * j) : of_b;
            UNROLL
            for (int i = 0; i < pairs; i++) {
                const float32x4_t both = vmulq_f32(of_b, vld1q_f32(d + 4 * i));
                const float32x4_t v = vfmaq_f32(vld1q_f32(total[i][j]), vcvtq_f32_s32(sum[i][j]), both);
                vst1q_f32(total[i][j], minimums ? vfmsq_f32(v, least, vld1q_f32(of_sum + 4 * i)) : v);
            }
        }
    }
    for (int i = 0; i < rows; i++, c += ldc)
        for (int j = 0; j < WIDE && 2 * j < columns; j += 2) {
            const float32x2_t left = vld1_f32(total[i / 2][j] + i % 2 * 2), right = vld1_f32(total[i / 2][j + 1] + i % 2 * 2);
            store_columns(c + 2 * j, vcombine_f32(left, right), alpha, accumulate, columns - 2 * j);
        }
}
/* minimum + at: a block of 32 elements has NR = 32 minimums. */
_Static_assert(NR == 32, "tile_fixed steps through the minimums by elements");

static ALWAYS_INLINE void tile_columns(float *c, int64_t ldc, const struct pairs *a, int rows, const char *panel, int columns, int64_t n,
                                       float alpha, bool accumulate, const int block, const bool minimums, const bool high)
{
    for (int j = 0; j < columns; j += 2 * WIDE) {
        int i = 0;
        if (rows > MR - 2) {
            tile_fixed(c + j, ldc, a, 0, rows, panel, j, columns - j, n, alpha, accumulate, PAIRS, block, minimums, high);
            continue;
        }
        for (; i < rows; i += 2)
            tile_fixed(c + i * ldc + j, ldc, a, i, rows - i < 2 ? 1 : 2, panel, j, columns - j, n, alpha, accumulate, 1, block, minimums,
                       high);
    }
}

static void tile(float *c, int64_t ldc, const void *a, size_t a_bytes, int rows, const void *panel, int columns, int64_t p, int64_t n,
                 int64_t k, float alpha, bool accumulate, const struct narrow_format *f)
{
    const bool high = f->precision == PRECISION_HIGH;
    const int kind = f->type == DTYPE_Q4_K ? 1 : f->type == DTYPE_Q6_K ? 2 : 0;
    struct pairs of_a;
    pairs_fill(&of_a, a, a_bytes, rows, p, n, narrow_padded(k), high);
    switch (2 * kind + high) {
    case 0: tile_columns(c, ldc, &of_a, rows, panel, columns, n, alpha, accumulate, 32, false, false); break;
    case 1: tile_columns(c, ldc, &of_a, rows, panel, columns, n, alpha, accumulate, 32, false, true); break;
    case 2: tile_columns(c, ldc, &of_a, rows, panel, columns, n, alpha, accumulate, 32, true, false); break;
    case 3: tile_columns(c, ldc, &of_a, rows, panel, columns, n, alpha, accumulate, 32, true, true); break;
    case 4: tile_columns(c, ldc, &of_a, rows, panel, columns, n, alpha, accumulate, 16, false, false); break;
    default: tile_columns(c, ldc, &of_a, rows, panel, columns, n, alpha, accumulate, 16, false, true); break;
    }
}

const struct narrow_kernel narrow_kernel_neon_i8mm = {
    .takes = takes, .a_bytes = neon_a_bytes, .convert_a = neon_convert_a, .row_dot = neon_dotprod_row_dot, .mr = MR, .pack = pack,
    .tile = tile,
};

static void i8mm_gemm(const struct gemm *g, struct thread_pool *pool)
{
    if (!narrow_gemm(&narrow_kernel_neon_i8mm, g, pool))
        gemm_parallel(&gemm_kernel_neon, g, pool);
}

static void i8mm_gemm_serial(const struct gemm *g, void *scratch)
{
    if (!narrow_gemm_serial(&narrow_kernel_neon_i8mm, g, scratch))
        gemm_serial(&gemm_kernel_neon, g, scratch);
}

const struct ops ops_table_neon_i8mm = {
    .name = "neon-i8mm", .gemm = i8mm_gemm, .gemm_serial = i8mm_gemm_serial, .gemm_scratch_bytes = neon_gemm_scratch_bytes, .kernel = &gemm_kernel_neon,
};
