/* Where the weights are: one pointer per tensor of the table, whatever memory they live in (a mapped file, an arena). */
#ifndef INFER_MODEL_WEIGHTS_H
#define INFER_MODEL_WEIGHTS_H

#include "infer/model/tensor_table.h"

struct weight {
    const void *data;   /* (rows, cols) of `type`, not owned */
    enum dtype type;
    int64_t rows, cols; /* [out, in]; rows = 1 for a norm, whose type is always f32 */
    bool mapped;        /* data are in a mapped file and can be read from it again */
    const float *panels; /* the same, packed for products of many rows (infer/model/panels.h); NULL: not there */
};

struct layer_weights {
    struct weight at[TENSOR_ROLES]; /* by enum tensor_role; the two roles outside the layers stay empty */
};

struct model_weights {
    struct weight embed, final_norm;
    struct layer_weights *layers; /* (num_hidden_layers), owned */
};

/* Allocate the layer array. Free with weights_free. */
int weights_create(struct model_weights *w, const struct model_config *c, struct plm_status *st);
void weights_free(struct model_weights *w);

/* The slot of a tensor, to fill in or to read. */
struct weight *weights_slot(struct model_weights *w, const struct tensor_desc *t);

/* Point every tensor at its place in a float arena laid out by the table (training, tests). */
void weights_bind_arena(struct model_weights *w, const struct tensor_table *t, const float *arena);

static inline const float *weight_f32(const struct weight *w) { return w->data; }

#endif
