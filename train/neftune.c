#include "train/neftune.h"

#include <math.h>

#include "infer/base/random.h"

/* Noise on the d values of one position; every draw of 64 bits serves two neighbours. */
static void add_noise(float *x, int d, float scale, uint64_t seed, uint32_t step, uint64_t position)
{
    for (int i = 0; i < d; i += 2) {
        const uint64_t bits = random_u64(seed, RANDOM_NEFTUNE, step, position << 23 | (uint64_t)i >> 1);
        x[i] += scale * ((float)(int32_t)(uint32_t)bits * 0x1p-31f);
        if (i + 1 < d)
            x[i + 1] += scale * ((float)(int32_t)(uint32_t)(bits >> 32) * 0x1p-31f);
    }
}

void neftune_add(float *x, const struct batch *b, int d, double alpha, uint64_t seed, int64_t step, int64_t first_row)
{
    for (int row = 0; row < b->rows; row++) {
        const int64_t base = (int64_t)row * b->seq_len;
        const uint64_t first = (uint64_t)(first_row + row) << 20;
        for (int begin = 0, end; begin < b->seq_len; begin = end) {
            bool used = false;
            for (end = begin; end < b->seq_len && b->doc_start[base + end] == b->doc_start[base + begin]; end++)
                used |= b->weight[base + end] != 0;
            const float scale = (float)(alpha / sqrt((double)(end - begin) * d));
            for (int t = begin; t < end && used; t++)
                add_noise(x + (base + t) * d, d, scale, seed, (uint32_t)step, first | (uint64_t)t);
        }
    }
}
