/* The tensors of a Hugging Face directory: model.safetensors, or the files that model.safetensors.index.json distributes them over. */
#ifndef INFER_FORMAT_SAFETENSORS_SET_H
#define INFER_FORMAT_SAFETENSORS_SET_H

#include "infer/format/safetensors.h"

#define SAFETENSORS_INDEX "model.safetensors.index.json"
#define SAFETENSORS_INDEX_MAX ((size_t)16 << 20) /* bytes */
#define SAFETENSORS_MAX_FILES 1024

struct safetensors_set {
    int n_files, n_tensors, n_others, n_narrowed; /* sums over the files */
    struct safetensors *files; /* (n_files) */
};

/* Open what lies in `dir`: model.safetensors when it is there, else the files of the index. Names in an index are not trusted: they
 * must be plain names ending in .safetensors. Every tensor must be in the file that the index says, and no other; PLM_EFORMAT
 * otherwise. On an error nothing is left to close. */
int safetensors_set_open(struct safetensors_set *s, const char *dir, struct plm_status *st);

/* The same of one file, whatever its name. */
int safetensors_set_open_file(struct safetensors_set *s, const char *path, struct plm_status *st);
void safetensors_set_close(struct safetensors_set *s);

/* By name; NULL when no file has it. */
const struct stored_tensor *safetensors_set_find(const struct safetensors_set *s, const char *name);

/* Name of tensor i of n_others, file after file; NULL beyond the last. The type of such a tensor, NULL when it is none of them. */
const char *safetensors_set_other_name(const struct safetensors_set *s, int i);
const char *safetensors_set_other_type(const struct safetensors_set *s, const char *name);

/* Tensor i of n_tensors, file after file. */
const struct stored_tensor *safetensors_set_at(const struct safetensors_set *s, int i);

#endif
