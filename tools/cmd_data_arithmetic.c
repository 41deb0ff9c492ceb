/* plm data arithmetic: generated word problems with worked solutions, or with a right and a wrong one. */
#include <argp.h>
#include <stdio.h>

#include "data/arithmetic.h"
#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/jsonl_output.h"

enum { OPT_COUNT = 256, OPT_DIGITS, OPT_STEPS, OPT_WIDTH, OPT_SPLIT, OPT_SEED, OPT_PAIRS, OPT_TEXT };

enum form { FORM_ANSWER, FORM_PAIR, FORM_TEXT };

struct arguments {
    struct arithmetic_options problems;
    const char *out;
    long long count;
    enum form form;
};

static const struct argp_option options[] = {
    {"out", 'o', "FILE", 0, "the JSONL file to write (required)", 0},
    {"count", OPT_COUNT, "N", 0, "problems (required)", 0},
    {"digits", OPT_DIGITS, "N|N:M", 0, "of the numbers in a question (default 2:3)", 0},
    {"steps", OPT_STEPS, "N|N:M", 0, "additions and subtractions that the answer takes, 1 or 2 (default 1:2)", 0},
    {"width", OPT_WIDTH, "N", 0, "write the numbers of a solution with leading zeros to N digits, 0034+0057=0091, which small models learn sooner "
        "(default: as they are)", 0},
    {"split", OPT_SPLIT, "SPLIT", 0, "train (default), valid or test: no sum or difference of one is in another, whatever the seeds", 0},
    {"seed", OPT_SEED, "S", 0, "(default 0)", 0},
    {"pairs", OPT_PAIRS, 0, 0, "write {\"id\", \"prompt\", \"chosen\", \"rejected\", \"slip\"}: the rejected solution has a plausible mistake, named by "
        "slip", 0},
    {"text", OPT_TEXT, 0, 0, "write {\"id\", \"text\"}: question and solution as one text, to pretrain on", 0},
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
    case OPT_SPLIT:
        if (arithmetic_split_parse(&a->problems.split, arg, &st))
            argp_error(state, "%s", st.message);
        return 0;
    case OPT_SEED: a->problems.seed = argument_seed(state, "seed", arg); return 0;
    case OPT_PAIRS:
    case OPT_TEXT:
        if (a->form != FORM_ANSWER)
            argp_error(state, "--pairs and --text exclude each other");
        a->form = key == OPT_PAIRS ? FORM_PAIR : FORM_TEXT;
        return 0;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument '%s'", arg); return 0;
    case ARGP_KEY_END:
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

static json_t *row_of(const struct arithmetic_problem *p, long long id, enum form form)
{
    switch (form) {
    case FORM_PAIR:
        return json_pack("{s:I, s:s, s:s, s:s, s:s}", "id", (json_int_t)id, "prompt", p->question, "chosen", p->solution, "rejected", p->wrong, "slip",
                         arithmetic_slip_name(p->slip));
    case FORM_TEXT: return json_pack("{s:I, s:s++}", "id", (json_int_t)id, "text", p->question, "\n", p->solution);
    default: return json_pack("{s:I, s:s, s:s}", "id", (json_int_t)id, "question", p->question, "answer", p->solution);
    }
}

static int write_problems(const struct arguments *a, struct plm_status *st)
{
    struct arithmetic_problem p;
    struct jsonl_output out;
    int code = jsonl_output_open(&out, a->out, st);
    for (long long i = 0; i < a->count && !code; i++) {
        code = arithmetic_generate(&a->problems, (uint64_t)i, &p, st);
        if (code)
            break;
        code = jsonl_output_add(&out, row_of(&p, i, a->form), st);
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
    printf("%s: %lld problems of the split '%s', %.2f s\n", a.out, a.count, arithmetic_split_name(a.problems.split), seconds_now() - start);
    return 0;
}
