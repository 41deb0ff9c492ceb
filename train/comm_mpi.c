#include "train/comm_mpi.h"

#include <limits.h>
#include <mpi.h>
#include <stdlib.h>

#define CHUNK ((int64_t)1 << 24) /* elements per call: MPI counts are ints, and fixed cuts keep sums reproducible */

static int mpi_fail(const struct comm *c, const char *what, int error, struct plm_status *st)
{
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    if (MPI_Error_string(error, text, &length) != MPI_SUCCESS)
        length = 0;
    return status_set(st, PLM_ECOMM, "%s failed on rank %d of %d: %.*s; another rank may have died, see its message",
                      what, c->rank, c->size, length, text);
}

static int mpi_sum(struct comm *c, char *x, int64_t n, MPI_Datatype type, size_t size, struct plm_status *st)
{
    for (int64_t i = 0; i < n; i += CHUNK) {
        int count = (int)(n - i < CHUNK ? n - i : CHUNK);
        int error = MPI_Allreduce(MPI_IN_PLACE, x + (size_t)i * size, count, type, MPI_SUM, MPI_COMM_WORLD);
        if (error != MPI_SUCCESS)
            return mpi_fail(c, "summing over ranks", error, st);
    }
    return PLM_OK;
}

static int mpi_sum_floats(struct comm *c, float *x, int64_t n, struct plm_status *st)
{
    return mpi_sum(c, (char *)x, n, MPI_FLOAT, sizeof *x, st);
}

static int mpi_sum_doubles(struct comm *c, double *x, int64_t n, struct plm_status *st)
{
    return mpi_sum(c, (char *)x, n, MPI_DOUBLE, sizeof *x, st);
}

static int mpi_min_int(struct comm *c, int *x, struct plm_status *st)
{
    int error = MPI_Allreduce(MPI_IN_PLACE, x, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    return error == MPI_SUCCESS ? PLM_OK : mpi_fail(c, "agreeing on a status", error, st);
}

static int mpi_broadcast(struct comm *c, void *data, size_t bytes, int root, struct plm_status *st)
{
    for (size_t i = 0; i < bytes; i += (size_t)CHUNK) {
        int count = (int)(bytes - i < (size_t)CHUNK ? bytes - i : (size_t)CHUNK);
        int error = MPI_Bcast((char *)data + i, count, MPI_BYTE, root, MPI_COMM_WORLD);
        if (error != MPI_SUCCESS)
            return mpi_fail(c, "broadcasting", error, st);
    }
    return PLM_OK;
}

static int mpi_barrier(struct comm *c, struct plm_status *st)
{
    int error = MPI_Barrier(MPI_COMM_WORLD);
    return error == MPI_SUCCESS ? PLM_OK : mpi_fail(c, "waiting for the other ranks", error, st);
}

static void mpi_abort(struct comm *c, int exit_status)
{
    (void)c;
    MPI_Abort(MPI_COMM_WORLD, exit_status);
}

static void mpi_close(struct comm *c)
{
    (void)c;
    MPI_Finalize();
}

static const struct comm_ops mpi_ops = {
    .name = "mpi", .sum_floats = mpi_sum_floats, .sum_doubles = mpi_sum_doubles, .min_int = mpi_min_int,
    .broadcast = mpi_broadcast, .barrier = mpi_barrier, .abort = mpi_abort, .close = mpi_close,
};

int comm_mpi_open(struct comm *c, struct plm_status *st)
{
    int initialised = 0, finalised = 0, provided = 0;
    MPI_Initialized(&initialised);
    MPI_Finalized(&finalised);
    if (initialised || finalised)
        return status_set(st, PLM_EINVAL, "the job was joined before: MPI can be started once in a process");
    int error = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    if (error != MPI_SUCCESS)
        return status_set(st, PLM_ECOMM, "cannot start MPI (error %d); is this process started by mpirun?", error);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &c->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &c->size);
    c->ops = &mpi_ops;
    if (provided < MPI_THREAD_FUNNELED && c->size > 1) {
        comm_close(c);
        return status_set(st, PLM_EUNSUPPORTED, "this MPI library does not allow other threads beside the one that "
                          "calls it, which the data loader and the kernels need");
    }
    return PLM_OK;
}
