/* bf16 weights with AVX-512 BF16: A rounded to bf16 once, panels of B as pairs, a register tile of 12 by 32. vdpbf16ps rounds to
 * nearest even and takes subnormals as zero. */
#include <string.h>

#include "infer/ops/cpu/narrow.h"
#include "infer/ops/cpu/tables.h"
#include "infer/ops/cpu/x86/compiler.h"
#include "infer/ops/cpu/x86/transpose.h"

enum { MR = 12, NR = NARROW_NR };

/* With few rows the bytes of B are the limit, which the float32 path reaches. */
static bool bf16_takes(const struct gemm *g)
{
    return g->b_type == DTYPE_BF16 && g->precision == PRECISION_FAST && g->m > GEMV_MAX_M;
}

static int64_t bf16_padded(int64_t k)
{
    return (k + 31) / 32 * 32;
}

static size_t bf16_a_bytes(int64_t k, const struct narrow_format *f)
{
    (void)f;
    return (size_t)bf16_padded(k) * 2;
}

static inline __mmask16 first_lanes(int64_t n)
{
    return (__mmask16)(n >= 16 ? 0xFFFF : n > 0 ? (1 << n) - 1 : 0);
}

static void bf16_convert_a(void *to, const float *x, int64_t k, const struct narrow_format *f)
{
    (void)f;
    for (int64_t at = 0; at < bf16_padded(k); at += 16) {
        __m256bh pair = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(first_lanes(k - at), x + (at < k ? at : 0)));
        memcpy((uint16_t *)to + at, &pair, sizeof pair);
    }
}

static void bf16_pack(void *panel, const void *rows, size_t row_bytes, int columns, int64_t p, int64_t n,
                      const struct narrow_format *f)
{
    (void)f;
    for (int first = 0; first < NR; first += 16)
        for (int64_t at = 0; at < n; at += 32) {
            __mmask32 mask = n - at >= 32 ? 0xFFFFFFFF : (1u << (n - at)) - 1;
            __m512i r[16];
            UNROLL
            for (int j = 0; j < 16; j++)
                r[j] = first + j < columns
                           ? _mm512_maskz_loadu_epi16(mask, (const char *)rows + (size_t)(first + j) * row_bytes + 2 * (p + at))
                           : _mm512_setzero_si512();
            transpose_16(r);
            UNROLL
            for (int q = 0; q < 16; q++)
                _mm512_store_si512((char *)panel + (at / 2 + q) * NR * 4 + first * 4, r[q]);
        }
}

static ALWAYS_INLINE void tile_fixed(float *c, int64_t ldc, const char *a, size_t a_bytes, const char *panel, int columns,
                                     int64_t n, float alpha, bool accumulate, const int rows)
{
    __m512 left[MR], right[MR];
    UNROLL
    for (int i = 0; i < rows; i++)
        left[i] = right[i] = _mm512_setzero_ps();
    for (int64_t q = 0; 2 * q < n; q++, panel += NR * 4) {
        __m512bh b0 = (__m512bh)_mm512_load_si512(panel), b1 = (__m512bh)_mm512_load_si512(panel + 64);
        UNROLL
        for (int i = 0; i < rows; i++) {
            int32_t two;
            memcpy(&two, a + (size_t)i * a_bytes + 4 * q, sizeof two);
            __m512bh pair = (__m512bh)_mm512_set1_epi32(two);
            left[i] = _mm512_dpbf16_ps(left[i], pair, b0);
            right[i] = _mm512_dpbf16_ps(right[i], pair, b1);
        }
    }
    __mmask16 first = first_lanes(columns), second = first_lanes(columns - 16);
    __m512 factor = _mm512_set1_ps(alpha);
    UNROLL
    for (int i = 0; i < rows; i++, c += ldc) {
        __m512 l = accumulate ? _mm512_maskz_loadu_ps(first, c) : _mm512_setzero_ps();
        __m512 r = accumulate ? _mm512_maskz_loadu_ps(second, c + 16) : _mm512_setzero_ps();
        _mm512_mask_storeu_ps(c, first, _mm512_fmadd_ps(factor, left[i], l));
        _mm512_mask_storeu_ps(c + 16, second, _mm512_fmadd_ps(factor, right[i], r));
    }
}

static void bf16_tile(float *c, int64_t ldc, const void *a, size_t a_bytes, int rows, const void *panel, int columns, int64_t p,
                      int64_t n, int64_t k, float alpha, bool accumulate, const struct narrow_format *f)
{
    (void)k;
    (void)f;
    const char *from = (const char *)a + 2 * p;
#define ROWS(count) \
    for (; rows >= count; rows -= count, from += count * a_bytes, c += count * ldc) \
        tile_fixed(c, ldc, from, a_bytes, panel, columns, n, alpha, accumulate, count)
    ROWS(12);
    ROWS(6);
    ROWS(3);
    ROWS(1);
#undef ROWS
}

const struct narrow_kernel narrow_kernel_avx512bf16 = {
    .takes = bf16_takes, .a_bytes = bf16_a_bytes, .convert_a = bf16_convert_a, .mr = MR, .pack = bf16_pack, .tile = bf16_tile,
};

static void bf16_gemm(const struct gemm *g, struct thread_pool *pool)
{
    if (!narrow_gemm(&narrow_kernel_avx512bf16, g, pool))
        ops_table_avx512vnni.gemm(g, pool);
}

static void bf16_gemm_serial(const struct gemm *g, void *scratch)
{
    if (!narrow_gemm_serial(&narrow_kernel_avx512bf16, g, scratch))
        ops_table_avx512vnni.gemm_serial(g, scratch);
}

static size_t bf16_gemm_scratch_bytes(void)
{
    return ops_table_avx512vnni.gemm_scratch_bytes();
}

const struct ops ops_table_avx512bf16 = {
    .name = "avx512bf16", .gemm = bf16_gemm, .gemm_serial = bf16_gemm_serial, .gemm_scratch_bytes = bf16_gemm_scratch_bytes,
    .kernel = &gemm_kernel_avx512, .bf16_rounding = 0x1p-8f,
};
