/* The table of any 64-bit Arm: 6 x 16 tile, 24 accumulators in 32 registers. */
#include <math.h>
#include <string.h>

#include "infer/ops/cpu/arm/narrow_neon.h"
#include "infer/ops/cpu/arm/vec_neon.h"
#include "infer/ops/cpu/gemm.h"
#include "infer/ops/cpu/latent_attention.h"
#include "infer/ops/cpu/tables.h"

enum { MR = 6 };

#include "infer/ops/cpu/x86/kernels_vector.inc"

#include "infer/ops/cpu/x86/kernels_gemm.inc"

#include "infer/ops/cpu/x86/kernels_latent.inc"

static ALWAYS_INLINE float32x4_t add_product(float32x4_t sum, float32x4_t b, float32x4_t a, const int lane)
{
    return lane == 0   ? vfmaq_laneq_f32(sum, b, a, 0)
           : lane == 1 ? vfmaq_laneq_f32(sum, b, a, 1)
           : lane == 2 ? vfmaq_laneq_f32(sum, b, a, 2)
                       : vfmaq_laneq_f32(sum, b, a, 3);
}

/* C = alpha * sum [+ C]. Not inlined: once per tile, and there are six tiles. */
static __attribute__((noinline)) void tile_store(const float *sum, float *c, int64_t ldc, int rows, int cols, float alpha, bool accumulate)
{
    for (int i = 0; i < rows; i++, c += ldc)
        for (int j = 0; j < cols; j += 4) {
            const float32x4_t value = vld1q_f32(sum + NR * i + j), before = accumulate ? four_load(c + j, cols - j) : vdupq_n_f32(0);
            four_store(c + j, vfmaq_n_f32(before, value, alpha), cols - j);
        }
}

/* The tile with `rows` a constant. Loads of B are of all NR columns; only the last rows of B, behind which there may be no memory,
 * go through a copy when there are fewer. */
static ALWAYS_INLINE void tile_fixed(const int rows, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                                     int64_t ldc, int cols, const float *alpha, bool accumulate)
{
    float32x4_t sum[MR][NR / 4];
    float copy[NR] = {0};
    UNROLL
    for (int i = 0; i < rows; i++) {
        __builtin_prefetch(c + i * ldc, 1);
        UNROLL
        for (int j = 0; j < NR / 4; j++)
            sum[i][j] = vdupq_n_f32(0);
    }
    const int64_t safe = cols == NR ? k : k - (NR + ldb - 1) / ldb;
    for (int64_t p = 0, steps; p < k; p += steps, b += steps * ldb) {
        const float *from = b;
        steps = safe - p;
        if (steps <= 0) {
            steps = 1;
            from = memcpy(copy, b, (size_t)cols * sizeof *b);
        }
        for (int64_t step = 0; step < steps; step++, a += lda, from += ldb) {
            const float32x4_t a0 = four_load(a, rows), a4 = four_load(a + 4, rows - 4);
            float32x4_t bp[NR / 4];
            UNROLL
            for (int j = 0; j < NR / 4; j++)
                bp[j] = vld1q_f32(from + 4 * j);
            UNROLL
            for (int i = 0; i < rows; i++)
                UNROLL
                for (int j = 0; j < NR / 4; j++)
                    sum[i][j] = add_product(sum[i][j], bp[j], i < 4 ? a0 : a4, i % 4);
        }
    }
    float out[MR * NR];
    UNROLL
    for (int i = 0; i < rows; i++)
        UNROLL
        for (int j = 0; j < NR / 4; j++)
            vst1q_f32(out + NR * i + 4 * j, sum[i][j]);
    tile_store(out, c, ldc, rows, cols, *alpha, accumulate);
}

/* Every number of rows has its own code, so that the last rows of a matrix cost what they weigh. */
static void tile(int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc, int rows, int cols,
                 const float *alpha, bool accumulate)
{
    switch (rows) {
    case 1: tile_fixed(1, k, a, lda, b, ldb, c, ldc, cols, alpha, accumulate); break;
    case 2: tile_fixed(2, k, a, lda, b, ldb, c, ldc, cols, alpha, accumulate); break;
    case 3: tile_fixed(3, k, a, lda, b, ldb, c, ldc, cols, alpha, accumulate); break;
    case 4: tile_fixed(4, k, a, lda, b, ldb, c, ldc, cols, alpha, accumulate); break;
    case 5: tile_fixed(5, k, a, lda, b, ldb, c, ldc, cols, alpha, accumulate); break;
    default: tile_fixed(MR, k, a, lda, b, ldb, c, ldc, cols, alpha, accumulate); break;
    }
}
_Static_assert(MR == 6, "tile lists the numbers of rows");

const struct gemm_kernel gemm_kernel_neon = {
    .mr = MR, .nr = NR, .mc = 96, .kc = 256, .nc = 256,
    .tile = tile, .pack_rows = pack_rows, .pack_columns = pack_columns, .to_f32 = to_f32, .row_dot = row_dot,
};

static void neon_gemm(const struct gemm *g, struct thread_pool *pool)
{
    if (!narrow_gemm(&narrow_kernel_neon, g, pool))
        gemm_parallel(&gemm_kernel_neon, g, pool);
}

static void neon_gemm_serial(const struct gemm *g, void *scratch)
{
    if (!narrow_gemm_serial(&narrow_kernel_neon, g, scratch))
        gemm_serial(&gemm_kernel_neon, g, scratch);
}

size_t neon_gemm_scratch_bytes(void)
{
    const size_t bytes = gemm_scratch_bytes(&gemm_kernel_neon);
    return bytes > NARROW_SCRATCH ? bytes : NARROW_SCRATCH;
}

static int64_t neon_sparse_rows(const struct sparse_rows *s, struct thread_pool *pool)
{
    static const struct sparse_kernel kernel = {neon_sparse_group, axpy};
    return sparse_rows_run(s, pool, &kernel);
}

static const struct latent_kernel latent_kernel_neon = {
    .gemm = &gemm_kernel_neon, .max = max, .exp_sum = exp_sum, .axpy = axpy, .part = latent_part, .part_scratch_bytes = latent_part_bytes,
};

static void neon_latent_attention(const struct latent_attention *items, int n_items, struct thread_pool *pool, void *scratch)
{
    latent_attention_run(&latent_kernel_neon, items, n_items, pool, scratch);
}

static size_t neon_latent_attention_scratch_bytes(int n_head, int rank, int rotary, int64_t total_rows, int n_items, int threads)
{
    return latent_attention_bytes(&latent_kernel_neon, n_head, rank, rotary, total_rows, n_items, threads);
}

const struct ops ops_table_neon = {
    .name = "neon",
    .gemm = neon_gemm, .gemm_serial = neon_gemm_serial, .gemm_scratch_bytes = neon_gemm_scratch_bytes, .kernel = &gemm_kernel_neon,
    .sparse_rows = neon_sparse_rows, .dot = dot, .axpy = axpy, .scale = scale, .add = add, .max = max, .exp_sum = exp_sum, .to_f32 = to_f32,
    .rms_norm = rms_norm, .relu2 = relu2, .rope = rope,
    .latent_attention = neon_latent_attention, .latent_attention_scratch_bytes = neon_latent_attention_scratch_bytes,
};
