#include "tools/run_command.h"

#include <argp.h>
#include <stdio.h>

#include "tools/arguments.h"
#include "tools/command.h"

#define MAX_OVERRIDES 64

struct arguments {
    const char *config, *overrides[MAX_OVERRIDES];
    int n_overrides;
};

static const struct argp_option options[] = {
    {"set", 's', "KEY=VALUE", 0, "override a value of the configuration, such as seed=2 or phases.0.steps=1000; may be repeated", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 's':
        if (a->n_overrides == MAX_OVERRIDES)
            argp_error(state, "more than %d --set", MAX_OVERRIDES);
        a->overrides[a->n_overrides++] = arg;
        return 0;
    case ARGP_KEY_ARG: argument_only(state, "CONFIG", arg, &a->config); return 0;
    case ARGP_KEY_END:
        if (!a->config)
            argp_error(state, "CONFIG is required");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

int run_command(int argc, char **argv, const char *doc, run_function *run)
{
    const struct argp parser = {options, parse, "CONFIG", doc, 0, 0, 0};
    struct arguments a = {0};
    struct plm_status st = {0};
    struct comm comm = {0};
    struct run_outcome out = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    if (comm_open(&comm, &st))
        return command_fail(&st);
    int code = run(a.config, a.overrides, a.n_overrides, &comm, &out, &st);
    int status = 0;
    if (code == PLM_ECOMM)
        comm_abort(&comm, &st); /* the others may wait for this rank; each of these messages is its own */
    if (code)
        status = comm.rank == 0 ? command_fail(&st) : 1; /* the message is the same on every rank */
    else if (out.stopped_by) {
        if (comm.rank == 0)
            fprintf(stderr, "stopped after step %lld, which is saved; the same command continues\n", (long long)out.steps);
        status = 128 + out.stopped_by;
    }
    comm_close(&comm);
    return status;
}
