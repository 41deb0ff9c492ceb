/* plm sft: supervised fine-tuning, alone or under mpirun. */
#include "tools/command.h"
#include "tools/run_command.h"
#include "train/sft.h"

static int run(const char *path, const char *const *overrides, int n, struct comm *comm, struct run_outcome *out, struct plm_status *st)
{
    struct sft_config config;
    struct sft_result result = {0};
    int code = comm_agree(comm, sft_config_load(&config, path, overrides, n, st), st);
    if (!code)
        code = sft_run(&config, comm, &result, st);
    sft_config_free(&config);
    *out = (struct run_outcome){result.stopped_by, result.steps, result.learned};
    return code;
}

int command_sft(int argc, char **argv)
{
    return run_command(argc, argv, "sft",
        "Fine-tune a model on conversations as the JSON file CONFIG says, or continue the run in its run_dir. The loss is on the answers only. Checkpoints are "
        "model directories with merged weights; with \"lora\" the PEFT adapter lies beside them. run_dir/best holds the model of the best evaluation. "
        "SIGINT and SIGTERM save and stop; the same command continues. Exit status: 0 when the run is complete, 128 + signal when it was stopped, 1 after "
        "an error, 3 when nothing was learned.\v"
        "Example: mpirun -n 2 plm sft configs/sft.json --set run_dir=runs/sft --set phases.0.epochs=1", run);
}
