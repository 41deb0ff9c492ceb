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
static enum ops_level best; /* what this processor can run */
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
    if (faster->gemm && faster->gemm_serial && faster->gemm_scratch_bytes) { /* these share a layout of the scratch */
        to->gemm = faster->gemm;
        to->gemm_serial = faster->gemm_serial;
        to->gemm_scratch_bytes = faster->gemm_scratch_bytes;
    }
}
#endif

/* The level PLM_OPS names; OPS_BEST when it is not set or not known. */
static enum ops_level level_from_environment(void)
{
    static const char *const names[OPS_BEST] = {"portable", "avx2", "avx512"};
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
        log_warn("PLM_OPS is '%s', expected portable, avx2 or avx512; using the best this processor has", name);
    tables[OPS_PORTABLE] = tables[OPS_AVX2] = tables[OPS_AVX512] = ops_table_portable;
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
#endif
}

const struct ops *ops_select(enum ops_level level)
{
    pthread_once(&once, build_tables);
    if (level >= OPS_BEST)
        level = level_from_environment();
    return &tables[level < best ? level : best];
}
