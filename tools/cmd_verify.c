/* plm verify: a reference case, computed by the trainer. */
#include <argp.h>
#include <stdbool.h>
#include <stdlib.h>

#include "tools/arguments.h"
#include "tools/command.h"
#include "train/verify.h"
#include "train/verify_d2o.h"
#include "train/verify_preference.h"

struct arguments {
    const char *case_dir, *d2o, *out;
    bool preference;
    int threads;
};

static const struct argp_option options[] = {
    {"out", 'o', "FILE", 0, "write the tensors to this safetensors file, the numbers of --preference to this JSON file (required)", 0},
    {"d2o", 'd', "DIR", 0, "run the cache compression case in DIR (d2o.json, gqa.json, gqa.safetensors) instead", 0},
    {"preference", 'p', NULL, 0, "run the case's preference pair (model/, reference/, preference.json) instead", 0},
    {"threads", 't', "N", 0, "threads; 0: one per processor (default)", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'd': a->d2o = arg; return 0;
    case 'o': a->out = arg; return 0;
    case 'p': a->preference = true; return 0;
    case 't': a->threads = argument_whole(state, "threads", arg); return 0;
    case ARGP_KEY_ARG: argument_only(state, "CASE", arg, &a->case_dir); return 0;
    case ARGP_KEY_END:
        if (!a->case_dir || !a->out)
            argp_error(state, "CASE and --out FILE are required");
        if (a->d2o && a->preference)
            argp_error(state, "--d2o and --preference are two cases: give one of them");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {options, parse, "CASE",
    "Run the reference case in directory CASE (model/, batch.json, training.json) and write logits, nll, loss, every grad.TENSOR, and losses, "
    "grad_norms and lrs of the updates; with --d2o, run the model under every cache policy and write logits.LAYOUT.POLICY and out.POLICY, and budgets "
    "and kept positions to FILE.json; with --preference, write the log-probabilities, DPO and refinement losses and gradient norms of a pair under the names "
    "of preference.json.\vExamples:\n  plm verify case --out mine.safetensors\n  plm verify case --d2o case/d2o --out mine.safetensors\n"
    "  plm verify case --preference --out mine.json", 0, 0, 0};

int command_verify(int argc, char **argv)
{
    struct arguments a = {0};
    struct plm_status st = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    int code;
    if (a.d2o)
        code = verify_d2o(a.case_dir, a.d2o, a.out, a.threads, &st);
    else if (a.preference)
        code = verify_preference(a.case_dir, a.out, a.threads, &st);
    else
        code = verify_case(a.case_dir, a.out, a.threads, &st);
    return code ? command_fail(&st) : 0;
}
