/* Seconds on a clock that only goes forward, for speeds and time limits. */
#ifndef INFER_BASE_CLOCK_H
#define INFER_BASE_CLOCK_H

#include <time.h>

static inline double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
