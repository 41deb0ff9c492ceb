/* plm reward: a reward model from pairs, alone or under mpirun. */
#include "tools/command.h"
#include "tools/run_command.h"
#include "train/align/reward.h"

static int run(const char *path, const char *const *overrides, int n, struct comm *comm, struct run_outcome *out, struct plm_status *st)
{
    struct reward_config config;
    struct reward_result result = {0};
    int code = comm_agree(comm, reward_config_load(&config, path, overrides, n, st), st);
    if (!code)
        code = reward_run(&config, comm, &result, st);
    reward_config_free(&config);
    *out = (struct run_outcome){result.stopped_by, result.steps, result.learned};
    return code;
}

int command_reward(int argc, char **argv)
{
    return run_command(argc, argv, "reward",
        "Train a Bradley-Terry reward model on pairs of answers as the JSON file CONFIG says, or continue the run in its run_dir. Scorers open the result: "
        "{\"kind\": \"reward\", \"model\": RUN_DIR} in plm align, --scorer reward in plm score. run_dir/best holds the model of the smallest held-out loss. "
        "SIGINT and SIGTERM save and stop; the same command continues, with any number of ranks. Exit status: 0 when the run is complete, 128 + signal when it "
        "was stopped, 1 after an error, 3 when nothing was learned.\v"
        "Example: mpirun -n 2 plm reward configs/reward.json --set run_dir=runs/reward", run);
}
