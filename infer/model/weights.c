#include "infer/model/weights.h"

#include <stdlib.h>

int weights_create(struct model_weights *w, const struct model_config *c, struct plm_status *st)
{
    *w = (struct model_weights){.layers = calloc((size_t)c->num_hidden_layers, sizeof *w->layers)};
    return w->layers ? PLM_OK : status_no_memory(st, (size_t)c->num_hidden_layers * sizeof *w->layers, "the layer list");
}

void weights_free(struct model_weights *w)
{
    free(w->layers);
    *w = (struct model_weights){0};
}

struct weight *weights_slot(struct model_weights *w, const struct tensor_desc *t)
{
    if (t->role == TENSOR_EMBED)
        return &w->embed;
    if (t->role == TENSOR_FINAL_NORM)
        return &w->final_norm;
    return &w->layers[t->layer].at[t->role];
}

void weights_bind_arena(struct model_weights *w, const struct tensor_table *t, const float *arena)
{
    for (int i = 0; i < t->n_tensors; i++) {
        const struct tensor_desc *d = &t->tensors[i];
        *weights_slot(w, d) = (struct weight){arena + d->offset, DTYPE_F32, d->rows, d->cols};
    }
}
