/* One new token through the model: absorbed attention over the latent cache (plm.md 1.4). */
#ifndef INFER_MODEL_DECODE_H
#define INFER_MODEL_DECODE_H

#include "infer/cache/latent_cache.h"
#include "infer/model/forward.h"

/* Buffers for one token. H heads, L = kv_lora_rank + rope. */
struct decode_buffers {
    float *x;        /* (d) residual stream */
    float *a;        /* (d) normed input of attention or MLP */
    float *q;        /* (H*(nope+rope)) */
    float *q_latent; /* (H, L): W_UK^T q_nope, then the rotated q_pe */
    float *scores;   /* (H, capacity) */
    float *z;        /* (H, kv_lora_rank): attention-weighted latents */
    float *attn;     /* (H*v) */
    float *u;        /* (ff), then squared in place */
};
void decode_buffers_layout(struct decode_buffers *b, const struct model_config *c, int64_t capacity, struct arena *arena);

/* Append `token` to the cache at position cache->length and leave the residual stream after the last layer in b->x.
 * f: config, weights, ops, pool and rope are used, with n_seq = q_len = 1 and past = cache->length. Does not change
 * cache->length. */
void decode_token(const struct forward_pass *f, const struct latent_cache *cache, const struct decode_buffers *b, int32_t token);

#endif
