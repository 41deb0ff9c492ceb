#include "tools/sampling_options.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

#include "infer/plm.h"
#include "tools/arguments.h"

enum { OPT_TEMPERATURE = 0x1000, OPT_TOP_K, OPT_TOP_P, OPT_MIN_P, OPT_PENALTY, OPT_WINDOW, OPT_SEED };

static const struct argp_option options[] = {
    {"temperature", OPT_TEMPERATURE, "X", 0, "0: greedy (default 0.8)", 0},
    {"top-k", OPT_TOP_K, "K", 0, "keep the K likeliest tokens; 0: all (default)", 0},
    {"top-p", OPT_TOP_P, "P", 0, "keep the smallest set with probability P (default 0.95)", 0},
    {"min-p", OPT_MIN_P, "P", 0, "drop tokens below P times the likeliest's probability (default 0)", 0},
    {"repetition-penalty", OPT_PENALTY, "X", 0, "1: off (default)", 0},
    {"repetition-window", OPT_WINDOW, "N", 0, "tokens the penalty looks back on; 0: all (default)", 0},
    {"seed", OPT_SEED, "N", 0, "same seed, same text (default 0)", 0},
    {0},
};

static unsigned given; /* bit i: option i of the table */

static bool was_given(int key) { return given >> (key - OPT_TEMPERATURE) & 1; }

/* Options that are given: those without effect are named. */
static void note_unused(const struct plm_sampling *s)
{
    static const int greedy[] = {OPT_TOP_K, OPT_TOP_P, OPT_MIN_P, OPT_SEED};
    for (int i = 0; i < 4; i++)
        if (s->temperature == 0 && was_given(greedy[i]))
            argument_unused(options[greedy[i] - OPT_TEMPERATURE].name, "at temperature 0");
    if (was_given(OPT_WINDOW) && s->repetition_penalty == 1)
        argument_unused("repetition-window", "without a --repetition-penalty");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct plm_sampling *s = state->input;
    if (key >= OPT_TEMPERATURE && key <= OPT_SEED)
        given |= 1u << (key - OPT_TEMPERATURE);
    switch (key) {
    case OPT_TEMPERATURE: s->temperature = (float)argument_number(state, "temperature", arg); return 0;
    case OPT_TOP_K: s->top_k = argument_whole(state, "top-k", arg); return 0;
    case OPT_TOP_P: s->top_p = (float)argument_number(state, "top-p", arg); return 0;
    case OPT_MIN_P: s->min_p = (float)argument_number(state, "min-p", arg); return 0;
    case OPT_PENALTY: s->repetition_penalty = (float)argument_number(state, "repetition-penalty", arg); return 0;
    case OPT_WINDOW: s->repetition_window = argument_whole(state, "repetition-window", arg); return 0;
    case OPT_SEED: s->seed = argument_seed(state, "seed", arg); return 0;
    case ARGP_KEY_SUCCESS:
        if (s)
            note_unused(s);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

const struct argp sampling_argp = {options, parse, 0, 0, 0, 0, 0};

void sampling_unused(const char *why)
{
    for (int key = OPT_TEMPERATURE; key <= OPT_SEED; key++)
        if (was_given(key))
            argument_unused(options[key - OPT_TEMPERATURE].name, why);
}

void sampling_seed_random(struct plm_sampling *s)
{
    if (was_given(OPT_SEED) || s->temperature == 0)
        return;
    if (getrandom(&s->seed, sizeof s->seed, 0) != sizeof s->seed)
        s->seed = (uint64_t)time(NULL);
    s->seed &= 0xFFFFFFFF; /* short enough to be typed again */
    fprintf(stderr, "seed %llu\n", (unsigned long long)s->seed);
}
