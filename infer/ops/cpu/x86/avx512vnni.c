/* The AVX-512 VNNI table: quantised products on integers, all others as the AVX-512 table. */
#include "infer/ops/cpu/latent_attention.h"
#include "infer/ops/cpu/narrow.h"
#include "infer/ops/cpu/sparse_rows.h"
#include "infer/ops/cpu/tables.h"
#include "infer/ops/cpu/x86/vnni.h"

static void vnni_gemm(const struct gemm *g, struct thread_pool *pool)
{
    if (!narrow_gemm(&narrow_kernel_avx512vnni, g, pool))
        gemm_parallel(&gemm_kernel_avx512, g, pool);
}

static void vnni_gemm_serial(const struct gemm *g, void *scratch)
{
    if (!narrow_gemm_serial(&narrow_kernel_avx512vnni, g, scratch))
        gemm_serial(&gemm_kernel_avx512, g, scratch);
}

static size_t vnni_gemm_scratch_bytes(void)
{
    size_t bytes = gemm_scratch_bytes(&gemm_kernel_avx512);
    return bytes > NARROW_SCRATCH ? bytes : NARROW_SCRATCH;
}

static int64_t vnni_sparse_rows(const struct sparse_rows *s, struct thread_pool *pool)
{
    const struct sparse_kernel kernel = {sparse_group_avx512vnni, ops_table_avx512.axpy};
    return sparse_rows_run(s, pool, &kernel);
}

const struct ops ops_table_avx512vnni = {
    .name = "avx512vnni", .gemm = vnni_gemm, .gemm_serial = vnni_gemm_serial, .gemm_scratch_bytes = vnni_gemm_scratch_bytes, .kernel = &gemm_kernel_avx512,
    .sparse_rows = vnni_sparse_rows,
    .latent_attention = vnni_latent_attention, .latent_attention_scratch_bytes = vnni_latent_attention_scratch_bytes,
    .attention_narrow = vnni_attention_narrow, .attention_narrow_scratch_bytes = vnni_attention_narrow_scratch_bytes,
};
