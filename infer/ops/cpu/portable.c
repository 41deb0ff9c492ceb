/* The portable table: the reference every other kernel is measured against, and what runs where there is none. */
#include <math.h>
#include <string.h>

#include "infer/ops/cpu/gemm.h"
#include "infer/ops/cpu/latent_attention.h"
#include "infer/ops/cpu/narrow.h"
#include "infer/ops/cpu/sparse_rows.h"
#include "infer/ops/cpu/tables.h"

enum { MR = 4, NR = 8, CHUNK = 256 /* elements converted at a time: whole blocks of every type */ };

/* Elements [at, at + count) of a row, as float32; at is a multiple of CHUNK. What a last block has beyond is not wanted. */
static void row_chunk(float out[CHUNK], const void *row, enum dtype type, int64_t at, int count)
{
    int block = dtype_info(type)->block_elements;
    const char *from = (const char *)row + dtype_row_bytes(type, at);
    int whole = count / block * block;
    dtype_to_f32(type, out, from, whole);
    if (whole < count) {
        float last[CHUNK];
        dtype_to_f32(type, last, from + dtype_row_bytes(type, whole), block);
        memcpy(out + whole, last, (size_t)(count - whole) * sizeof *out);
    }
}

static int chunk_count(int64_t at, int64_t n)
{
    return n - at < CHUNK ? (int)(n - at) : CHUNK;
}

static void to_f32(float *out, const void *row, enum dtype type, int64_t n)
{
    for (int64_t at = 0; at < n; at += CHUNK)
        row_chunk(out + at, row, type, at, chunk_count(at, n));
}

/* Sums are kept in several lanes, which is faster and more accurate than one running sum. */
static float dot(const float *x, const float *y, int64_t n)
{
    float lane[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int l = 0; l < 8; l++)
            lane[l] += x[i + l] * y[i + l];
    for (int l = 0; i < n; i++, l++)
        lane[l] += x[i] * y[i];
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

static void axpy(float *y, float a, const void *row, enum dtype type, int64_t n)
{
    float x[CHUNK];
    for (int64_t at = 0; at < n; at += CHUNK) {
        int count = chunk_count(at, n);
        row_chunk(x, row, type, at, count);
        for (int i = 0; i < count; i++)
            y[at + i] += a * x[i];
    }
}

static void scale(float *x, float a, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= a;
}

static void add(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

static float max(const float *x, int64_t n)
{
    float m = x[0];
    for (int64_t i = 1; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

static float exp_sum(float *y, const float *x, int64_t n, float factor, float shift)
{
    float lane[8] = {0};
    for (int64_t i = 0; i < n; i++) {
        y[i] = expf(fmaf(factor, x[i], -shift));
        lane[i & 7] += y[i];
    }
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

static void rms_norm(float *y, int64_t ldy, float *rstd, const float *x, int64_t ldx, const float *weight, int64_t rows,
                     int64_t n, float eps)
{
    for (int64_t r = 0; r < rows; r++, x += ldx, y += ldy) {
        float inverse = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
        for (int64_t i = 0; i < n; i++)
            y[i] = weight[i] * (x[i] * inverse);
        if (rstd)
            rstd[r] = inverse;
    }
}

static void relu2(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float positive = x[i] < 0 ? 0 : x[i]; /* NaN stays NaN */
        y[i] = positive * positive;
    }
}

static void rope(float *x, const float *cosine, const float *sine, int64_t n)
{
    for (int64_t i = 0; i < n / 2; i++) {
        float even = x[2 * i], odd = x[2 * i + 1];
        x[2 * i] = even * cosine[i] - odd * sine[i];
        x[2 * i + 1] = even * sine[i] + odd * cosine[i];
    }
}

static inline void tile_store(const float *acc, float *c, int64_t ldc, int rows, int cols, float alpha, bool accumulate)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) {
            float value = alpha * acc[i * NR + j];
            c[i * ldc + j] = accumulate ? c[i * ldc + j] + value : value;
        }
}

static void tile(int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc, int rows, int cols,
                 const float *alpha, bool accumulate)
{
    float acc[MR * NR] = {0};
    if (rows == MR && cols == NR) {
        for (int64_t p = 0; p < k; p++, a += lda, b += ldb)
            for (int i = 0; i < MR; i++)
                for (int j = 0; j < NR; j++)
                    acc[i * NR + j] += a[i] * b[j];
    } else {
        for (int64_t p = 0; p < k; p++, a += lda, b += ldb)
            for (int i = 0; i < rows; i++)
                for (int j = 0; j < cols; j++)
                    acc[i * NR + j] += a[i] * b[j];
    }
    tile_store(acc, c, ldc, rows, cols, *alpha, accumulate);
}

static void pack_rows(float *to, int width, const float *from, int64_t ld, int count, int64_t k)
{
    for (int i = 0; i < count; i++)
        for (int64_t p = 0; p < k; p++)
            to[p * width + i] = from[i * ld + p];
}

static void pack_columns(float *to, int width, const float *from, int64_t ld, int count, int64_t k)
{
    for (int64_t p = 0; p < k; p++)
        memcpy(to + p * width, from + p * ld, (size_t)count * sizeof *to);
}

static void row_dot(float *out, const void *row, enum dtype type, const float *a, int64_t lda, int m, int64_t k)
{
    if (type == DTYPE_F32) {
        for (int i = 0; i < m; i++)
            out[i] = dot(row, a + i * lda, k);
        return;
    }
    float x[CHUNK];
    memset(out, 0, (size_t)m * sizeof *out);
    for (int64_t at = 0; at < k; at += CHUNK) {
        int count = chunk_count(at, k);
        row_chunk(x, row, type, at, count);
        for (int i = 0; i < m; i++)
            out[i] += dot(x, a + i * lda + at, count);
    }
}

const struct gemm_kernel gemm_kernel_portable = {
    .mr = MR, .nr = NR, .mc = 64, .kc = 256, .nc = 512,
    .tile = tile, .pack_rows = pack_rows, .pack_columns = pack_columns, .to_f32 = to_f32, .row_dot = row_dot,
};

static void portable_gemm(const struct gemm *g, struct thread_pool *pool)
{
    if (!narrow_gemm(&narrow_kernel_portable, g, pool))
        gemm_parallel(&gemm_kernel_portable, g, pool);
}

static void portable_gemm_serial(const struct gemm *g, void *scratch)
{
    if (!narrow_gemm_serial(&narrow_kernel_portable, g, scratch))
        gemm_serial(&gemm_kernel_portable, g, scratch);
}

static size_t portable_gemm_scratch_bytes(void)
{
    size_t bytes = gemm_scratch_bytes(&gemm_kernel_portable);
    return bytes > NARROW_SCRATCH ? bytes : NARROW_SCRATCH;
}

static int64_t portable_sparse_rows(const struct sparse_rows *s, struct thread_pool *pool)
{
    static const struct sparse_kernel kernel = {sparse_group_portable, axpy};
    return sparse_rows_run(s, pool, &kernel);
}

static const struct latent_kernel latent_kernel_portable = {
    .gemm = &gemm_kernel_portable, .max = max, .exp_sum = exp_sum, .axpy = axpy,
};

static void portable_latent_attention(const struct latent_attention *items, int n_items, struct thread_pool *pool, void *scratch)
{
    latent_attention_run(&latent_kernel_portable, items, n_items, pool, scratch);
}

static size_t portable_latent_attention_scratch_bytes(int n_head, int rank, int rotary, int64_t total_rows, int n_items, int threads)
{
    return latent_attention_bytes(&latent_kernel_portable, n_head, rank, rotary, total_rows, n_items, threads);
}

const struct ops ops_table_portable = {
    .name = "portable",
    .gemm = portable_gemm, .gemm_serial = portable_gemm_serial, .gemm_scratch_bytes = portable_gemm_scratch_bytes, .kernel = &gemm_kernel_portable,
    .sparse_rows = portable_sparse_rows, .dot = dot, .axpy = axpy, .scale = scale, .add = add, .max = max, .exp_sum = exp_sum, .to_f32 = to_f32,
    .rms_norm = rms_norm, .relu2 = relu2, .rope = rope,
    .latent_attention = portable_latent_attention, .latent_attention_scratch_bytes = portable_latent_attention_scratch_bytes,
};
