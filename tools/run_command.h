/* Commands that train: COMMAND CONFIG [--set KEY=VALUE]..., alone or under mpirun. */
#ifndef TOOLS_RUN_COMMAND_H
#define TOOLS_RUN_COMMAND_H

#include <stdint.h>

#include "train/comm.h"

struct run_outcome {
    int stopped_by; /* the signal that ended the run early, with its state saved; or 0 */
    int64_t steps;  /* done so far */
};

/* Read the configuration with its overrides, and run. Collective; an error is the same on every rank, except PLM_ECOMM. */
typedef int run_function(const char *config, const char *const *overrides, int n_overrides, struct comm *comm, struct run_outcome *out,
                         struct plm_status *st);

/* Parse the arguments (doc is argp's: description, \v, example), join the job, run, and say how it ended. Returns the exit status: 0 when the run is complete,
 * 128 + signal when it was stopped, 1 after an error. */
int run_command(int argc, char **argv, const char *doc, run_function *run);

#endif
