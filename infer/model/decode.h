/* New tokens of several sequences through the model as one batch: absorbed attention over latent caches (plm.md 1.4). */
#ifndef INFER_MODEL_DECODE_H
#define INFER_MODEL_DECODE_H

#include "infer/cache/policy.h"
#include "infer/model/forward.h"

/* Buffers for a batch of B tokens. H heads, L = kv_lora_rank + rope. */
struct decode_buffers {
    float *x;        /* (B, d) residual stream */
    float *a;        /* (B, d) normed input of attention or MLP */
    float *q;        /* (B, H*(nope+rope)) */
    float *kv_a;     /* (B, L) new latents and rotated keys */
    float *q_latent; /* (B, H, L): W_UK^T q_nope, then the rotated q_pe */
    float *z;        /* (B, H, kv_lora_rank): attention-weighted latents */
    float *attn;     /* (B, H*v) */
    float *u;        /* (B, ff), then squared in place */
    float *cos, *sin; /* (B, rope/2) of the rows' positions */
    struct latent_attention *items; /* (B) */
    void *attention_scratch;
    float *w_uk;                    /* (threads, nope, kv_lora_rank) for large batches */
    unsigned char *gemm_scratch;    /* one for each thread */
    void *sparse_scratch;
    void *policy_scratch;           /* NULL: no sequence has a policy */
};
void decode_buffers_layout(struct decode_buffers *b, const struct model_config *c, const struct ops *ops, int64_t batch, int64_t capacity,
                           int threads, struct arena *arena);

/* One row of a batch. */
struct decode_row {
    int32_t token;
    int32_t position;       /* its true position */
    struct kv_slots *slots; /* (n_layer) of its sequence; the token's slot is appended to each */
    const struct policy_options *policy;
    const int64_t *budgets; /* (n_layer) that the policy brings the slots down to; not used by POLICY_FULL */
};

/* Take `rows` through the layers and leave the residual stream after the last in b->x. Rows of one sequence are in the order of their
 * positions, each attends to those before it; there is one row at most of a sequence with a policy other than POLICY_FULL. f: config,
 * weights, ops, pool and rope are used. The budgets have been checked: nothing here can fail. */
void decode_batch(const struct forward_pass *f, const struct decode_buffers *b, const struct decode_row *rows, int64_t n);

#endif
