/* The AVX2 table: 6 x 16 tile, 12 accumulators in 16 registers. */
#include <math.h>
#include <string.h>

#include "infer/ops/cpu/gemm.h"
#include "infer/ops/cpu/latent_attention.h"
#include "infer/ops/cpu/narrow.h"
#include "infer/ops/cpu/sparse_rows.h"
#include "infer/ops/cpu/tables.h"
#include "infer/ops/cpu/x86/compiler.h"
#include "infer/ops/cpu/x86/vec_avx2.h"

enum { MR = 6 };

#include "infer/ops/cpu/x86/kernels_vector.inc"

#include "infer/ops/cpu/x86/kernels_gemm.inc"

#include "infer/ops/cpu/x86/kernels_tile.inc"

#include "infer/ops/cpu/x86/kernels_latent.inc"

const struct gemm_kernel gemm_kernel_avx2 = {
    .mr = MR, .nr = NR, .mc = 96, .kc = 256, .nc = 1024,
    .tile = tile, .tile_ahead = tile_ahead, .pack_rows = pack_rows, .pack_columns = pack_columns, .to_f32 = to_f32, .row_dot = row_dot,
};

static void avx2_gemm(const struct gemm *g, struct thread_pool *pool)
{
    if (!narrow_gemm(&narrow_kernel_avx2, g, pool))
        gemm_parallel(&gemm_kernel_avx2, g, pool);
}

static void avx2_gemm_serial(const struct gemm *g, void *scratch)
{
    if (!narrow_gemm_serial(&narrow_kernel_avx2, g, scratch))
        gemm_serial(&gemm_kernel_avx2, g, scratch);
}

static size_t avx2_gemm_scratch_bytes(void)
{
    size_t bytes = gemm_scratch_bytes(&gemm_kernel_avx2);
    return bytes > NARROW_SCRATCH ? bytes : NARROW_SCRATCH;
}

static int64_t avx2_sparse_rows(const struct sparse_rows *s, struct thread_pool *pool)
{
    static const struct sparse_kernel kernel = {sparse_group_avx2, axpy};
    return sparse_rows_run(s, pool, &kernel);
}

static const struct latent_kernel latent_kernel_avx2 = {
    .gemm = &gemm_kernel_avx2, .max = max, .exp_sum = exp_sum, .axpy = axpy, .part = latent_part, .part_scratch_bytes = latent_part_bytes,
};

static void avx2_latent_attention(const struct latent_attention *items, int n_items, struct thread_pool *pool, void *scratch)
{
    latent_attention_run(&latent_kernel_avx2, items, n_items, pool, scratch);
}

static size_t avx2_latent_attention_scratch_bytes(int n_head, int rank, int rotary, int64_t total_rows, int n_items, int threads)
{
    return latent_attention_bytes(&latent_kernel_avx2, n_head, rank, rotary, total_rows, n_items, threads);
}

const struct ops ops_table_avx2 = {
    .name = "avx2",
    .gemm = avx2_gemm, .gemm_serial = avx2_gemm_serial, .gemm_scratch_bytes = avx2_gemm_scratch_bytes, .kernel = &gemm_kernel_avx2,
    .sparse_rows = avx2_sparse_rows, .dot = dot, .axpy = axpy, .scale = scale, .add = add, .max = max, .exp_sum = exp_sum, .to_f32 = to_f32,
    .rms_norm = rms_norm, .relu2 = relu2, .rope = rope,
    .latent_attention = avx2_latent_attention, .latent_attention_scratch_bytes = avx2_latent_attention_scratch_bytes,
};
