#include "optim/clip.h"

#include <math.h>

#define LANES 8 /* independent sums, so that the compiler may use vectors without changing the result */

struct norm {
    const float *x;
    double *partial;
};

static double block_sum(const float *x, int64_t n)
{
    double sum[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            sum[j] += (double)x[i + j] * (double)x[i + j];
    for (int j = 0; i < n; i++, j++)
        sum[j] += (double)x[i] * (double)x[i];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

/* pool_for cuts at multiples of the grain, NORM_BLOCK, except when it hands out everything at once. */
static void norm_blocks(void *ctx, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const struct norm *p = ctx;
    for (int64_t i = begin; i < end; i += NORM_BLOCK)
        p->partial[i / NORM_BLOCK] = block_sum(p->x + i, end - i < NORM_BLOCK ? end - i : NORM_BLOCK);
}

double norm_sum_squares(const float *x, int64_t n, double *partial, struct thread_pool *pool)
{
    struct norm p = {x, partial};
    pool_for(pool, n, NORM_BLOCK, norm_blocks, &p);
    double sum = 0;
    for (int64_t i = 0; i < norm_partials(n); i++)
        sum += partial[i];
    return sum;
}

double clip_factor(double norm, double clip)
{
    return clip > 0 && norm > clip ? clip / norm : 1;
}
