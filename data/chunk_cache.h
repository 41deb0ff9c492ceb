/* Decoded chunks of open shards, least recently used first to go, within a budget of bytes. Thread-safe: a chunk that one
 * thread is decoding is waited for by the others. */
#ifndef DATA_CHUNK_CACHE_H
#define DATA_CHUNK_CACHE_H

#include <stdint.h>

#include "data/shard.h"

struct chunk_cache;

/* The shards are borrowed. Chunks in use are never dropped, so the budget can be exceeded by what the threads hold. */
int chunk_cache_create(struct chunk_cache **out, struct shard *const *shards, int64_t n_shards, int64_t budget,
                       struct plm_status *st);
void chunk_cache_free(struct chunk_cache *c);

/* Point *tokens at the decoded chunk (u16 or u32, see shard_info.token_bytes); valid until the same number of
 * chunk_cache_release. decoder belongs to the calling thread. */
int chunk_cache_acquire(struct chunk_cache *c, int64_t shard, int64_t chunk, struct shard_decoder *decoder,
                        const void **tokens, struct plm_status *st);
void chunk_cache_release(struct chunk_cache *c, int64_t shard, int64_t chunk);

#endif
