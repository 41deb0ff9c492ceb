/* Generated arithmetic word problems with worked solutions: what small models can learn, and a rule can check.
 *
 *   question   "Tom has 34 pens. He buys 57 more. How many pens does he have now?"
 *   solution   "34+57=91\n#### 91"                 one line per step, the answer as GSM8K writes it
 *   wrong      "34+57=81\n#### 81"                 a plausible mistake: here a forgotten carry
 *   columns    "34+57\n4+7+0=11\n3+5+1=09\n#### 91"  the same by columns: digits and carry (borrow), then carry and digit; a small model learns it
 *                                                 in a minute, and far later in one line
 *
 * A problem is a pure function of (seed, split, options, index). Splits do not overlap: every addition and subtraction that a solution
 * needs belongs to one fact a + b = c, told by its two smaller numbers whatever their order, and a fixed hash of those, the same for
 * every seed, gives the fact to one split. No held-out step is ever computed in a training text, in no wording. */
#ifndef DATA_ARITHMETIC_H
#define DATA_ARITHMETIC_H

#include <stdbool.h>
#include <stdint.h>

#include "infer/base/status.h"

/* 90, 5 and 5 of 100 facts. */
enum arithmetic_split { ARITHMETIC_TRAIN, ARITHMETIC_VALID, ARITHMETIC_TEST, ARITHMETIC_N_SPLITS };

/* "train", "valid", "test". */
const char *arithmetic_split_name(enum arithmetic_split split);

/* The split of a name. PLM_EINVAL lists the names. */
int arithmetic_split_parse(enum arithmetic_split *split, const char *name, struct plm_status *st);

/* The split that a + b = c belongs to; also b + a, c - a and c - b. a, b >= 0. */
enum arithmetic_split arithmetic_fact_split(int64_t a, int64_t b);

enum { ARITHMETIC_MAX_STEPS = 2, ARITHMETIC_MAX_DIGITS = 6, ARITHMETIC_MAX_WIDTH = 8 };

struct arithmetic_options {
    int min_digits, max_digits; /* of the numbers in a question, 1 to ARITHMETIC_MAX_DIGITS: each has its own, drawn evenly */
    int min_steps, max_steps;   /* 1 to ARITHMETIC_MAX_STEPS, drawn evenly */
    int width;                  /* numbers in the lines of a solution have leading zeros up to so many digits ("0034+0057=0091"), to
                                 * ARITHMETIC_MAX_WIDTH: digits that belong together are always as far apart, which small models learn
                                 * much sooner; 0: none */
    bool columns;               /* solutions are worked digit by digit, the last first: see below */
    enum arithmetic_split split;
    uint64_t seed;
};

/* left op right = result, where op is '+' or '-' and result >= 1. The next step's left is this one's result. */
struct arithmetic_step {
    int64_t left, right, result;
    char op;
};

/* How a wrong solution came about. */
enum arithmetic_slip {
    SLIP_CARRY,     /* one carry or borrow forgotten, or one too many */
    SLIP_TEN,       /* off by ten, or by a hundred */
    SLIP_UNIT,      /* a last digit off by one or two */
    SLIP_OPERATION, /* added instead of subtracted, or the reverse */
    SLIP_STOPPED,   /* the last of several steps left out */
    ARITHMETIC_N_SLIPS,
};

/* "carry", "ten", "unit", "operation", "stopped". */
const char *arithmetic_slip_name(enum arithmetic_slip slip);

struct arithmetic_problem {
    struct arithmetic_step steps[ARITHMETIC_MAX_STEPS];
    int n_steps;
    int64_t answer;       /* the last step's result */
    char question[320], solution[320];
    char wrong[320];      /* another answer, never the right one */
    enum arithmetic_slip slip;
};

/* Problem number `index` (below 2^40). PLM_EINVAL for options out of range; PLM_ELIMIT when the split has no problem of these options,
 * which happens with numbers of one digit. */
int arithmetic_generate(const struct arithmetic_options *o, uint64_t index, struct arithmetic_problem *p, struct plm_status *st);

#endif
