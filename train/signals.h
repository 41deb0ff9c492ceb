/* SIGINT, SIGTERM and SIGUSR1 ask a run to save and stop; a second SIGINT ends the process at once. Signals belong to the
 * process, so this is the one module with process-wide state.
 *
 * SIGUSR1 is the one to send to a launcher: mpirun (and batch systems) pass it on at once, while Open MPI answers SIGINT
 * with SIGTERM to the ranks after odls_base_sigkill_timeout seconds (1) and SIGKILL after as many more, which is too short
 * to save a large model. */
#ifndef TRAIN_SIGNALS_H
#define TRAIN_SIGNALS_H

#include <stdbool.h>

#include "infer/base/status.h"

/* Install the handlers, on a stack of their own for the calling thread, and clear the request. Call it from the main thread.
 * Not nested: PLM_EINVAL when open already. */
int signals_open(struct plm_status *st);

/* The signal that asked to stop (SIGINT, SIGTERM or SIGUSR1), or 0. */
int signals_stop_requested(void);

/* Put back the handlers that were there before. */
void signals_close(void);

#endif
