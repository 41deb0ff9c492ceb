#include "optim/schedule.h"

#include <math.h>
#include <string.h>

static const char *const shape_names[DECAY_SHAPES] = {"linear", "cosine", "exponential", "one_minus_sqrt"};

int schedule_check(const struct schedule *s, struct plm_status *st)
{
    if (!(s->peak > 0 && isfinite(s->peak)))
        return status_set(st, PLM_EINVAL, "schedule: peak learning rate is %g, expected a positive number", s->peak);
    if (!(s->floor >= 0 && s->floor <= s->peak))
        return status_set(st, PLM_EINVAL, "schedule: floor is %g, expected 0 <= floor <= peak (%g)", s->floor, s->peak);
    if (!(s->warmup >= 0 && isfinite(s->warmup)))
        return status_set(st, PLM_EINVAL, "schedule: warmup is %g, expected a finite number >= 0", s->warmup);
    if (!(s->stable_end >= s->warmup))
        return status_set(st, PLM_EINVAL, "schedule: the stable part ends at %.0f, before the warmup (%.0f) is over; "
                          "shorten the warmup or lengthen the stable phases", s->stable_end, s->warmup);
    if (!(s->decay_end >= s->stable_end))
        return status_set(st, PLM_EINVAL, "schedule: the decay ends at %.0f, before it begins at %.0f", s->decay_end,
                          s->stable_end);
    if ((int)s->shape < 0 || s->shape >= DECAY_SHAPES)
        return status_set(st, PLM_EINVAL, "schedule: unknown decay shape %d", (int)s->shape);
    return PLM_OK;
}

double decay_shape_at(enum decay_shape shape, double x, double ratio)
{
    switch (shape) {
    case DECAY_COSINE:
        return 0.5 * (1 + cos(M_PI * x));
    case DECAY_ONE_MINUS_SQRT:
        return 1 - sqrt(x);
    case DECAY_EXPONENTIAL: {
        double k = ratio > 0 ? -log(ratio) : 5;
        return k > 0 ? expm1(k * (1 - x)) / expm1(k) : 1 - x;
    }
    default:
        return 1 - x;
    }
}

double schedule_warmup(double warmup, double whole)
{
    return warmup < 1 ? floor(warmup * whole) : warmup;
}

double schedule_rate(const struct schedule *s, double position)
{
    if (position < s->warmup)
        return s->peak * position / s->warmup;
    if (position < s->stable_end)
        return s->peak;
    if (position < s->decay_end) {
        double x = (position - s->stable_end) / (s->decay_end - s->stable_end);
        return s->floor + (s->peak - s->floor) * decay_shape_at(s->shape, x, s->floor / s->peak);
    }
    return s->floor;
}

const char *decay_shape_name(enum decay_shape shape)
{
    return (int)shape >= 0 && shape < DECAY_SHAPES ? shape_names[shape] : "unknown";
}

enum decay_shape decay_shape_by_name(const char *name)
{
    int i = 0;
    while (i < DECAY_SHAPES && strcmp(shape_names[i], name) != 0)
        i++;
    return (enum decay_shape)i;
}
