/* A model's float32 matrices once more as the panels that products of many rows read (infer/ops/cpu/gemm.h): packing them takes a sixth of the time of a batch of 64
 * rows. They belong to one engine. */
#ifndef INFER_MODEL_PANELS_H
#define INFER_MODEL_PANELS_H

#include "infer/model/model.h"
#include "infer/ops/ops.h"

struct panels;

/* *weights: the model's, with panels where a matrix is float32 and is multiplied as a whole; owned. Nothing is packed yet. Free with panels_free. */
int panels_create(struct panels **out, const struct model_weights **weights, const struct plm_model *m, const struct ops *ops, struct plm_status *st);
void panels_free(struct panels *p);

/* Pack the model's weights as they are now. */
void panels_fill(struct panels *p, struct thread_pool *pool);

#endif
