/* plm pretrain: the multi-phase run of a configuration, alone or under mpirun. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/arguments.h"
#include "tools/command.h"
#include "train/pretrain.h"

#define MAX_OVERRIDES 64

struct arguments {
    const char *config, *overrides[MAX_OVERRIDES];
    int n_overrides;
};

static const struct argp_option options[] = {
    {"set", 's', "KEY=VALUE", 0, "override a value of the configuration, such as schedule.peak=1e-3 or phases.0.tokens=1000000; may be repeated", 0},
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

static const struct argp parser = {options, parse, "CONFIG",
    "Pretrain a model as the JSON file CONFIG says, or continue the run in its run_dir. SIGINT and SIGTERM save and stop; the same command "
    "continues. Exit status: 0 when the run is complete, 128 + signal when it was stopped, 1 after an error.\v"
    "Example: mpirun -n 2 plm pretrain configs/quickstart.json --set run_dir=runs/first", 0, 0, 0};

int command_pretrain(int argc, char **argv)
{
    struct arguments a = {0};
    struct plm_status st = {0};
    struct comm comm = {0};
    struct run_config config;
    struct pretrain_result result = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    if (comm_open(&comm, &st))
        return command_fail(&st);
    int code = run_config_load(&config, a.config, a.overrides, a.n_overrides, &st);
    code = comm_agree(&comm, code, &st);
    if (!code)
        code = pretrain_run(&config, &comm, &result, &st);
    run_config_free(&config);
    int status = 0;
    if (code == PLM_ECOMM)
        comm_abort(&comm, &st); /* the others may wait for this rank; each of these messages is its own */
    if (code)
        status = comm.rank == 0 ? command_fail(&st) : 1; /* the message is the same on every rank */
    else if (result.stopped_by) {
        if (comm.rank == 0)
            fprintf(stderr, "stopped after step %lld, which is saved; the same command continues\n", (long long)result.steps);
        status = 128 + result.stopped_by;
    }
    comm_close(&comm);
    return status;
}
