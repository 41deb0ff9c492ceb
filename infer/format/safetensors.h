/* safetensors files: 8-byte little-endian header length, JSON header, raw little-endian data. */
#ifndef INFER_FORMAT_SAFETENSORS_H
#define INFER_FORMAT_SAFETENSORS_H

#include "infer/base/mapped.h"
#include "infer/format/tensor_copies.h"

struct other_tensor {
    const char *name, *type; /* owned by the file */
};

struct safetensors {
    struct mapped_file file;
    int n_tensors;
    struct stored_tensor *tensors; /* F32, F16, BF16 and F64 (as float32, copied), sorted by offset */
    int n_others;
    struct other_tensor *others;   /* of types that nothing here computes with */
    int n_narrowed;                /* of `tensors`, that are F64 in the file */
    struct tensor_copies copies;   /* of those, and of data that the file does not align */
    char *metadata;                /* __metadata__ object as JSON text, or NULL */
    void *owned;                   /* names */
};

/* Map and validate: header size and every extent against the file, no gaps, no overlaps, shape times size = extent, unique names.
 * F64 tensors are converted, those whose data the file does not align are copied; other types (integers, booleans, 8-bit floats)
 * are listed in `others`. PLM_EFORMAT for a file that breaks the format; PLM_EUNSUPPORTED, naming the tensor, for more than
 * TENSOR_MAX_DIMS dimensions of a tensor that can be computed with. On an error nothing is left to close. */
int safetensors_open(struct safetensors *s, const char *path, struct plm_status *st);
void safetensors_close(struct safetensors *s);

/* By name, binary search; NULL when the file has no such tensor of a type that can be computed with. */
const struct stored_tensor *safetensors_find(const struct safetensors *s, const char *name);

/* The type of tensor `name` when it is one of `others`; NULL otherwise. */
const char *safetensors_other_type(const struct safetensors *s, const char *name);

/* Writer: declare all tensors, then write each one's bytes in order. Data go to `path` directly (callers that need
 * atomic replacement write into a temporary directory or name). The data section begins at a multiple of 64 bytes; tensors
 * follow each other without gaps, so those with wider elements must be declared first wherever narrower ones would
 * misalign them. After an error every further call, safetensors_finish too, returns the same error. */
struct safetensors_writer;
int safetensors_create(struct safetensors_writer **out, const char *path, struct plm_status *st);
int safetensors_declare(struct safetensors_writer *w, const char *name, enum dtype type, int n_dims, const int64_t *shape,
                        struct plm_status *st);
int safetensors_set_metadata(struct safetensors_writer *w, const char *key, const char *value, struct plm_status *st);
/* The next declared tensor's data, any number of calls until its bytes are complete; the header is written on the first. */
int safetensors_write(struct safetensors_writer *w, const void *data, size_t bytes, struct plm_status *st);
/* Checks that everything declared was written, flushes and fsyncs. Frees the writer in every case, and unlinks the file
 * unless it is complete; NULL is allowed. */
int safetensors_finish(struct safetensors_writer *w, struct plm_status *st);
void safetensors_discard(struct safetensors_writer *w); /* close and unlink an unfinished file */

#endif
