#include "tools/arguments.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

long long argument_range(struct argp_state *state, const char *name, const char *arg, long long low, long long high)
{
    char *end;
    errno = 0;
    const long long value = strtoll(arg, &end, 10);
    if (errno || end == arg || *end || value < low || value > high)
        argp_error(state, "--%s is '%s', expected a whole number from %lld to %lld", name, arg, low, high);
    return value;
}

struct argument_span argument_span(struct argp_state *state, const char *name, const char *arg, int low, int high)
{
    char *end;
    errno = 0;
    const long first = strtol(arg, &end, 10);
    long last = first;
    bool good = end != arg;
    if (good && *end == ':') {
        const char *second = end + 1;
        last = strtol(second, &end, 10);
        good = end != second;
    }
    if (!good || *end || errno || first < low || last < first || last > high)
        argp_error(state, "--%s is '%s', expected a number from %d to %d, or two as in %d:%d, the smaller first", name, arg, low, high, low, high);
    return (struct argument_span){(int)first, (int)last};
}

int argument_whole(struct argp_state *state, const char *name, const char *arg)
{
    return (int)argument_range(state, name, arg, 0, INT32_MAX);
}

double argument_number(struct argp_state *state, const char *name, const char *arg)
{
    char *end;
    const double value = strtod(arg, &end);
    if (end == arg || *end || !isfinite(value))
        argp_error(state, "--%s is '%s', expected a number", name, arg);
    return value;
}

uint64_t argument_seed(struct argp_state *state, const char *name, const char *arg)
{
    char *end;
    errno = 0;
    const uint64_t value = strtoull(arg, &end, 0);
    if (errno || end == arg || *end || strchr(arg, '-'))
        argp_error(state, "--%s is '%s', expected a whole number from 0 to 2^64 - 1", name, arg);
    return value;
}

void argument_only(struct argp_state *state, const char *what, const char *arg, const char **slot)
{
    if (*slot)
        argp_error(state, "one %s only, found '%s' after '%s'", what, arg, *slot);
    *slot = arg;
}

void argument_unused(const char *name, const char *why)
{
    fprintf(stderr, "note: --%s has no effect %s\n", name, why);
}
