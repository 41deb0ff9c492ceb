#include "infer/base/random.h"

#include <math.h>

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

static void block(uint64_t seed, enum random_purpose purpose, uint32_t stream, uint64_t index, uint32_t out[4])
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), stream, (uint32_t)purpose};
    philox4x32(counter, key, out);
}

uint64_t random_u64(uint64_t seed, enum random_purpose purpose, uint32_t stream, uint64_t index)
{
    uint32_t r[4];
    block(seed, purpose, stream, index, r);
    return (uint64_t)r[1] << 32 | r[0];
}

double random_uniform(uint64_t seed, enum random_purpose purpose, uint32_t stream, uint64_t index)
{
    return (double)(random_u64(seed, purpose, stream, index) >> 11) * 0x1p-53;
}

double random_normal(uint64_t seed, enum random_purpose purpose, uint32_t stream, uint64_t index)
{
    uint32_t r[4];
    block(seed, purpose, stream, index, r);
    double u = ((double)(((uint64_t)r[1] << 32 | r[0]) >> 11) + 0.5) * 0x1p-53; /* in (0, 1): log is finite */
    double v = (double)(((uint64_t)r[3] << 32 | r[2]) >> 11) * 0x1p-53;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}
