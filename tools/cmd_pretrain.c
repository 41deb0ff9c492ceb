/* plm pretrain: the multi-phase run of a configuration, alone or under mpirun. */
#include "tools/command.h"
#include "tools/run_command.h"
#include "train/pretrain.h"

static int run(const char *path, const char *const *overrides, int n, struct comm *comm, struct run_outcome *out, struct plm_status *st)
{
    struct run_config config;
    struct pretrain_result result = {0};
    int code = comm_agree(comm, run_config_load(&config, path, overrides, n, st), st);
    if (!code)
        code = pretrain_run(&config, comm, &result, st);
    run_config_free(&config);
    *out = (struct run_outcome){result.stopped_by, result.steps, result.learned};
    return code;
}

int command_pretrain(int argc, char **argv)
{
    return run_command(argc, argv, "pretrain",
        "Pretrain a model as the JSON file CONFIG says, or continue the run in its run_dir. SIGINT and SIGTERM save and stop; the same command "
        "continues. Exit status: 0 when the run is complete, 128 + signal when it was stopped, 1 after an error, 3 when nothing was learned.\v"
        "Example: mpirun -n 2 plm pretrain configs/quickstart.json --set run_dir=runs/first", run);
}
