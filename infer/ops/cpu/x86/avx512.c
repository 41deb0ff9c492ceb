/* The AVX-512 table: 14 x 32 tile, 28 accumulators in 32 registers. */
#include <math.h>
#include <string.h>

#include "infer/ops/cpu/gemm.h"
#include "infer/ops/cpu/latent_attention.h"
#include "infer/ops/cpu/narrow.h"
#include "infer/ops/cpu/sparse_rows.h"
#include "infer/ops/cpu/tables.h"
#include "infer/ops/cpu/x86/compiler.h"
#include "infer/ops/cpu/x86/vec_avx512.h"

enum { MR = 14 };

#include "infer/ops/cpu/x86/kernels_vector.inc"

#include "infer/ops/cpu/x86/kernels_gemm.inc"

#include "infer/ops/cpu/x86/kernels_tile.inc"

#include "infer/ops/cpu/x86/kernels_latent.inc"

const struct gemm_kernel gemm_kernel_avx512 = {
    .mr = MR, .nr = NR, .mc = 112, .kc = 256, .nc = 1024,
    .tile = tile, .tile_ahead = tile_ahead, .pack_rows = pack_rows, .pack_columns = pack_columns, .to_f32 = to_f32, .row_dot = row_dot,
};

static void avx512_gemm(const struct gemm *g, struct thread_pool *pool)
{
    if (!narrow_gemm(&narrow_kernel_avx2, g, pool))
        gemm_parallel(&gemm_kernel_avx512, g, pool);
}

static void avx512_gemm_serial(const struct gemm *g, void *scratch)
{
    if (!narrow_gemm_serial(&narrow_kernel_avx2, g, scratch))
        gemm_serial(&gemm_kernel_avx512, g, scratch);
}

static size_t avx512_gemm_scratch_bytes(void)
{
    size_t bytes = gemm_scratch_bytes(&gemm_kernel_avx512);
    return bytes > NARROW_SCRATCH ? bytes : NARROW_SCRATCH;
}

static int64_t avx512_sparse_rows(const struct sparse_rows *s, struct thread_pool *pool)
{
    static const struct sparse_kernel kernel = {sparse_group_avx2, axpy};
    return sparse_rows_run(s, pool, &kernel);
}

const struct latent_kernel latent_kernel_avx512 = {
    .gemm = &gemm_kernel_avx512, .max = max, .exp_sum = exp_sum, .axpy = axpy, .part = latent_part, .part_scratch_bytes = latent_part_bytes,
};

static void avx512_latent_attention(const struct latent_attention *items, int n_items, struct thread_pool *pool, void *scratch)
{
    latent_attention_run(&latent_kernel_avx512, items, n_items, pool, scratch);
}

static size_t avx512_latent_attention_scratch_bytes(int n_head, int rank, int rotary, int64_t total_rows, int n_items, int threads)
{
    return latent_attention_bytes(&latent_kernel_avx512, n_head, rank, rotary, total_rows, n_items, threads);
}

const struct ops ops_table_avx512 = {
    .name = "avx512",
    .gemm = avx512_gemm, .gemm_serial = avx512_gemm_serial, .gemm_scratch_bytes = avx512_gemm_scratch_bytes, .kernel = &gemm_kernel_avx512,
    .sparse_rows = avx512_sparse_rows, .dot = dot, .axpy = axpy, .scale = scale, .add = add, .max = max, .exp_sum = exp_sum, .to_f32 = to_f32,
    .rms_norm = rms_norm, .relu2 = relu2, .rope = rope,
    .latent_attention = avx512_latent_attention, .latent_attention_scratch_bytes = avx512_latent_attention_scratch_bytes,
};
