#include "data/chunk_cache.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct entry {
    void *tokens;              /* NULL: not decoded */
    int users;
    bool decoding;
    struct entry *newer, *older; /* in the list of decoded chunks */
    int64_t bytes;
};

struct chunk_cache {
    struct shard *const *shards;
    int64_t n_shards;
    int64_t *first;            /* (n_shards + 1): entries of shard s are entries[first[s], first[s + 1]) */
    struct entry *entries;
    struct entry *newest, *oldest;
    int64_t bytes, budget;
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

int chunk_cache_create(struct chunk_cache **out, struct shard *const *shards, int64_t n_shards, int64_t budget,
                       struct plm_status *st)
{
    *out = NULL;
    struct chunk_cache *c = calloc(1, sizeof *c);
    if (!c || !(c->first = calloc((size_t)n_shards + 1, sizeof *c->first))) {
        free(c);
        return status_no_memory(st, (size_t)n_shards * sizeof *c->first, "a chunk cache");
    }
    for (int64_t i = 0; i < n_shards; i++)
        c->first[i + 1] = c->first[i] + shard_information(shards[i])->n_chunks;
    c->entries = calloc((size_t)c->first[n_shards] + 1, sizeof *c->entries);
    if (!c->entries) {
        size_t bytes = (size_t)c->first[n_shards] * sizeof *c->entries;
        free(c->first);
        free(c);
        return status_no_memory(st, bytes, "a chunk cache");
    }
    c->shards = shards;
    c->n_shards = n_shards;
    c->budget = budget;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    *out = c;
    return PLM_OK;
}

void chunk_cache_free(struct chunk_cache *c)
{
    if (!c)
        return;
    for (int64_t i = 0; i < c->first[c->n_shards]; i++)
        free(c->entries[i].tokens);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c->entries);
    free(c->first);
    free(c);
}

static void list_remove(struct chunk_cache *c, struct entry *e)
{
    *(e->newer ? &e->newer->older : &c->newest) = e->older;
    *(e->older ? &e->older->newer : &c->oldest) = e->newer;
    e->newer = e->older = NULL;
}

static void list_add(struct chunk_cache *c, struct entry *e)
{
    e->newer = NULL;
    e->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = e;
    c->newest = e;
}

static void make_room(struct chunk_cache *c)
{
    for (struct entry *e = c->oldest; e && c->bytes > c->budget;) {
        struct entry *next = e->newer;
        if (e->users == 0) {
            list_remove(c, e);
            c->bytes -= e->bytes;
            free(e->tokens);
            e->tokens = NULL;
        }
        e = next;
    }
}

int chunk_cache_acquire(struct chunk_cache *c, int64_t shard, int64_t chunk, struct shard_decoder *decoder,
                        const void **tokens, struct plm_status *st)
{
    struct entry *e = &c->entries[c->first[shard] + chunk];
    int code = PLM_OK;
    pthread_mutex_lock(&c->lock);
    while (e->decoding)
        pthread_cond_wait(&c->changed, &c->lock);
    if (e->tokens) {
        list_remove(c, e);
    } else {
        const struct shard_info *info = shard_information(c->shards[shard]);
        e->decoding = true;
        pthread_mutex_unlock(&c->lock);
        size_t bytes = (size_t)info->chunk_tokens * (size_t)info->token_bytes;
        void *decoded = malloc(bytes);
        code = decoded ? shard_read_chunk(c->shards[shard], chunk, decoder, decoded, st)
                       : status_no_memory(st, bytes, "a chunk of tokens");
        if (code)
            free(decoded);
        pthread_mutex_lock(&c->lock);
        e->decoding = false;
        pthread_cond_broadcast(&c->changed);
        if (!code) {
            e->tokens = decoded;
            e->bytes = (int64_t)bytes;
            c->bytes += e->bytes;
        }
    }
    if (!code) {
        e->users++;
        list_add(c, e);
        *tokens = e->tokens;
        make_room(c);
    }
    pthread_mutex_unlock(&c->lock);
    return code;
}

void chunk_cache_release(struct chunk_cache *c, int64_t shard, int64_t chunk)
{
    pthread_mutex_lock(&c->lock);
    c->entries[c->first[shard] + chunk].users--;
    make_room(c);
    pthread_mutex_unlock(&c->lock);
}
