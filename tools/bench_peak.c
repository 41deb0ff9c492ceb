#include "tools/bench_peak.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif
#include <stdlib.h>
#include <string.h>

#include "tools/arguments.h"

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, compare_doubles);
    return values[n / 2];
}

/* The FMA peak: chains of multiply-adds in registers, enough of them to hide the latency. Returns the multiply-adds done;
 * the sum goes to *sink so that the work cannot be left out. */
enum { PEAK_ROUNDS = 1000000, PEAK_CHAINS = 12 };

#ifdef __x86_64__
static __attribute__((target("avx512f"))) double fma_loop_avx512(float *sink)
{
    __m512 acc[PEAK_CHAINS], a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
    for (int i = 0; i < PEAK_CHAINS; i++)
        acc[i] = _mm512_set1_ps((float)i);
    for (int r = 0; r < PEAK_ROUNDS; r++)
#pragma GCC unroll 12
        for (int i = 0; i < PEAK_CHAINS; i++)
            acc[i] = _mm512_fmadd_ps(acc[i], a, b);
    for (int i = 1; i < PEAK_CHAINS; i++)
        acc[0] = _mm512_add_ps(acc[0], acc[i]);
    *sink = _mm512_reduce_add_ps(acc[0]);
    return 16.0 * PEAK_ROUNDS * PEAK_CHAINS;
}

static __attribute__((target("avx2,fma"))) double fma_loop_avx2(float *sink)
{
    __m256 acc[PEAK_CHAINS], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
    for (int i = 0; i < PEAK_CHAINS; i++)
        acc[i] = _mm256_set1_ps((float)i);
    for (int r = 0; r < PEAK_ROUNDS; r++)
#pragma GCC unroll 12
        for (int i = 0; i < PEAK_CHAINS; i++)
            acc[i] = _mm256_fmadd_ps(acc[i], a, b);
    for (int i = 1; i < PEAK_CHAINS; i++)
        acc[0] = _mm256_add_ps(acc[0], acc[i]);
    float lanes[8];
    _mm256_storeu_ps(lanes, acc[0]);
    *sink = lanes[0] + lanes[7];
    return 8.0 * PEAK_ROUNDS * PEAK_CHAINS;
}
#endif

/* Without an instruction set of its own: vectors of four, which every target has, multiply and add apart where it must. */
static double fma_loop_portable(float *sink)
{
    typedef float vec4 __attribute__((vector_size(16)));
    vec4 acc[PEAK_CHAINS], a = {0.999f, 0.999f, 0.999f, 0.999f}, b = {0.001f, 0.001f, 0.001f, 0.001f};
#pragma GCC unroll 12
    for (int i = 0; i < PEAK_CHAINS; i++)
        acc[i] = a * (float)i;
    for (int r = 0; r < PEAK_ROUNDS; r++)
#pragma GCC unroll 12
        for (int i = 0; i < PEAK_CHAINS; i++)
            acc[i] = acc[i] * a + b;
#pragma GCC unroll 12
    for (int i = 1; i < PEAK_CHAINS; i++)
        acc[0] += acc[i];
    *sink = acc[0][0] + acc[0][3];
    return 4.0 * PEAK_ROUNDS * PEAK_CHAINS;
}

#ifdef __x86_64__
static __attribute__((target("avx512f,avx512vnni"))) double int8_loop(float *sink)
{
    __m512i acc[PEAK_CHAINS], a = _mm512_set1_epi32(0x01020304), b = _mm512_set1_epi32(0x05060708);
    for (int i = 0; i < PEAK_CHAINS; i++)
        acc[i] = _mm512_set1_epi32(i);
    for (int r = 0; r < PEAK_ROUNDS; r++)
#pragma GCC unroll 12
        for (int i = 0; i < PEAK_CHAINS; i++)
            acc[i] = _mm512_dpbusd_epi32(acc[i], a, b);
    for (int i = 1; i < PEAK_CHAINS; i++)
        acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    *sink = (float)_mm512_cvtsi512_si32(acc[0]);
    return 64.0 * PEAK_ROUNDS * PEAK_CHAINS;
}

static __attribute__((target("avx512f,avx512bf16"))) double bf16_loop(float *sink)
{
    __m512 acc[PEAK_CHAINS];
    __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.25f)), b = a;
    for (int i = 0; i < PEAK_CHAINS; i++)
        acc[i] = _mm512_set1_ps((float)i);
    for (int r = 0; r < PEAK_ROUNDS; r++)
#pragma GCC unroll 12
        for (int i = 0; i < PEAK_CHAINS; i++)
            acc[i] = _mm512_dpbf16_ps(acc[i], a, b);
    for (int i = 1; i < PEAK_CHAINS; i++)
        acc[0] = _mm512_add_ps(acc[0], acc[i]);
    *sink = _mm512_reduce_add_ps(acc[0]);
    return 32.0 * PEAK_ROUNDS * PEAK_CHAINS;
}
#endif

struct peak {
    double (*loop)(float *sink);
    double madds[4096]; /* by worker */
};

static void peak_worker(void *ctx, int worker)
{
    struct peak *p = ctx;
    volatile float keep;
    float sink;
    p->madds[worker] = p->loop(&sink);
    keep = sink;
    (void)keep;
}

/* GOP/s of a loop on all threads. */
static double run_peak(double (*loop)(float *sink), struct thread_pool *pool)
{
    static const struct peak none;
    struct peak p = none;
    p.loop = loop;
    double start = seconds_now(), madds = 0;
    pool_run(pool, peak_worker, &p);
    double seconds = seconds_now() - start;
    for (int w = 0; w < pool_size(pool); w++)
        madds += p.madds[w];
    return 2e-9 * madds / seconds;
}

double bench_fma_peak(const struct ops *ops, struct thread_pool *pool)
{
#ifdef __x86_64__
    if (!strncmp(ops->name, "avx512", 6)) /* with or without more after it */
        return run_peak(fma_loop_avx512, pool);
    if (!strcmp(ops->name, "avx2"))
        return run_peak(fma_loop_avx2, pool);
#else
    (void)ops;
#endif
    return run_peak(fma_loop_portable, pool);
}

double bench_type_peak(const struct ops *ops, enum dtype type, struct thread_pool *pool, const char **name)
{
#ifdef __x86_64__
    const bool bf16 = !strcmp(ops->name, "avx512bf16");
    *name = "int8";
    if (dtype_is_quantized(type) && (bf16 || !strcmp(ops->name, "avx512vnni") || !strcmp(ops->name, "avx512fp16")))
        return run_peak(int8_loop, pool);
    *name = "bf16";
    if (type == DTYPE_BF16 && bf16)
        return run_peak(bf16_loop, pool);
#endif
    *name = "f32";
    return bench_fma_peak(ops, pool);
}

struct reading {
    const unsigned char *from;
    size_t bytes;
    int workers;
    uint64_t sums[4096]; /* by worker */
};

/* Eight sums of eight bytes per line, which the compiler makes vectors of: reading is all that costs. */
static void read_worker(void *ctx, int worker)
{
    struct reading *r = ctx;
    const size_t lines = r->bytes / 64;
    const uint64_t *from = (const uint64_t *)(const void *)(r->from + lines * (size_t)worker / (size_t)r->workers * 64);
    const uint64_t *to = (const uint64_t *)(const void *)(r->from + lines * ((size_t)worker + 1) / (size_t)r->workers * 64);
    uint64_t sum[8] = {0};
    for (; from < to; from += 8)
        for (int i = 0; i < 8; i++)
            sum[i] += from[i];
    for (int i = 0; i < 8; i++)
        r->sums[worker] += sum[i];
}

double bench_read_rate(const void *from, size_t bytes, struct thread_pool *pool)
{
    struct reading r = {.from = from, .bytes = bytes, .workers = pool_size(pool)};
    volatile uint64_t keep;
    double start = seconds_now();
    pool_run(pool, read_worker, &r);
    double seconds = seconds_now() - start;
    keep = r.sums[0];
    (void)keep;
    return 1e-9 * (double)bytes / seconds;
}
