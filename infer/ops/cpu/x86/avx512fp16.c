/* The AVX-512 FP16 table: the values of a block of attention added up in half precision, RUN products at a time. */
#include "infer/ops/cpu/tables.h"
#include "infer/ops/cpu/x86/compiler.h"
#include "infer/ops/cpu/x86/vnni.h"

enum { MR = 12, RUN = 32 };

static ALWAYS_INLINE void add_to(float *out, int64_t columns, __m256i halves, __m512 unit)
{
    const __mmask16 mask = (__mmask16)(columns >= 16 ? 0xFFFF : columns > 0 ? (1 << columns) - 1 : 0);
    _mm512_mask_storeu_ps(out, mask, _mm512_fmadd_ps(_mm512_cvtph_ps(halves), unit, _mm512_maskz_loadu_ps(mask, out)));
}

static ALWAYS_INLINE void add_run(const struct half_values *h, int64_t begin, int64_t end, const int rows)
{
    const uint16_t *value = h->value + begin * VNNI_HALVES;
    __m512h left[MR], right[MR];
    UNROLL
    for (int i = 0; i < rows; i++)
        left[i] = right[i] = _mm512_setzero_ph();
    for (int64_t j = begin; j < end; j++, value += VNNI_HALVES) {
        const __m512h v0 = _mm512_load_ph(value), v1 = _mm512_load_ph(value + 32);
        UNROLL
        for (int i = 0; i < rows; i++) {
            const __m512h p = _mm512_castsi512_ph(_mm512_set1_epi32((int)h->p[i * h->ldp + j]));
            left[i] = _mm512_fmadd_ph(p, v0, left[i]);
            right[i] = _mm512_fmadd_ph(p, v1, right[i]);
        }
    }
    const __m512 unit = _mm512_set1_ps(h->unit);
    UNROLL
    for (int i = 0; i < rows; i++) {
        float *to = h->out + i * h->ldo;
        const __m512i l = _mm512_castph_si512(left[i]), r = _mm512_castph_si512(right[i]);
        add_to(to, h->columns, _mm512_castsi512_si256(l), unit);
        add_to(to + 16, h->columns - 16, _mm512_extracti64x4_epi64(l, 1), unit);
        add_to(to + 32, h->columns - 32, _mm512_castsi512_si256(r), unit);
        add_to(to + 48, h->columns - 48, _mm512_extracti64x4_epi64(r, 1), unit);
    }
}

static void add_values(const struct half_values *h)
{
    for (int64_t begin = 0; begin < h->n; begin += RUN) {
        const int64_t end = begin + RUN < h->n ? begin + RUN : h->n;
        if (h->rows == 12)
            add_run(h, begin, end, 12);
        else if (h->rows == 4)
            add_run(h, begin, end, 4);
        else
            add_run(h, begin, end, 1);
    }
}

static void attention_narrow(const struct attention_block *b, void *scratch) { vnni_attention(b, scratch, add_values); }

static void fp16_gemm(const struct gemm *g, struct thread_pool *pool) { ops_table_avx512vnni.gemm(g, pool); }

static void fp16_gemm_serial(const struct gemm *g, void *scratch) { ops_table_avx512vnni.gemm_serial(g, scratch); }

static size_t fp16_gemm_scratch_bytes(void) { return ops_table_avx512vnni.gemm_scratch_bytes(); }

/* Processors with half precision are Xeons, whose bf16 products are slower than float32: this table takes the products from below. */
const struct ops ops_table_avx512fp16 = {
    .name = "avx512fp16", .gemm = fp16_gemm, .gemm_serial = fp16_gemm_serial, .gemm_scratch_bytes = fp16_gemm_scratch_bytes, .kernel = &gemm_kernel_avx512,
    .attention_narrow = attention_narrow, .attention_narrow_scratch_bytes = vnni_attention_narrow_scratch_bytes,
};
