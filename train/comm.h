/* The ranks of a job and what they say to each other. The interface is a table of functions: a single process, MPI, and
 * whatever comes later behind the same calls.
 *
 * Determinism: for a fixed number of ranks the same inputs give the same sums, bit for bit and on every rank: addition is
 * commutative, large arrays are cut at fixed places, and the MPI library picks its algorithm by the number of ranks and
 * bytes. Another number of ranks (or another MPI library) adds in another order and may differ in the last bits.
 *
 * Every call but comm_abort is collective: all ranks make the same calls in the same order, from one thread. */
#ifndef TRAIN_COMM_H
#define TRAIN_COMM_H

#include <stddef.h>
#include <stdint.h>

#include "infer/base/status.h"

struct comm;

struct comm_ops {
    const char *name; /* "single", "mpi" */
    int (*sum_floats)(struct comm *c, float *x, int64_t n, struct plm_status *st);
    int (*sum_doubles)(struct comm *c, double *x, int64_t n, struct plm_status *st);
    int (*min_int)(struct comm *c, int *x, struct plm_status *st);
    int (*broadcast)(struct comm *c, void *data, size_t bytes, int root, struct plm_status *st);
    int (*barrier)(struct comm *c, struct plm_status *st);
    void (*abort)(struct comm *c, int exit_status); /* end all ranks; may return when there is only one */
    void (*close)(struct comm *c);
};

struct comm {
    int rank, size; /* 0 <= rank < size */
    const struct comm_ops *ops;
};

/* Join the job: MPI when this process was started by an MPI launcher, otherwise a job of one that never touches MPI.
 * PLM_EUNSUPPORTED when launched as one of several ranks by a build without MPI. Close with comm_close. */
int comm_open(struct comm *c, struct plm_status *st);

/* Leave the job; all ranks must do so, or MPI waits. A zeroed or closed comm is fine. */
void comm_close(struct comm *c);

/* x (n) becomes the sum over ranks, on every rank. */
int comm_sum_floats(struct comm *c, float *x, int64_t n, struct plm_status *st);
int comm_sum_doubles(struct comm *c, double *x, int64_t n, struct plm_status *st);

/* `bytes` bytes at data become those of rank root, on every rank. */
int comm_broadcast(struct comm *c, void *data, size_t bytes, int root, struct plm_status *st);

/* Return once every rank has called it. */
int comm_barrier(struct comm *c, struct plm_status *st);

/* After something that may fail on some ranks only: `code` is this rank's result and *st its message. Returns PLM_OK
 * when it is PLM_OK on all; otherwise every rank returns the code of the lowest failing rank with its message in *st
 * (which must not be NULL), prefixed by the rank when there are several. */
int comm_agree(struct comm *c, int code, struct plm_status *st);

/* Print "rank R of N: MESSAGE" (or just the message, in a job of one) to stderr and end the job on all ranks with exit
 * status 1, without waiting for the others. Returns only in a job of one, where the caller still has to return 1. Use it
 * when this rank cannot go on and the others may already wait for it in a collective call. */
void comm_abort(struct comm *c, const struct plm_status *st);

/* The control word: what all ranks must know about a step before they apply it. Each rank fills in its own part; after
 * comm_step_control every field is the sum over ranks, from one reduction. */
struct step_control {
    double loss_sum;   /* weighted sum of token losses, nats */
    double weight_sum; /* sum of the weights */
    double nonfinite;  /* 1 when a loss or gradient of this rank is not finite */
    double stop;       /* 1 when this rank was asked to stop */
};
int comm_step_control(struct comm *c, struct step_control *control, struct plm_status *st);

#endif
