#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/ops/cpu/tables.h"
#include "infer/ops/ops.h"

/* What this build has; a table builds on the one before. */
static const struct ops *const compiled[OPS_BEST] = {
    [OPS_PORTABLE] = &ops_table_portable,
#if defined(__x86_64__)
    [OPS_AVX2] = &ops_table_avx2,
    [OPS_AVX512] = &ops_table_avx512,
    [OPS_AVX512VNNI] = &ops_table_avx512vnni,
    [OPS_AVX512BF16] = &ops_table_avx512bf16,
#ifdef PLM_AVX512FP16
    [OPS_AVX512FP16] = &ops_table_avx512fp16,
#endif
#elif defined(__aarch64__)
    [OPS_NEON] = &ops_table_neon,
    [OPS_NEON_DOTPROD] = &ops_table_neon_dotprod,
    [OPS_NEON_I8MM] = &ops_table_neon_i8mm,
#endif
};

/* The complete tables, written once and only read afterwards. */
static struct ops tables[OPS_BEST];
static const struct ops *at_most[OPS_BEST]; /* by level, what this processor can run */
static const struct ops *preferred;         /* what it is fastest with */
static pthread_once_t once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)
/* __builtin_cpu_supports does not know "f16c" in every compiler. */
static bool cpu_has_f16c(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

/* Nor "avx512fp16". */
static bool cpu_has_avx512fp16(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx >> 23 & 1);
}
#endif

/* Whether the processor has what the table of `level` needs beyond the one before. */
static bool cpu_has(enum ops_level level)
{
    switch (level) {
#if defined(__x86_64__)
    case OPS_AVX2:
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && cpu_has_f16c();
    case OPS_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq");
    case OPS_AVX512VNNI:
        return __builtin_cpu_supports("avx512vnni");
    case OPS_AVX512BF16:
        return __builtin_cpu_supports("avx512bf16");
    case OPS_AVX512FP16:
        return cpu_has_avx512fp16();
#elif defined(__aarch64__) && defined(__linux__)
    case OPS_NEON_DOTPROD:
        return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
    case OPS_NEON_I8MM:
        return getauxval(AT_HWCAP2) & HWCAP2_I8MM;
#endif
    default:
        return level == OPS_PORTABLE || level == OPS_NEON;
    }
}

#define OVERRIDE(entry) to->entry = faster->entry ? faster->entry : base->entry

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
    if (faster->attention_narrow && faster->attention_narrow_scratch_bytes) {
        to->attention_narrow = faster->attention_narrow;
        to->attention_narrow_scratch_bytes = faster->attention_narrow_scratch_bytes;
    }
    if (faster->gemm && faster->gemm_serial && faster->gemm_scratch_bytes) { /* these share a layout of the scratch and of packed operands */
        to->gemm = faster->gemm;
        to->gemm_serial = faster->gemm_serial;
        to->gemm_scratch_bytes = faster->gemm_scratch_bytes;
        to->kernel = faster->kernel;
        to->bf16_rounding = faster->bf16_rounding;
    }
}

/* The level PLM_OPS names; OPS_BEST when it is not set or not known. */
static enum ops_level level_from_environment(void)
{
    const char *name = getenv("PLM_OPS");
    for (int level = 0; name && level < OPS_BEST; level++)
        if (compiled[level] && !strcmp(name, compiled[level]->name))
            return (enum ops_level)level;
    return OPS_BEST;
}

static void warn_unknown(const char *name)
{
    char known[128] = "";
    for (int level = 0; level < OPS_BEST; level++)
        if (compiled[level])
            snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", level ? ", " : "", compiled[level]->name);
    log_warn("PLM_OPS is '%s', expected one of %s; using the best this processor has", name, known);
}

/* Zen 4 and 5 execute vdpbf16ps at twice the rate of float32; on Xeons that have it, it is slower than float32 (measured: 60
 * to 86 against 175 GFLOP/s). */
static const struct ops *table_preferred(const struct ops *best)
{
#if defined(__x86_64__)
    if (best == &tables[OPS_AVX512BF16] && !__builtin_cpu_is("amd"))
        return &tables[OPS_AVX512VNNI];
#endif
    return best;
}

static void select_once(void)
{
    const char *name = getenv("PLM_OPS");
    if (name && *name && level_from_environment() == OPS_BEST)
        warn_unknown(name);
    const struct ops *best = &ops_table_portable;
    bool able = true; /* to run the levels up to here */
    for (int level = 0; level < OPS_BEST; level++) {
        if (compiled[level])
            able = able && cpu_has((enum ops_level)level);
        if (compiled[level] && able) {
            table_layer(&tables[level], best, compiled[level]);
            best = &tables[level];
        }
        at_most[level] = best;
    }
    preferred = table_preferred(best);
}

const struct ops *ops_select(enum ops_level level)
{
    pthread_once(&once, select_once);
    if (level >= OPS_BEST)
        level = level_from_environment();
    return level >= OPS_BEST ? preferred : at_most[level];
}
