/* A matrix (n, neurons) stored neuron by neuron, so that a product with a sparse vector reads only the columns of the neurons that
 * are not zero. Plain types are transposed. Quantised ones keep their digits and their scales exactly, in groups of neurons that share
 * a block's scale:
 *
 *     supers: per 256 neurons, for q4_k d and dmin (n f16 each), for q6_k d (n f16)
 *     groups: the scales of every row, for q8_0 and q4_0 n f16, for q4_k n scales and n minimums of a byte, for q6_k n int8;
 *             then neuron by neuron its n digits: q8_0 bytes; 4 bits, 128 rows in 64 bytes, low nibbles the first 64; for q6_k after
 *             these the upper 2 bits, 256 rows in 64 bytes, lowest bits the first 64
 *
 * Within 64 bytes, byte 16 L + 4 i + j belongs to row 16 i + 4 L + j: interleaving the bytes of four neurons in the 128-bit lanes of
 * a register then gives four registers of 16 rows in their order. */
#ifndef INFER_OPS_NEURON_MAJOR_H
#define INFER_OPS_NEURON_MAJOR_H

#include <stdint.h>

#include "infer/base/threads.h"
#include "infer/format/dtype.h"

/* Where the parts lie, in bytes. */
struct neuron_layout {
    int group;                     /* neurons per group; 1 for plain types */
    int unit;                      /* the rows come in multiples of it */
    size_t super;                  /* of 256 neurons */
    size_t header, row, per_group; /* per_group = header + group * row */
    size_t groups;                 /* where the first group begins */
};

static inline int64_t neuron_place(int64_t byte) { return (byte & ~(int64_t)63) | (byte & 12) << 2 | (byte & 48) >> 2 | (byte & 3); }

/* Bytes of the matrix in this form; 0 when its shape does not allow it. A multiple of 64. */
size_t neuron_major_layout(struct neuron_layout *l, enum dtype type, int64_t n, int64_t neurons);

/* Store `weights` (n, neurons) of `type` at `to`, 64-byte aligned, of as many bytes as neuron_major_layout says. */
void neuron_major_pack(void *to, const void *weights, enum dtype type, int64_t n, int64_t neurons, struct thread_pool *pool);

#endif
