#include "data/permutation.h"

#include "infer/base/random.h"

enum { ROUNDS = 6 };

uint64_t permutation_apply(uint64_t key, uint64_t n, uint64_t i)
{
    int half = 1; /* bits */
    while (half < 32 && (n - 1) >> (2 * half))
        half++;
    uint64_t mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint32_t round = 0; round < ROUNDS; round++) {
            uint64_t mixed = left ^ (random_u64(key, RANDOM_DATA_ORDER, round, right) & mask);
            left = right;
            right = mixed;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
