/* LoRA (Hu et al., arXiv 2106.09685) as a change of variables: W = W0 + (alpha / r) B A for every matrix of the layers. The step, the rollouts and
 * the export see ordinary merged weights; only the update is different: gradients of W become those of A and B (dA = s B^T dW, dB = s dW A^T), which
 * alone are summed over the ranks, clipped and updated, and W is made anew. Exact, and the reference model is W0. */
#ifndef TRAIN_LORA_H
#define TRAIN_LORA_H

#include "infer/base/arena.h"
#include "infer/base/threads.h"
#include "infer/model/tensor_table.h"
#include "infer/ops/ops.h"

struct lora_options {
    int rank;        /* r >= 1 */
    double alpha;    /* scale alpha / r */
};

struct lora {
    struct lora_options options;
    const struct tensor_table *base; /* the model's; must outlive */
    struct tensor_table table;       /* A, then B of every adapted matrix, with its role and layer and PEFT's names
                                      * ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"): what the optimizer, the norm and
                                      * checkpoints loop over (tensor_table_at does not apply) */
    struct arena arena;
    float *params, *grads;           /* (table.padded) */
    float *frozen;                   /* (base->padded) W0 */
};

/* Adapts all linear layers (q, kv_a, kv_b, o, up, down of every layer). A (rank, cols): normal(0, 1/sqrt(cols)) from seed, B (rows, rank): zero.
 * `weights` (base->padded) are copied to W0. world_size pads the table as tensor_table_build does. PLM_EINVAL for a rank below 1 or an alpha that
 * is not above 0. Free with lora_destroy; after an error there is nothing to free. */
int lora_create(struct lora *l, const struct tensor_table *base, const struct lora_options *o, const float *weights, uint64_t seed, int world_size,
                struct plm_status *st);
void lora_destroy(struct lora *l);

/* weights = W0 + s B A for adapted matrices, W0 for all others, and W0 bit for bit where B is zero. */
void lora_merge(const struct lora *l, float *weights, const struct ops *ops, struct thread_pool *pool);

/* grads of A and B from those of W (base arena); l->grads is overwritten. */
void lora_gradients(struct lora *l, const float *weight_grads, const struct ops *ops, struct thread_pool *pool);

/* adapter_model.safetensors (F32) and adapter_config.json of PEFT, into an existing directory; base_model: what PEFT shall load. */
int lora_save(const struct lora *l, const char *dir, const char *base_model, struct plm_status *st);

/* A and B from such a directory (F32, F16 or BF16), ours or PEFT's. Rank and alpha must agree (PLM_EINVAL), every adapted matrix be there and no other, all
 * numbers be finite (PLM_EFORMAT); DoRA, rsLoRA, biases and whole modules are PLM_EUNSUPPORTED. l->grads becomes zero; A and B change only on success. */
int lora_load(struct lora *l, const char *dir, struct plm_status *st);

#endif
