/* What the kernels ask of the compiler, in gcc's and clang's words. */
#ifndef INFER_OPS_CPU_X86_COMPILER_H
#define INFER_OPS_CPU_X86_COMPILER_H

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Before a loop of a constant number of rounds (up to 16): unroll it fully, so that arrays of vectors become registers. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#endif
