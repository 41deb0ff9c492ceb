#include "train/comm.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "train/comm_mpi.h"

static int single_sum_floats(struct comm *c, float *x, int64_t n, struct plm_status *st)
{
    (void)c, (void)x, (void)n, (void)st;
    return PLM_OK;
}

static int single_sum_doubles(struct comm *c, double *x, int64_t n, struct plm_status *st)
{
    (void)c, (void)x, (void)n, (void)st;
    return PLM_OK;
}

static int single_min_int(struct comm *c, int *x, struct plm_status *st)
{
    (void)c, (void)x, (void)st;
    return PLM_OK;
}

static int single_broadcast(struct comm *c, void *data, size_t bytes, int root, struct plm_status *st)
{
    (void)c, (void)data, (void)bytes, (void)root, (void)st;
    return PLM_OK;
}

static int single_barrier(struct comm *c, struct plm_status *st)
{
    (void)c, (void)st;
    return PLM_OK;
}

static void single_abort(struct comm *c, int exit_status)
{
    (void)c, (void)exit_status;
}

static void single_close(struct comm *c)
{
    (void)c;
}

static const struct comm_ops single_ops = {
    .name = "single", .sum_floats = single_sum_floats, .sum_doubles = single_sum_doubles, .min_int = single_min_int,
    .broadcast = single_broadcast, .barrier = single_barrier, .abort = single_abort, .close = single_close,
};

/* The number of ranks the launcher started, from the environment it gives to each; 0 without a launcher. */
static int launched_size(void)
{
    static const char *const variables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        const char *value = getenv(variables[i]);
        if (value && atoi(value) > 0)
            return atoi(value);
    }
    return getenv("PMIX_RANK") ? 1 : 0; /* PMIx alone does not say how many: MPI_Init finds out */
}

int comm_open(struct comm *c, struct plm_status *st)
{
    *c = (struct comm){.rank = 0, .size = 1, .ops = &single_ops};
    int launched = launched_size();
#ifdef HAVE_MPI
    if (launched > 0) {
        int code = comm_mpi_open(c, st);
        if (!code && launched > 1 && c->size == 1)
            code = status_set(st, PLM_ECOMM, "the launcher started %d processes, but this MPI library sees one: mpirun belongs to another MPI "
                              "than the program was built with", launched);
        return code;
    }
#else
    if (launched > 1)
        return status_set(st, PLM_EUNSUPPORTED, "started as one of %d processes by an MPI launcher, but this program was "
                          "built without MPI: install libopenmpi-dev and build again, or start it without mpirun", launched);
#endif
    (void)st;
    return PLM_OK;
}

void comm_close(struct comm *c)
{
    if (c->ops)
        c->ops->close(c);
    *c = (struct comm){0};
}

int comm_sum_floats(struct comm *c, float *x, int64_t n, struct plm_status *st)
{
    return c->ops->sum_floats(c, x, n, st);
}

int comm_sum_doubles(struct comm *c, double *x, int64_t n, struct plm_status *st)
{
    return c->ops->sum_doubles(c, x, n, st);
}

int comm_broadcast(struct comm *c, void *data, size_t bytes, int root, struct plm_status *st)
{
    return c->ops->broadcast(c, data, bytes, root, st);
}

int comm_barrier(struct comm *c, struct plm_status *st)
{
    return c->ops->barrier(c, st);
}

int comm_agree(struct comm *c, int code, struct plm_status *st)
{
    int failed = code ? c->rank : INT_MAX;
    struct plm_status lost;
    int lost_code = c->ops->min_int(c, &failed, &lost);
    if (!lost_code && failed == INT_MAX)
        return PLM_OK;
    struct plm_status first = *st;
    if (!lost_code)
        lost_code = c->ops->broadcast(c, &first, sizeof first, failed, &lost);
    if (lost_code) { /* nobody can be asked any more: what this rank knows itself is the better message */
        if (!code)
            *st = lost;
        return code ? code : lost_code;
    }
    *st = first;
    if (c->size > 1)
        status_prefix(st, "rank %d", failed);
    return st->code ? (int)st->code : PLM_EINTERNAL;
}

void comm_abort(struct comm *c, const struct plm_status *st)
{
    if (c->size > 1)
        fprintf(stderr, "rank %d of %d: %s\n", c->rank, c->size, st->message);
    else
        fprintf(stderr, "%s\n", st->message);
    fflush(stderr);
    if (c->ops)
        c->ops->abort(c, 1);
}

int comm_step_control(struct comm *c, struct step_control *control, struct plm_status *st)
{
    double sums[] = {control->loss_sum, control->weight_sum, control->nonfinite, control->stop};
    int code = comm_sum_doubles(c, sums, (int64_t)(sizeof sums / sizeof *sums), st);
    if (code)
        return code;
    *control = (struct step_control){sums[0], sums[1], sums[2], sums[3]};
    return PLM_OK;
}
