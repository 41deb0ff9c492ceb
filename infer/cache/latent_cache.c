#include "infer/cache/latent_cache.h"

void latent_cache_layout(struct latent_cache *cache, const struct model_config *c, int64_t capacity, struct arena *arena)
{
    *cache = (struct latent_cache){.n_layer = c->num_hidden_layers, .latent_dim = model_latent_dim(c), .capacity = capacity};
    cache->data = arena_alloc(arena, (size_t)cache->n_layer * (size_t)capacity * (size_t)cache->latent_dim, sizeof *cache->data);
}
