/* Neuron-major copies of a model's ffn_down matrices: with them decoding reads only what belongs to active neurons
 * (infer/ops/neuron_major.h). They are made when an engine first asks, and shared by all engines of the model. */
#ifndef INFER_MODEL_NEURONS_H
#define INFER_MODEL_NEURONS_H

#include "infer/base/threads.h"
#include "infer/model/model.h"

/* Empty copies; free with neurons_free. */
int neurons_create(struct neurons **out, struct plm_status *st);
void neurons_free(struct neurons *n);

/* *layers (num_hidden_layers), owned by the model: the copy of each layer, NULL for one whose shape or type does not allow it. The pages
 * of the mapped originals are given back to the system: prefill, which uses those, reads them again. Threads may call it together. */
int neurons_get(const struct plm_model *m, struct thread_pool *pool, const void *const **layers, struct plm_status *st);

/* Bytes that the copies of this model take. */
size_t neurons_bytes(const struct plm_model *m);

#endif
