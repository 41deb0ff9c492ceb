/* Export of a model to GGUF (architecture `plm`, plm.md section 2), readable by llama.cpp and by the core itself. */
#ifndef TRAIN_EXPORT_H
#define TRAIN_EXPORT_H

#include "infer/model/model.h"

struct export_summary {
    int64_t bytes;         /* of the file */
    int n_tensors;
    int n_fallback;        /* matrices stored as f16 because their rows are no multiple of the type's block */
    char first_fallback[80];
    char sha256[65];       /* of the file, hexadecimal */
};

/* Write m to `path` with matrices of `type` and norms in f32. The file appears under its name only when complete. `name`:
 * general.name. Never writes output.weight: the head is tied (plm.md 2.2). */
int export_gguf(const struct plm_model *m, enum dtype type, const char *name, const char *path, struct export_summary *summary,
                struct plm_status *st);

#endif
