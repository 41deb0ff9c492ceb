#include "train/align/policy_gradient.h"

#include <math.h>

#define STRAIGHT_FROM 20 /* log-ratio; a token at e^20 is an accident, but it must not become infinite */

struct grpo_options grpo_options_read(struct section *s)
{
    static const char *const advantages[] = {[ADVANTAGE_GROUP_STD] = "group_std", [ADVANTAGE_CENTRED] = "centred", NULL};
    static const char *const normalisers[] = {
        [NORMALISE_TOKENS] = "tokens", [NORMALISE_SEQUENCES] = "sequences", [NORMALISE_CONSTANT] = "constant", NULL};
    struct grpo_options o;
    o.advantage = (enum advantage)section_choice(s, "advantage", ADVANTAGE_CENTRED, advantages);
    o.normaliser = (enum policy_normaliser)section_choice(s, "normaliser", NORMALISE_TOKENS, normalisers);
    o.clip_low = section_number(s, "clip_low", 0.2, 0, 1);
    o.clip_high = section_number(s, "clip_high", 0.2, 0, HUGE_VAL);
    o.kl_beta = section_number(s, "kl_beta", 0, 0, HUGE_VAL);
    o.mask_truncated = section_bool(s, "mask_truncated", true);
    return o;
}

bool policy_advantages(const struct grpo_options *o, const double *rewards, int n, double *advantages)
{
    double mean = 0, square = 0, least = HUGE_VAL, most = -HUGE_VAL;
    int scored = 0;
    for (int i = 0; i < n; i++) {
        advantages[i] = 0;
        if (isnan(rewards[i]))
            continue;
        scored++;
        mean += (rewards[i] - mean) / scored;
        least = fmin(least, rewards[i]), most = fmax(most, rewards[i]);
    }
    if (!(least < most))
        return false;
    for (int i = 0; i < n; i++)
        square += isnan(rewards[i]) ? 0 : (rewards[i] - mean) * (rewards[i] - mean);
    const double scale = o->advantage == ADVANTAGE_GROUP_STD ? 1 / (sqrt(square / (scored - 1)) + 1e-4) : 1;
    for (int i = 0; i < n; i++)
        advantages[i] = isnan(rewards[i]) ? 0 : (rewards[i] - mean) * scale;
    return true;
}

double policy_denominator(const struct grpo_options *o, int64_t tokens, int64_t sequences, int max_tokens)
{
    switch (o->normaliser) {
    case NORMALISE_SEQUENCES: return (double)sequences;
    case NORMALISE_CONSTANT: return (double)sequences * max_tokens;
    default: return (double)tokens;
    }
}

/* e^x, continued by its tangent from STRAIGHT_FROM on; *slope is its derivative. */
static double exp_bounded(double x, double *slope)
{
    *slope = exp(fmin(x, STRAIGHT_FROM));
    return *slope * (1 + fmax(x - STRAIGHT_FROM, 0));
}

void policy_coefficients(const struct grpo_options *o, double advantage, double weight, const float *now, const float *old, const float *ref,
                         int n, double *coef, struct policy_stats *stats)
{
    const bool clip = o->clip_low > 0 || o->clip_high > 0, kl = ref && o->kl_beta > 0;
    for (int t = 0; t < n; t++) {
        double slope = 1;
        const double rho = old ? exp_bounded((double)now[t] - (double)old[t], &slope) : 1;
        /* The smaller of the two products: the clipped one exactly when the ratio has already moved past the edge that the advantage pulls
         * it to. It is constant: no gradient. */
        const double edge = advantage > 0 ? 1 + o->clip_high : 1 - o->clip_low;
        const bool clipped = clip && (advantage > 0 ? rho > edge : advantage < 0 && rho < edge);
        double loss = -(clipped ? edge : rho) * advantage, d = clipped ? 0 : -slope * advantage;
        if (kl) {
            const double log_ratio = (double)ref[t] - (double)now[t], k3 = exp_bounded(log_ratio, &slope) - log_ratio - 1;
            loss += o->kl_beta * k3;
            d += o->kl_beta * (1 - slope);
            stats->kl += k3;
        }
        coef[t] = weight * d;
        stats->loss += weight * loss;
        stats->clipped += clipped;
        stats->entropy -= (double)now[t];
    }
    stats->tokens += n;
}
