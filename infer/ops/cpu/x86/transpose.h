/* Sixteen vectors as a 16 x 16 matrix of 32-bit elements, transposed in place: how rows of narrow elements, two or four to a lane,
 * become the panels that vpdpbusd and vdpbf16ps read. */
#ifndef INFER_OPS_CPU_X86_TRANSPOSE_H
#define INFER_OPS_CPU_X86_TRANSPOSE_H

#include <immintrin.h>

#include "infer/ops/cpu/x86/compiler.h"

static ALWAYS_INLINE void transpose_16(__m512i r[16])
{
    __m512i t[16];
    UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 16; i += 4)
        UNROLL
        for (int h = 0; h < 2; h++) { /* r[i + c]: column c of each 4 x 4 matrix of rows i .. i + 3 */
            r[i + 2 * h] = _mm512_unpacklo_epi64(t[i + h], t[i + 2 + h]);
            r[i + 2 * h + 1] = _mm512_unpackhi_epi64(t[i + h], t[i + 2 + h]);
        }
    UNROLL
    for (int c = 0; c < 4; c++) { /* 128-bit parts as a 4 x 4 matrix */
        __m512i a = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88), b = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        __m512i d = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xDD), e = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xDD);
        t[c] = _mm512_shuffle_i32x4(a, b, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(a, b, 0xDD);
        t[4 + c] = _mm512_shuffle_i32x4(d, e, 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(d, e, 0xDD);
    }
    UNROLL
    for (int i = 0; i < 16; i++)
        r[i] = t[i];
}

#endif
