/* plm verify: a reference case, computed by the trainer. */
#include <argp.h>
#include <stdlib.h>

#include "tools/arguments.h"
#include "tools/command.h"
#include "train/verify.h"

struct arguments {
    const char *case_dir, *out;
    int threads;
};

static const struct argp_option options[] = {
    {"out", 'o', "FILE", 0, "write the tensors to this safetensors file (required)", 0},
    {"threads", 't', "N", 0, "threads; 0: one per processor (default)", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'o': a->out = arg; return 0;
    case 't': a->threads = argument_whole(state, "threads", arg); return 0;
    case ARGP_KEY_ARG: argument_only(state, "CASE", arg, &a->case_dir); return 0;
    case ARGP_KEY_END:
        if (!a->case_dir || !a->out)
            argp_error(state, "CASE and --out FILE are required");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {options, parse, "CASE",
    "Run the reference case in directory CASE (model/, batch.json, training.json) and write logits, nll, loss, every grad.TENSOR, and losses, "
    "grad_norms and lrs of the updates.\vExample: plm verify case --out mine.safetensors", 0, 0, 0};

int command_verify(int argc, char **argv)
{
    struct arguments a = {0};
    struct plm_status st = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    return verify_case(a.case_dir, a.out, a.threads, &st) ? command_fail(&st) : 0;
}
