/* Backward pass of latent attention over expanded keys and values. Probabilities are recomputed tile by tile from the saved
 * log-sum-exp, so nothing of size T x T is kept. */
#ifndef TRAIN_OPS_ATTENTION_BACKWARD_H
#define TRAIN_OPS_ATTENTION_BACKWARD_H

#include "infer/model/attention.h"
#include "train/ops/train_ops.h"

struct attention_grad {
    const float *d_out; /* (B*T, n_head*v) */
    float *d_q;         /* (B*T, ldq), overwritten */
    float *d_kv;        /* (B*T, ldkv), overwritten */
    float *d_k_pe;      /* (B*T, n_head, rope): per head, overwritten; the caller sums over the heads */
};

size_t attention_backward_scratch_bytes(const struct ops *ops, int64_t max_keys, int threads);

/* a: as in attention_forward, with past = 0 and lse filled. */
void attention_backward(const struct attention *a, const struct attention_grad *g, const struct ops *ops,
                        const struct train_ops *train_ops, struct thread_pool *pool, void *scratch, int64_t max_keys);

#endif
