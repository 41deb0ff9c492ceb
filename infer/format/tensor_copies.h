/* Data of tensors that cannot be used as they lie in a mapped file: unaligned, or of a type that is converted. */
#ifndef INFER_FORMAT_TENSOR_COPIES_H
#define INFER_FORMAT_TENSOR_COPIES_H

#include "infer/format/dtype.h"

#define TENSOR_MAX_DIMS 4

struct stored_tensor {           /* a tensor in a mapped file; shared by safetensors and GGUF */
    const char *name;            /* owned by the file */
    enum dtype type;
    int n_dims;
    int64_t shape[TENSOR_MAX_DIMS]; /* outermost first (GGUF's ne reversed) */
    const void *data;            /* in the mapping, or a copy that the file owns */
    size_t bytes;
    bool copied;                 /* data are not in the mapping */
};

struct tensor_copies { /* zero at the start */
    void **data;       /* (n), owned */
    int n;
    size_t bytes;      /* of them all */
};

/* Point *t at a copy when its data are not aligned to its type (dtype_alignment); PLM_ENOMEM. */
int tensor_copy_aligned(struct tensor_copies *c, struct stored_tensor *t, struct plm_status *st);

/* *t describes t->bytes of float64 values: point it at a copy in float32. What float32 cannot hold becomes infinite. */
int tensor_copy_narrowed(struct tensor_copies *c, struct stored_tensor *t, struct plm_status *st);

void tensor_copies_free(struct tensor_copies *c);

#endif
