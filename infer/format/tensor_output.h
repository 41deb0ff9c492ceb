/* What the safetensors and GGUF writers share: a buffered output file that remembers its first error, and the list of
 * tensors declared for it, whose data must then arrive in order. Internal to infer/format. */
#ifndef INFER_FORMAT_TENSOR_OUTPUT_H
#define INFER_FORMAT_TENSOR_OUTPUT_H

#include <stdbool.h>

#include "infer/format/safetensors.h"

struct declared_tensor {
    char *name; /* owned */
    enum dtype type;
    int n_dims;
    int64_t shape[TENSOR_MAX_DIMS];
    uint64_t bytes;
    uint64_t offset; /* in the data section */
};

struct tensor_output {
    char *path;
    int fd;
    bool regular;            /* only a regular file is ever unlinked */
    unsigned char *buffer;
    size_t buffered;
    uint64_t position;       /* in the file, buffered bytes included */
    uint64_t alignment;      /* of every tensor's offset */
    struct plm_status error; /* the first error; everything after it fails with it too */
    struct declared_tensor *tensors;
    int n_tensors, capacity;
    uint64_t data_bytes;     /* declared so far */
    bool started;            /* the header is written, declarations are closed */
    uint64_t data_begin;     /* file position of the data section */
    int current;             /* tensor whose data are arriving; n_tensors when complete */
    uint64_t current_left;
};

/* Create or truncate `path`. Tensor offsets will be multiples of `alignment` (1: contiguous). */
int tensor_output_open(struct tensor_output *o, const char *path, uint64_t alignment, struct plm_status *st);

/* The sticky error, copied to *st; PLM_OK when there is none. */
int tensor_output_status(const struct tensor_output *o, struct plm_status *st);

/* Add a tensor: at most TENSOR_MAX_DIMS non-negative dimensions, rows in whole blocks, sizes that fit 63 bits. Errors stick. */
int tensor_output_declare(struct tensor_output *o, const char *name, enum dtype type, int n_dims, const int64_t *shape);

/* Close the declarations before the header is written: names must be unique. */
int tensor_output_check_names(struct tensor_output *o);

/* Raw bytes, or `bytes` zeros. Errors stick. */
int tensor_output_put(struct tensor_output *o, const void *data, size_t bytes);
int tensor_output_pad(struct tensor_output *o, uint64_t bytes);

/* The header is complete: data follow. */
void tensor_output_start(struct tensor_output *o);

/* Data of the current tensor. Padding before the next one is written when its data begin. */
int tensor_output_write(struct tensor_output *o, const void *data, size_t bytes);

/* Check that all data arrived, flush, fsync, close. After any error the file is unlinked. Frees everything in *o. */
int tensor_output_finish(struct tensor_output *o, struct plm_status *st);
void tensor_output_discard(struct tensor_output *o);

#endif
