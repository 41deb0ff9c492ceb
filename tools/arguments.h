/* What the argp parsers of the subcommands share: numbers that are all of an argument, or a usage error. */
#ifndef TOOLS_ARGUMENTS_H
#define TOOLS_ARGUMENTS_H

#include <argp.h>
#include <stdint.h>

#include "infer/base/clock.h"

/* The argument of option --NAME as a whole number in [low, high]. */
long long argument_range(struct argp_state *state, const char *name, const char *arg, long long low, long long high);

/* "N" or "N:M": two whole numbers in [low, high], the smaller first; "N" is twice the same. */
struct argument_span {
    int low, high;
};
struct argument_span argument_span(struct argp_state *state, const char *name, const char *arg, int low, int high);

/* A whole number from 0 to INT32_MAX: counts of tokens, threads, positions. */
int argument_whole(struct argp_state *state, const char *name, const char *arg);

/* Any finite number. */
double argument_number(struct argp_state *state, const char *name, const char *arg);

/* 64 bits, decimal or 0x. */
uint64_t argument_seed(struct argp_state *state, const char *name, const char *arg);

/* Store the one positional argument `what`; a second one is a usage error. */
void argument_only(struct argp_state *state, const char *what, const char *arg, const char **slot);

/* Say on standard error that --NAME, which was given, changes nothing here: "note: --NAME has no effect WHY". */
void argument_unused(const char *name, const char *why);

#endif
