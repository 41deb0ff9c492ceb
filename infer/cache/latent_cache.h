/* The latent KV cache of one sequence: per layer and position the normed latent and the rotated shared key, 576 values in
 * PLM-1.8B where expanded keys and values are 5,120 (plm.md 1.4). */
#ifndef INFER_CACHE_LATENT_CACHE_H
#define INFER_CACHE_LATENT_CACHE_H

#include "infer/base/arena.h"
#include "infer/model/config.h"

struct latent_cache {
    int n_layer;
    int latent_dim;    /* kv_lora_rank + qk_rope_head_dim */
    int64_t capacity;  /* positions */
    int64_t length;    /* positions filled, the same in every layer between two appends */
    float *data;       /* (n_layer, capacity, latent_dim) */
};

void latent_cache_layout(struct latent_cache *cache, const struct model_config *c, int64_t capacity, struct arena *arena);

/* Row `position` of a layer (latent_dim values). */
static inline float *latent_cache_row(const struct latent_cache *cache, int layer, int64_t position)
{
    return cache->data + ((int64_t)layer * cache->capacity + position) * cache->latent_dim;
}

#endif
