/* The tables of the instruction sets this build contains. Except for the portable one they may leave entries NULL; ops_select
 * fills those in. */
#ifndef INFER_OPS_CPU_TABLES_H
#define INFER_OPS_CPU_TABLES_H

#include "infer/ops/ops.h"

extern const struct ops ops_table_portable;
extern const struct ops ops_table_avx2;   /* x86-64 builds only; needs AVX2, FMA and F16C */
extern const struct ops ops_table_avx512; /* x86-64 builds only; needs AVX-512 F, BW, VL and DQ, and the above */
extern const struct ops ops_table_avx512vnni; /* x86-64 builds only; needs AVX-512 VNNI, and the above */
extern const struct ops ops_table_avx512bf16; /* x86-64 builds only; needs AVX-512 BF16, and the above */
extern const struct ops ops_table_avx512fp16; /* x86-64 builds with PLM_AVX512FP16 only; needs AVX-512 FP16, and the above */
extern const struct ops ops_table_neon;         /* 64-bit Arm builds only */
extern const struct ops ops_table_neon_dotprod; /* 64-bit Arm builds only; needs the dot product of bytes (sdot) */
extern const struct ops ops_table_neon_i8mm;    /* 64-bit Arm builds only; needs the matrix product of bytes (smmla), and the above */

#endif
