#include <math.h>
#include <stdlib.h>

#include "infer/base/random.h"
#include "tools/eval_kv.h"

int kv_resamples_draw(struct kv_resamples *r, size_t n, size_t count, uint64_t seed, struct plm_status *st)
{
    *r = (struct kv_resamples){.n = n,
                               .count = count,
                               .weight = calloc(n * count + 1, sizeof *r->weight),
                               .sorted = malloc((count + 1) * sizeof *r->sorted)};
    if (!r->weight || !r->sorted)
        return status_no_memory(st, n * count * sizeof *r->weight, "resamples");
    for (size_t k = 0; k < count; k++)
        for (size_t i = 0; i < n; i++) {
            const uint64_t u = random_u64(seed, RANDOM_RESAMPLING, (uint32_t)k, i);
            r->weight[k * n + (size_t)((u >> 32) * n >> 32)]++;
        }
    return PLM_OK;
}

void kv_resamples_free(struct kv_resamples *r)
{
    free(r->weight);
    free(r->sorted);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Between the two nearest order statistics. */
static double quantile(const double *sorted, size_t n, double q)
{
    const double at = q * (double)(n - 1);
    const size_t i = (size_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[i];
}

void kv_interval(struct kv_resamples *r, double (*statistic)(const void *ctx, const int32_t *weight), const void *ctx,
                 double interval[2])
{
    size_t n = 0;
    for (size_t k = 0; k < r->count && r->n > 1; k++) {
        const double value = statistic(ctx, r->weight + k * r->n);
        if (isfinite(value))
            r->sorted[n++] = value;
    }
    interval[0] = interval[1] = NAN;
    if (n == 0)
        return;
    qsort(r->sorted, n, sizeof *r->sorted, ascending);
    interval[0] = quantile(r->sorted, n, 0.025);
    interval[1] = quantile(r->sorted, n, 0.975);
}
