/* plm align: preference learning in rounds, alone or under mpirun. */
#include "tools/command.h"
#include "tools/run_command.h"
#include "train/align/align.h"

static int run(const char *config, const char *const *overrides, int n_overrides, struct comm *comm, struct run_outcome *out, struct plm_status *st)
{
    struct align_config c;
    struct align_result result = {0};
    int code = comm_agree(comm, align_config_load(&c, config, overrides, n_overrides, st), st);
    if (!code)
        code = align_run(&c, comm, &result, st);
    align_config_free(&c);
    *out = (struct run_outcome){.stopped_by = result.stopped_by, .steps = result.steps, .learned = result.learned};
    return code;
}

int command_align(int argc, char **argv)
{
    return run_command(argc, argv, "align",
        "Learn from preferences as the JSON file CONFIG says, or continue the run in its run_dir: rounds of rollouts, scoring, selection, and training with ARIES' direct and "
        "refinement losses, or with one of its baselines (dpo, iterative-dpo, rejection-sft, grpo). SIGINT and SIGTERM save and stop; the same command continues, with any "
        "number of ranks. Exit status: 0 when the run is complete, 128 + signal when it was stopped, 1 after an error, 3 when nothing was learned.\v"
        "Example: mpirun -n 2 plm align configs/align-demo/align.json --set run_dir=runs/aries", run);
}
