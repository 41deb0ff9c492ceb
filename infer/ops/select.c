#ifdef __x86_64__
#include <cpuid.h>
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/ops/cpu/tables.h"
#include "infer/ops/ops.h"

/* The complete tables, written once and only read afterwards. */
static struct ops tables[OPS_BEST];
static enum ops_level best, preferred; /* what this processor can run, and what it is fastest with */
static pthread_once_t once = PTHREAD_ONCE_INIT;

#ifdef __x86_64__
#define OVERRIDE(entry) to->entry = faster->entry ? faster->entry : base->entry

/* __builtin_cpu_supports does not know "f16c" in every compiler. */
static bool cpu_has_f16c(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

/* `to` becomes `base` with the entries that `faster` has. */
static void table_layer(struct ops *to, const struct ops *base, const struct ops *faster)
{
    *to = *base;
    OVERRIDE(name);
    OVERRIDE(sparse_rows);
    OVERRIDE(dot);
    OVERRIDE(axpy);
    OVERRIDE(scale);
    OVERRIDE(add);
    OVERRIDE(max);
    OVERRIDE(exp_sum);
    OVERRIDE(to_f32);
    OVERRIDE(rms_norm);
    OVERRIDE(relu2);
    OVERRIDE(rope);
    if (faster->latent_attention && faster->latent_attention_scratch_bytes) {
        to->latent_attention = faster->latent_attention;
        to->latent_attention_scratch_bytes = faster->latent_attention_scratch_bytes;
    }
    if (faster->gemm && faster->gemm_serial && faster->gemm_scratch_bytes) { /* these share a layout of the scratch */
        to->gemm = faster->gemm;
        to->gemm_serial = faster->gemm_serial;
        to->gemm_scratch_bytes = faster->gemm_scratch_bytes;
    }
}
#endif

static const char *const names[OPS_BEST] = {"portable", "avx2", "avx512", "avx512vnni", "avx512bf16"};

/* The level PLM_OPS names; OPS_BEST when it is not set or not known. */
static enum ops_level level_from_environment(void)
{
    const char *name = getenv("PLM_OPS");
    for (int level = 0; name && level < OPS_BEST; level++)
        if (!strcmp(name, names[level]))
            return (enum ops_level)level;
    return OPS_BEST;
}

static void build_tables(void)
{
    const char *name = getenv("PLM_OPS");
    if (name && *name && level_from_environment() == OPS_BEST)
        log_warn("PLM_OPS is '%s', expected portable, avx2, avx512, avx512vnni or avx512bf16; using the best this processor has",
                 name);
    for (int level = 0; level < OPS_BEST; level++)
        tables[level] = ops_table_portable;
    best = OPS_PORTABLE;
#ifdef __x86_64__
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !cpu_has_f16c())
        return;
    table_layer(&tables[OPS_AVX2], &ops_table_portable, &ops_table_avx2);
    best = OPS_AVX2;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512dq"))
        return;
    table_layer(&tables[OPS_AVX512], &tables[OPS_AVX2], &ops_table_avx512);
    best = OPS_AVX512;
    if (!__builtin_cpu_supports("avx512vnni"))
        return;
    table_layer(&tables[OPS_AVX512VNNI], &tables[OPS_AVX512], &ops_table_avx512vnni);
    best = OPS_AVX512VNNI;
    if (!__builtin_cpu_supports("avx512bf16"))
        return;
    table_layer(&tables[OPS_AVX512BF16], &tables[OPS_AVX512VNNI], &ops_table_avx512bf16);
    best = OPS_AVX512BF16;
#endif
}

/* Zen 4 and 5 execute vdpbf16ps at twice the rate of float32; on Xeons that have it, it is slower than float32 (measured: 60
 * to 86 against 175 GFLOP/s). */
static enum ops_level level_preferred(void)
{
#ifdef __x86_64__
    if (best == OPS_AVX512BF16 && !__builtin_cpu_is("amd"))
        return OPS_AVX512VNNI;
#endif
    return best;
}

static void select_once(void)
{
    build_tables();
    preferred = level_preferred();
}

const struct ops *ops_select(enum ops_level level)
{
    pthread_once(&once, select_once);
    if (level >= OPS_BEST)
        level = level_from_environment();
    if (level >= OPS_BEST)
        level = preferred;
    return &tables[level < best ? level : best];
}
