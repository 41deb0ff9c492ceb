/* The table of Arm processors with sdot: quantised products on bytes, with rows of B in place or panels of them, all others as the
 * NEON table.
 *
 * A panel's digits are (terms / 4, NR, 4): one vector holds four terms of four columns, which sdot multiplies with four terms of a
 * row of A, a lane of another vector. The tile is 4 by 16, its sums of a block in 16 registers; the float sums stay in L1. */
#include "infer/ops/cpu/arm/panels.h"
#include "infer/ops/cpu/tables.h"

enum { ROWS = 4 };
#include "infer/ops/cpu/arm/kernels_rows.inc"

#include "infer/ops/cpu/arm/kernels_sparse.inc"

void neon_dotprod_row_dot(float *out, const void *row, const void *a, size_t a_bytes, int m, int64_t k, const struct narrow_format *f)
{
    row_dot(out, row, a, a_bytes, m, k, f);
}

static bool takes(const struct gemm *g)
{
    return dtype_is_quantized(g->b_type);
}

/* Terms [at, at + 16) of four columns. */
static ALWAYS_INLINE void put_16(char *to, const int8x16_t column[4])
{
    int32x4_t v[4], t[4];
    UNROLL
    for (int j = 0; j < 4; j++)
        v[j] = vreinterpretq_s32_s8(column[j]);
    t[0] = vtrn1q_s32(v[0], v[1]);
    t[1] = vtrn2q_s32(v[0], v[1]);
    t[2] = vtrn1q_s32(v[2], v[3]);
    t[3] = vtrn2q_s32(v[2], v[3]);
    UNROLL
    for (int i = 0; i < 4; i++) {
        const int64x2_t left = vreinterpretq_s64_s32(t[i % 2]), right = vreinterpretq_s64_s32(t[i % 2 + 2]);
        vst1q_s8((int8_t *)to + 4 * NR * i, vreinterpretq_s8_s64(i < 2 ? vtrn1q_s64(left, right) : vtrn2q_s64(left, right)));
    }
}

static ALWAYS_INLINE void pack_type(char *panel, const char *rows, size_t row_bytes, int columns, int64_t p, int64_t n,
                                    const enum dtype type)
{
    for (int j = 0; j < columns; j += 4)
        for (int64_t at = 0; at < n; at += 32) {
            int8x16_t digits[4][2], first[4], second[4];
            UNROLL
            for (int c = 0; c < 4; c++) {
                /* columns that do not exist repeat the last; their scales are zero */
                digits_32(digits[c], rows + (size_t)(j + c < columns ? j + c : columns - 1) * row_bytes, type, (uint64_t)(p + at));
                first[c] = digits[c][0];
                second[c] = digits[c][1];
            }
            put_16(panel + at * NR + 16 * (j / 4), first);
            put_16(panel + (at + 16) * NR + 16 * (j / 4), second);
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

enum { MR = 4, WIDE = 4 /* vectors of columns */ };

static ALWAYS_INLINE int32x4_t dot_lane(int32x4_t sum, int8x16_t b, int8x16_t a, const int lane)
{
    return lane == 0   ? vdotq_laneq_s32(sum, b, a, 0)
           : lane == 1 ? vdotq_laneq_s32(sum, b, a, 1)
           : lane == 2 ? vdotq_laneq_s32(sum, b, a, 2)
                       : vdotq_laneq_s32(sum, b, a, 3);
}

/* sum += 16 terms of bytes of A with the panel's. */
static ALWAYS_INLINE void dot_terms(int32x4_t sum[MR][WIDE], const int8_t *const a[MR], int64_t at, const int8_t *digits, const int rows)
{
    int8x16_t ai[MR];
    UNROLL
    for (int i = 0; i < rows; i++)
        ai[i] = vld1q_s8(a[i] + at);
    UNROLL
    for (int lane = 0; lane < 4; lane++)
        UNROLL
        for (int j = 0; j < WIDE; j++) {
            const int8x16_t b = vld1q_s8(digits + 4 * lane * NR + 16 * j);
            UNROLL
            for (int i = 0; i < rows; i++)
                sum[i][j] = dot_lane(sum[i][j], b, ai[i], lane);
        }
}

/* `rows` by 16: `block` elements have a scale. */
static ALWAYS_INLINE void tile_fixed(float *c, int64_t ldc, const struct narrow_row *a, const char *panel, int columns, int64_t n,
                                     float alpha, bool accumulate, const int rows, const int block, const bool minimums, const bool high)
{
    const float *scale = (const float *)(const void *)(panel + SCALES_AT), *minimum = (const float *)(const void *)(panel + MINIMUMS_AT);
    const int8_t *bytes[MR];
    float total[MR][4 * WIDE];
    UNROLL
    for (int i = 0; i < rows; i++) {
        bytes[i] = a[i].hi;
        UNROLL
        for (int j = 0; j < WIDE; j++)
            vst1q_f32(total[i] + 4 * j, vdupq_n_f32(0));
    }
    const int64_t lo = a[0].lo - a[0].hi; /* the same in every row */
    for (int64_t at = 0; at < n; at += block, scale += NR) {
        int32x4_t sum[MR][WIDE];
        UNROLL
        for (int i = 0; i < rows; i++)
            UNROLL
            for (int j = 0; j < WIDE; j++)
                sum[i][j] = vdupq_n_s32(0);
        const int8_t *digits = (const int8_t *)panel + at * NR;
        for (int q = 0; q < block; q += 16) /* not unrolled, or compilers keep digits for the second pass and run out of registers */
            dot_terms(sum, bytes, at + q, digits + q * NR, rows);
        if (high) {
            UNROLL
            for (int i = 0; i < rows; i++)
                UNROLL
                for (int j = 0; j < WIDE; j++)
                    sum[i][j] = vshlq_n_s32(sum[i][j], 7);
            for (int q = 0; q < block; q += 16)
                dot_terms(sum, bytes, lo + at + q, digits + q * NR, rows);
        }
        UNROLL
        for (int j = 0; j < WIDE; j++) {
            const float32x4_t of_b = vld1q_f32(scale + 4 * j), least = minimums ? vld1q_f32(minimum + at + 4 * j) : of_b;
            UNROLL
            for (int i = 0; i < rows; i++) {
                float32x4_t v = vfmaq_f32(vld1q_f32(total[i] + 4 * j), vcvtq_f32_s32(sum[i][j]), vmulq_n_f32(of_b, a[i].d[at / 32]));
                vst1q_f32(total[i] + 4 * j, minimums ? vfmsq_n_f32(v, least, a[i].sum[at / 32]) : v);
            }
        }
    }
    for (int i = 0; i < rows; i++, c += ldc)
        for (int j = 0; 4 * j < columns && j < WIDE; j++)
            store_columns(c + 4 * j, vld1q_f32(total[i] + 4 * j), alpha, accumulate, columns - 4 * j);
}
/* minimum + at: a block of 32 elements has NR = 32 minimums. */
_Static_assert(NR == 32, "tile_fixed steps through the minimums by elements");

static ALWAYS_INLINE void tile_rows(float *c, int64_t ldc, const struct narrow_row *a, int rows, const char *panel, int columns, int64_t n,
                                    float alpha, bool accumulate, const int block, const bool minimums, const bool high)
{
    if (rows == MR)
        tile_fixed(c, ldc, a, panel, columns, n, alpha, accumulate, MR, block, minimums, high);
    else
        for (int i = 0; i < rows; i++)
            tile_fixed(c + i * ldc, ldc, a + i, panel, columns, n, alpha, accumulate, 1, block, minimums, high);
}

static void tile(float *c, int64_t ldc, const void *a, size_t a_bytes, int rows, const void *panel, int columns, int64_t p, int64_t n,
                 int64_t k, float alpha, bool accumulate, const struct narrow_format *f)
{
    const bool high = f->precision == PRECISION_HIGH;
    struct narrow_row of_a[MR];
    for (int i = 0; i < rows; i++) {
        const struct narrow_row row = narrow_row((const char *)a + (size_t)i * a_bytes, narrow_padded(k));
        of_a[i] = (struct narrow_row){row.hi + p, row.lo + p, row.d + p / 32, row.sum + p / 32};
    }
    const int kind = f->type == DTYPE_Q4_K ? 1 : f->type == DTYPE_Q6_K ? 2 : 0;
    for (int j = 0; j < columns; j += 4 * WIDE, c += 4 * WIDE) {
        const char *from = (const char *)panel + 4 * j; /* a column has four bytes in every line: digits, a scale, a minimum */
        const int left = columns - j;
        switch (2 * kind + high) {
        case 0: tile_rows(c, ldc, of_a, rows, from, left, n, alpha, accumulate, 32, false, false); break;
        case 1: tile_rows(c, ldc, of_a, rows, from, left, n, alpha, accumulate, 32, false, true); break;
        case 2: tile_rows(c, ldc, of_a, rows, from, left, n, alpha, accumulate, 32, true, false); break;
        case 3: tile_rows(c, ldc, of_a, rows, from, left, n, alpha, accumulate, 32, true, true); break;
        case 4: tile_rows(c, ldc, of_a, rows, from, left, n, alpha, accumulate, 16, false, false); break;
        default: tile_rows(c, ldc, of_a, rows, from, left, n, alpha, accumulate, 16, false, true); break;
        }
    }
}

const struct narrow_kernel narrow_kernel_neon_dotprod = {
    .takes = takes, .a_bytes = neon_a_bytes, .convert_a = neon_convert_a, .row_dot = row_dot, .mr = MR, .pack = pack, .tile = tile,
};

static void dotprod_gemm(const struct gemm *g, struct thread_pool *pool)
{
    if (!narrow_gemm(&narrow_kernel_neon_dotprod, g, pool))
        gemm_parallel(&gemm_kernel_neon, g, pool);
}

static void dotprod_gemm_serial(const struct gemm *g, void *scratch)
{
    if (!narrow_gemm_serial(&narrow_kernel_neon_dotprod, g, scratch))
        gemm_serial(&gemm_kernel_neon, g, scratch);
}

static int64_t dotprod_sparse_rows(const struct sparse_rows *s, struct thread_pool *pool)
{
    const struct sparse_kernel kernel = {sparse_group, ops_table_neon.axpy};
    return sparse_rows_run(s, pool, &kernel);
}

const struct ops ops_table_neon_dotprod = {
    .name = "neon-dotprod", .gemm = dotprod_gemm, .gemm_serial = dotprod_gemm_serial, .gemm_scratch_bytes = neon_gemm_scratch_bytes, .kernel = &gemm_kernel_neon,
    .sparse_rows = dotprod_sparse_rows,
};
