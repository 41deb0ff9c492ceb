/* Parameters beside the model's tensors that are trained with them, such as the head of a reward model: a vector with its gradient and moments. The trainer that is
 * given them sums, clips and updates them together with the model, and keeps them in its checkpoints. */
#ifndef TRAIN_EXTRA_PARAMS_H
#define TRAIN_EXTRA_PARAMS_H

#include "infer/base/arena.h"
#include "infer/model/tensor_table.h"

struct extra_params {
    struct tensor_table table;    /* one vector, "NAME.weight" */
    char file[64];                /* "NAME.safetensors": the values; models that are kept have it too */
    char optimizer_file[64];      /* "optimizer_NAME.safetensors": "m.NAME.weight", "v.NAME.weight" */
    struct arena arena;
    float *params, *grads, *m, *v; /* (table.padded) zero at first */
};

/* A vector of n elements under weight decay. Free with extra_params_free, also after an error. */
int extra_params_create(struct extra_params *x, const char *name, int64_t n, struct plm_status *st);
void extra_params_free(struct extra_params *x);

/* Write both files into an existing directory; their names go to names[0, 2). */
int extra_params_save(const struct extra_params *x, const char *dir, const char *names[2], struct plm_status *st);

/* Values, and with `optimizer` the moments too, from such a directory: shapes must agree and all numbers be finite (PLM_EFORMAT). */
int extra_params_load(struct extra_params *x, const char *dir, bool optimizer, struct plm_status *st);

#endif
