/* The learning rate: warmup, stable, decay, constant (WSDC, plm.md 4.2). */
#ifndef OPTIM_SCHEDULE_H
#define OPTIM_SCHEDULE_H

#include "infer/base/status.h"

enum decay_shape { DECAY_LINEAR, DECAY_COSINE, DECAY_EXPONENTIAL, DECAY_ONE_MINUS_SQRT, DECAY_SHAPES };

/* Positions are in steps or in tokens, whichever the run counts in. */
struct schedule {
    double peak, floor;      /* learning rates; 0 <= floor <= peak, 0 < peak */
    double warmup;           /* end of the linear rise from 0 to peak */
    double stable_end;       /* end of the flat part at peak; warmup <= stable_end (infinity: it never ends) */
    double decay_end;        /* end of the fall from peak to floor; stable_end <= decay_end */
    enum decay_shape shape;  /* of that fall; after it the rate stays at floor */
};

/* Values that cannot be meant; the message names the field and the range. */
int schedule_check(const struct schedule *s, struct plm_status *st);

/*     peak p / warmup                                      p < warmup
 *     peak                                                 p < stable_end
 *     floor + (peak - floor) f((p - stable_end) / (decay_end - stable_end))   p < decay_end
 *     floor                                                otherwise
 * Update number k, counted from 1, is made with p = k, or with p = the tokens consumed including that update. */
double schedule_rate(const struct schedule *s, double position);

/* The warm-up of a configuration, in steps or tokens: below 1 a share of `whole`, rounded down; otherwise as it is. The first update of a
 * warm-up of w steps is made at peak / w, the w-th at peak, in every job. */
double schedule_warmup(double warmup, double whole);

/* f on [0, 1] with f(0) = 1, f(1) = 0: linear 1 - x; cosine (1 + cos(pi x)) / 2; one_minus_sqrt 1 - sqrt(x);
 * exponential expm1(k (1 - x)) / expm1(k) with k = -log(ratio), which makes the rate fall geometrically from peak to
 * floor = ratio * peak; k = 5 when ratio is 0, and a straight line when it is 1. */
double decay_shape_at(enum decay_shape shape, double x, double ratio);

/* "linear", "cosine", "exponential", "one_minus_sqrt". */
const char *decay_shape_name(enum decay_shape shape);

/* DECAY_SHAPES when there is no such name. */
enum decay_shape decay_shape_by_name(const char *name);

#endif
