/* The sparse_rows entry of every CPU table: the activations become short lists of what is not zero, the rows of y are split over the
 * threads, and each goes through the neurons in their order. What differs between instruction sets is the product of one group. */
#ifndef INFER_OPS_CPU_SPARSE_ROWS_H
#define INFER_OPS_CPU_SPARSE_ROWS_H

#include "infer/ops/neuron_major.h"
#include "infer/ops/ops.h"

/* The active neurons of a group: the value of number i is d * (256 hi[i] + lo[i]), of 15 bits. */
struct sparse_group {
    float d;
    int32_t sum;     /* of 256 hi + lo */
    int32_t n;       /* a multiple of 4: filled up with zeros; 0 when no neuron is active */
    uint8_t at[32];  /* which neurons, ascending */
    uint8_t hi[32], lo[32];
};

/* y[r - begin] += the product of the group's neurons, for rows [begin, end) of the matrix, whole units. */
struct sparse_product {
    const struct neuron_layout *layout;
    enum dtype type;
    int64_t n;             /* rows of the matrix */
    const char *super, *data; /* the group's super-scales, and the group */
    const struct sparse_group *active;
    const char *next;      /* the group after it, to be asked for in advance; NULL: none */
    const struct sparse_group *next_active;
};

struct sparse_kernel {
    void (*group)(float *y, const struct sparse_product *p, int64_t begin, int64_t end);
    void (*axpy)(float *y, float a, const void *row, enum dtype type, int64_t n); /* as in struct ops */
};

int64_t sparse_rows_run(const struct sparse_rows *s, struct thread_pool *pool, const struct sparse_kernel *kernel);

void sparse_group_portable(float *y, const struct sparse_product *p, int64_t begin, int64_t end);
void sparse_group_avx2(float *y, const struct sparse_product *p, int64_t begin, int64_t end);       /* x86-64 builds only, */
void sparse_group_avx512vnni(float *y, const struct sparse_product *p, int64_t begin, int64_t end); /* as this */

#endif
