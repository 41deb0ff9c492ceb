#include "infer/cache/policy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[POLICY_COUNT] = {"full", "streaming", "h2o", "d2o", "d2o+count"};

const char *cache_policy_name(enum cache_policy p) { return names[p]; }

enum cache_policy cache_policy_by_name(const char *name)
{
    int p = 0;
    while (p < POLICY_COUNT && strcmp(name, names[p]) != 0)
        p++;
    return (enum cache_policy)p;
}

struct policy_options policy_options_default(enum cache_policy policy)
{
    return (struct policy_options){.policy = policy, .n_sink = 4, .min_budget = 8, .temperature = 1, .beta = 0.7f, .slack = 1e-5f,
                                   .gate = true, .batch = 1};
}

int policy_options_check(const struct policy_options *o, struct plm_status *st)
{
    if ((int)o->policy < 0 || o->policy >= POLICY_COUNT)
        return status_set(st, PLM_EINVAL, "cache policy number %d is unknown", (int)o->policy);
    if (o->n_sink < 0 || o->batch < 1)
        return status_set(st, PLM_EINVAL, "cache policy: n_sink is %d and batch %d; expected at least 0 and 1", o->n_sink,
                          o->batch);
    if (o->min_budget < 1 || o->min_budget < o->n_sink + policy_recent(o->min_budget))
        return status_set(st, PLM_EINVAL,
                          "cache policy: min_budget is %d, which cannot hold %d sinks and a quarter of recent slots",
                          o->min_budget, o->n_sink);
    if (!(o->temperature >= 0.01f && o->temperature <= 1e6f)) /* below, weights of dense layers underflow to 0 / 0 */
        return status_set(st, PLM_EINVAL, "cache policy: temperature is %g, expected 0.01 to 1e6", (double)o->temperature);
    if (!(o->beta >= 0 && o->beta <= 1) || !(o->slack >= 0 && o->slack <= 1))
        return status_set(st, PLM_EINVAL, "cache policy: beta is %g and slack %g; expected numbers from 0 to 1", (double)o->beta,
                          (double)o->slack);
    return PLM_OK;
}

bool policy_needs_scores(enum cache_policy p) { return p == POLICY_H2O || policy_merges(p); }

bool policy_merges(enum cache_policy p) { return p == POLICY_D2O || p == POLICY_D2O_COUNT; }

double policy_density(const struct policy_options *o, const double *column_sums, int64_t n)
{
    const int64_t columns = n - o->n_sink;
    if (columns <= 0)
        return 0;
    double sum = 0, squares = 0;
    for (int64_t j = o->n_sink; j < n; j++)
        sum += column_sums[j];
    const double mean = sum / (double)columns;
    for (int64_t j = o->n_sink; j < n; j++)
        squares += (column_sums[j] - mean) * (column_sums[j] - mean);
    return squares / (double)columns;
}

#define CLAMP_GRACE 1e-9 /* slots: differences below are rounding errors of the shares */
#define FRACTION_STEPS 1e9 /* per slot: fractions that agree so far are equal, and the lower layer comes first */

/* Shares of a layer while its budget is not an integer yet. */
struct share {
    double weight, slots, want;
    bool fixed;
};

/* Divide `total` among the layers in proportion to their weights, within [low, high]: layers beyond the bound that costs more are
 * fixed at it and the rest is divided again, until the bounds together neither add nor remove. */
static void divide(struct share *share, int n_layer, double total, double low, double high)
{
    for (int fixed = 0; fixed < n_layer;) {
        double rest = total, weights = 0, excess = 0;
        for (int l = 0; l < n_layer; l++) {
            rest -= share[l].fixed ? share[l].slots : 0;
            weights += share[l].fixed ? 0 : share[l].weight;
        }
        for (int l = 0; l < n_layer; l++)
            if (!share[l].fixed) {
                share[l].want = share[l].weight * rest / weights;
                share[l].slots = fmin(fmax(share[l].want, low), high);
                excess += share[l].slots - share[l].want;
            }
        if (fabs(excess) < CLAMP_GRACE)
            return;
        for (int l = 0; l < n_layer; l++)
            if (!share[l].fixed && (excess > 0 ? share[l].slots > share[l].want : share[l].slots < share[l].want)) {
                share[l].fixed = true;
                fixed++;
            }
    }
}

/* Round down, then one slot more for the largest fractions until the total is met. share[l].want becomes the fraction. */
static void round_shares(struct share *share, int n_layer, int64_t total, int64_t *budgets)
{
    for (int l = 0; l < n_layer; l++) {
        const double down = floor(share[l].slots + CLAMP_GRACE);
        budgets[l] = (int64_t)down;
        total -= budgets[l];
        share[l].want = rint((share[l].slots - down) * FRACTION_STEPS) / FRACTION_STEPS;
    }
    for (; total > 0; total--) {
        int most = 0;
        for (int l = 1; l < n_layer; l++)
            if (share[l].want > share[most].want)
                most = l;
        share[most].want = -1; /* served */
        budgets[most]++;
    }
}

int policy_allocate(const struct policy_options *o, const double *density, int n_layer, int64_t budget, int64_t n_prompt,
                    int64_t *budgets, struct plm_status *st)
{
    if (budget < o->min_budget)
        return status_set(st, PLM_EINVAL, "cache budget of %lld slots per layer is below the minimum of %d", (long long)budget,
                          o->min_budget);
    const bool by_variance = policy_merges(o->policy);
    double most = 0;
    for (int l = 0; l < n_layer && by_variance; l++) {
        if (!isfinite(density[l]))
            return status_set(st, PLM_EINVAL, "attention variance of layer %d is %g; the prompt's attention is not finite", l,
                              density[l]);
        most = fmax(most, density[l]);
    }
    struct share *share = calloc((size_t)n_layer, sizeof *share);
    if (!share)
        return status_no_memory(st, (size_t)n_layer * sizeof *share, "layer budgets");
    for (int l = 0; l < n_layer; l++)
        share[l].weight = by_variance ? exp(-density[l] / (most > 0 ? most : 1) / (double)o->temperature) : 1;
    divide(share, n_layer, (double)n_layer * (double)budget, (double)o->min_budget,
           (double)(n_prompt > budget ? n_prompt : budget));
    round_shares(share, n_layer, n_layer * budget, budgets);
    free(share);
    return PLM_OK;
}
