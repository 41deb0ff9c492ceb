/* The operations of the trainer: the core's table for this processor, with oneDNN's matrix product when it is built in. */
#ifndef TRAIN_MATMUL_H
#define TRAIN_MATMUL_H

#include "infer/ops/ops.h"

struct matmul {
    struct ops ops;      /* what the step uses */
    const char *library; /* "oneDNN" or "own"; for the log and the benchmark */
};

/* Pick the operations. The environment variable PLM_MATMUL=own keeps the core's kernels, for measurements. */
void matmul_select(struct matmul *m);

#endif
