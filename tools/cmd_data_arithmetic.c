/* plm data arithmetic: generated word problems with worked solutions, or with a right and a wrong one. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "data/arithmetic.h"
#include "infer/base/random.h"
#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/jsonl_output.h"

enum { OPT_COUNT = 256, OPT_DIGITS, OPT_STEPS, OPT_WIDTH, OPT_COLUMNS, OPT_SPLIT, OPT_SEED, OPT_PAIRS, OPT_MISLABELLED, OPT_CALCULATIONS };

enum { PROBLEMS_PER_TEXT = 4 };

enum form { FORM_ANSWER, FORM_PAIR, FORM_CALCULATIONS };

struct arguments {
    struct arithmetic_options problems;
    const char *out;
    long long count;
    enum form form;
    double mislabelled;
};

static const struct argp_option options[] = {
    {"out", 'o', "FILE", 0, "the JSONL file to write (required)", 0},
    {"count", OPT_COUNT, "N", 0, "problems (required)", 0},
    {"digits", OPT_DIGITS, "N|N:M", 0, "of the numbers in a question (default 2:3)", 0},
    {"steps", OPT_STEPS, "N|N:M", 0, "additions and subtractions that the answer takes, 1 or 2 (default 1:2)", 0},
    {"width", OPT_WIDTH, "N", 0, "write the numbers of a solution with leading zeros to N digits, 0034+0057=0091, which small models learn sooner "
        "(default: as they are)", 0},
    {"columns", OPT_COLUMNS, 0, 0, "work the solutions digit by digit, 4+7+0=11 for the last digits and so on, which small models learn far sooner still", 0},
    {"split", OPT_SPLIT, "SPLIT", 0, "train (default), valid or test: no sum or difference of one is in another, whatever the seeds", 0},
    {"seed", OPT_SEED, "S", 0, "(default 0)", 0},
    {"pairs", OPT_PAIRS, 0, 0, "write {\"id\", \"prompt\", \"chosen\", \"rejected\", \"slip\"}: the rejected solution has a plausible mistake, named by "
        "slip", 0},
    {"mislabelled", OPT_MISLABELLED, "SHARE", 0, "with --pairs: in this share of them the wrong solution is the chosen one, as in data that people made in a "
        "hurry (default 0)", 0},
    {"calculations", OPT_CALCULATIONS, 0, 0, "write {\"id\", \"text\"}: the calculations of 4 problems each, without words, to pretrain on", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    struct argument_span span;
    struct plm_status st = {0};
    switch (key) {
    case 'o': a->out = arg; return 0;
    case OPT_COUNT: a->count = argument_range(state, "count", arg, 1, 1LL << 40); return 0;
    case OPT_DIGITS:
        span = argument_span(state, "digits", arg, 1, ARITHMETIC_MAX_DIGITS);
        a->problems.min_digits = span.low;
        a->problems.max_digits = span.high;
        return 0;
    case OPT_STEPS:
        span = argument_span(state, "steps", arg, 1, ARITHMETIC_MAX_STEPS);
        a->problems.min_steps = span.low;
        a->problems.max_steps = span.high;
        return 0;
    case OPT_WIDTH: a->problems.width = (int)argument_range(state, "width", arg, 0, ARITHMETIC_MAX_WIDTH); return 0;
    case OPT_COLUMNS: a->problems.columns = true; return 0;
    case OPT_SPLIT:
        if (arithmetic_split_parse(&a->problems.split, arg, &st))
            argp_error(state, "%s", st.message);
        return 0;
    case OPT_SEED: a->problems.seed = argument_seed(state, "seed", arg); return 0;
    case OPT_MISLABELLED:
        a->mislabelled = argument_number(state, "mislabelled", arg);
        if (!(a->mislabelled >= 0 && a->mislabelled <= 1))
            argp_error(state, "--mislabelled %s: expected a number from 0 to 1", arg);
        return 0;
    case OPT_PAIRS:
    case OPT_CALCULATIONS:
        if (a->form != FORM_ANSWER)
            argp_error(state, "--pairs and --calculations exclude each other");
        a->form = key == OPT_PAIRS ? FORM_PAIR : FORM_CALCULATIONS;
        return 0;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument '%s'", arg); return 0;
    case ARGP_KEY_END:
        if (a->mislabelled > 0 && a->form != FORM_PAIR)
            argp_error(state, "--mislabelled goes with --pairs");
        if (!a->out || !a->count)
            argp_error(state, "--%s is required", !a->out ? "out" : "count");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {options, parse, "",
    "Write arithmetic word problems with worked solutions that end in the answer as GSM8K writes it, one {\"id\", \"question\", \"answer\"} per line: "
    "\"Tom has 34 pens. He buys 57 more. How many pens does he have now?\", \"34+57=91\\n#### 91\". Problem N is the same whatever --count is.\v"
    "Example: plm data arithmetic --out train.jsonl --count 20000 --digits 2:3 --seed 1", 0, 0, 0};

/* A question with its solution, or with a right and a wrong one. */
static json_t *problem_row(const struct arguments *a, const struct arithmetic_problem *p, long long id)
{
    const bool exchanged = random_uniform(a->problems.seed, RANDOM_ARITHMETIC, ARITHMETIC_N_SPLITS + 1, (uint64_t)id) < a->mislabelled;
    if (a->form == FORM_PAIR)
        return json_pack("{s:I, s:s, s:s, s:s, s:s}", "id", (json_int_t)id, "prompt", p->question, "chosen", exchanged ? p->wrong : p->solution, "rejected",
                         exchanged ? p->solution : p->wrong, "slip", arithmetic_slip_name(p->slip));
    return json_pack("{s:I, s:s, s:s}", "id", (json_int_t)id, "question", p->question, "answer", p->solution);
}

/* The calculations of problems id * PROBLEMS_PER_TEXT and those after it. */
static int calculations_row(json_t **row, const struct arguments *a, long long id, struct plm_status *st)
{
    struct arithmetic_problem p;
    char text[PROBLEMS_PER_TEXT * sizeof p.solution];
    size_t length = 0;
    for (int i = 0; i < PROBLEMS_PER_TEXT; i++) {
        const int code = arithmetic_generate(&a->problems, (uint64_t)(id * PROBLEMS_PER_TEXT + i), &p, st);
        if (code)
            return code;
        const size_t lines = (size_t)(strrchr(p.solution, '\n') + 1 - p.solution);
        memcpy(text + length, p.solution, lines);
        length += lines;
    }
    *row = json_pack("{s:I, s:s%}", "id", (json_int_t)id, "text", text, length);
    return PLM_OK;
}

static int write_problems(const struct arguments *a, struct plm_status *st)
{
    struct arithmetic_problem p;
    struct jsonl_output out;
    int code = jsonl_output_open(&out, a->out, st);
    for (long long i = 0; i < a->count && !code; i++) {
        json_t *row = NULL;
        if (a->form == FORM_CALCULATIONS)
            code = calculations_row(&row, a, i, st);
        else if (!(code = arithmetic_generate(&a->problems, (uint64_t)i, &p, st)))
            row = problem_row(a, &p, i);
        if (!code)
            code = jsonl_output_add(&out, row, st);
    }
    return jsonl_output_close(&out, code, st);
}

int command_data_arithmetic(int argc, char **argv)
{
    struct arguments a = {.problems = {.min_digits = 2, .max_digits = 3, .min_steps = 1, .max_steps = 2}};
    struct plm_status st = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    const double start = seconds_now();
    if (write_problems(&a, &st))
        return command_fail(&st);
    printf("%s: %lld %s of the split '%s', %.2f s\n", a.out, a.count, a.form == FORM_CALCULATIONS ? "texts" : "problems", arithmetic_split_name(a.problems.split), seconds_now() - start);
    return 0;
}
