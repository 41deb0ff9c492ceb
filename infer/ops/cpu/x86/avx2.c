/* The AVX2 table: 6 x 16 tile, 12 accumulators in 16 registers. */
#include <math.h>
#include <string.h>

#include "infer/ops/cpu/gemm.h"
#include "infer/ops/cpu/tables.h"
#include "infer/ops/cpu/x86/compiler.h"
#include "infer/ops/cpu/x86/vec_avx2.h"

enum { MR = 6 };

#include "infer/ops/cpu/x86/kernels_vector.inc"

#include "infer/ops/cpu/x86/kernels_gemm.inc"

const struct gemm_kernel gemm_kernel_avx2 = {
    .mr = MR, .nr = NR, .mc = 96, .kc = 256, .nc = 1024,
    .tile = tile, .pack_rows = pack_rows, .pack_columns = pack_columns, .to_f32 = to_f32, .row_dot = row_dot,
};

static void avx2_gemm(const struct gemm *g, struct thread_pool *pool)
{
    gemm_parallel(&gemm_kernel_avx2, g, pool);
}

static void avx2_gemm_serial(const struct gemm *g, void *scratch)
{
    gemm_serial(&gemm_kernel_avx2, g, scratch);
}

static size_t avx2_gemm_scratch_bytes(void)
{
    return gemm_scratch_bytes(&gemm_kernel_avx2);
}

const struct ops ops_table_avx2 = {
    .name = "avx2",
    .gemm = avx2_gemm, .gemm_serial = avx2_gemm_serial, .gemm_scratch_bytes = avx2_gemm_scratch_bytes,
    .dot = dot, .axpy = axpy, .scale = scale, .add = add, .max = max, .exp_sum = exp_sum, .to_f32 = to_f32,
    .rms_norm = rms_norm, .relu2 = relu2, .rope = rope,
};
