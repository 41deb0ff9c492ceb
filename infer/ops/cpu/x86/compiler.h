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

/* A value that the compiler must have in a general register at this point: it would gather bits in vector registers, whose ports are busy. */
#define KEEP_SCALAR(value) __asm__("" : "+r"(value))

/* Bytes by which to ask for weights in advance: a page, because the processor's own prefetching stops at its end. Measured with one
 * thread on a Xeon: 55 to 68 % of a plain read's rate without, 80 to 89 % with it; several rows at a time are slower than one. */
#define WEIGHTS_AHEAD 4096

#endif
