/* Ranks that are MPI processes. */
#ifndef TRAIN_COMM_MPI_H
#define TRAIN_COMM_MPI_H

#include "train/comm.h"

/* Initialise MPI (the thread that calls this makes all later calls) and fill *c. */
int comm_mpi_open(struct comm *c, struct plm_status *st);

#endif
