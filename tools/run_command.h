/* Commands that train: COMMAND CONFIG [--set KEY=VALUE]..., alone or under mpirun. */
#ifndef TOOLS_RUN_COMMAND_H
#define TOOLS_RUN_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "train/comm.h"

struct run_outcome {
    int stopped_by; /* the signal that ended the run early, with its state saved; or 0 */
    int64_t steps;  /* done so far */
    bool learned;   /* an update changed the weights */
};

/* Read the configuration with its overrides, and run. Collective; an error is the same on every rank, except PLM_ECOMM. */
typedef int run_function(const char *config, const char *const *overrides, int n_overrides, struct comm *comm, struct run_outcome *out,
                         struct plm_status *st);

/* Parse the arguments (doc is argp's: description, \v, example), join the job, see to it that all ranks were started with the same (but for
 * "threads" and "log"), run, and say how it ended. name: the command's. Returns the exit status (exit_status.h). */
int run_command(int argc, char **argv, const char *name, const char *doc, run_function *run);

#endif
