#include "infer/ops/rope.h"

#include <math.h>

/* The pair, perhaps between two, that turns `turns` times within the original context. */
static double pair_of_turns(double turns, float theta, int width, int original)
{
    return width * log(original / (turns * 2 * M_PI)) / (2 * log((double)theta));
}

/* 1 for pairs that keep their frequency, 0 for those that are slowed down, and what lies between. */
static double kept_share(float theta, int width, const struct rope_scaling *s, int i)
{
    double low = pair_of_turns((double)s->beta_fast, theta, width, s->original),
           high = pair_of_turns((double)s->beta_slow, theta, width, s->original);
    if (!s->untruncated)
        low = floor(low), high = ceil(high);
    low = fmax(low, 0);
    high = fmin(high, width - 1);
    return 1 - fmin(1, fmax(0, (i - low) / fmax(0.001, high - low)));
}

double rope_frequency(float theta, int width, const struct rope_scaling *s, int i)
{
    const double frequency = pow((double)theta, -2.0 * i / width);
    if (s->type == ROPE_UNSCALED)
        return frequency;
    const double kept = s->type == ROPE_YARN ? (double)s->mix * kept_share(theta, width, s, i) : 0;
    return frequency * ((1 - kept) / (double)s->factor + kept);
}

double rope_magnitude(const struct rope_scaling *s)
{
    return s->magnitude > 0 ? (double)s->magnitude : 1;
}

const char *rope_scaling_name(const struct rope_scaling *s)
{
    return s->type == ROPE_LINEAR ? "linear" : s->type == ROPE_YARN ? "yarn" : "none";
}
