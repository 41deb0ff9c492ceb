/* A keyed permutation of [0, n) that needs no memory: a Feistel network on the next even power of two, walked until the
 * value falls into the range (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). */
#ifndef DATA_PERMUTATION_H
#define DATA_PERMUTATION_H

#include <stdint.h>

/* Where i goes, i < n. */
uint64_t permutation_apply(uint64_t key, uint64_t n, uint64_t i);

#endif
