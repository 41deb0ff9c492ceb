#include "data/sampler.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "data/chunk_cache.h"
#include "data/corpus.h"
#include "data/order.h"

struct sampler {
    struct corpus *sources;      /* (n_sources) */
    int64_t *first_shard;        /* (n_sources): place of the source's shards in `shards` */
    int n_sources, seq_len;
    struct shard **shards;       /* all of them; owned by the sources */
    struct chunk_cache *cache;
    struct order *order;
    pthread_mutex_t lock;        /* of the order and of the sources' packings */
};

struct sampler_thread {
    struct sampler *sampler;
    struct shard_decoder *decoder;
    struct piece *pieces;        /* of the row being filled: (seq_len) */
    int32_t *run;                /* (seq_len + 1): the tokens of one piece */
};

/* Decoded bytes that the order revisits: the windows shuffled together, one more at each end that shares a chunk with
 * them, and the next. */
static int64_t working_set(const struct corpus *c)
{
    const struct shard_info *info = shard_information(c->shards[0]);
    int64_t tokens = (ORDER_GROUP + 2) * (corpus_window_tokens(c->seq_len) + info->chunk_tokens);
    int64_t all = c->n_tokens + c->n_shards * info->chunk_tokens;
    return (tokens < all ? tokens : all) * c->token_bytes;
}

static int open_sources(struct sampler *s, const struct stream_options *o, struct plm_status *st)
{
    size_t n = (size_t)o->n_sources;
    s->sources = calloc(n, sizeof *s->sources);
    s->first_shard = calloc(n, sizeof *s->first_shard);
    struct order_source *order = calloc(n, sizeof *order);
    int code = s->sources && s->first_shard && order ? PLM_OK : status_no_memory(st, n * sizeof *s->sources, "the sources");
    int64_t n_shards = 0, budget = 0;
    struct corpus_options options = {o->seq_len, o->tokenizer_sha256, o->vocab_size};
    for (int i = 0; !code && i < o->n_sources; i++) {
        struct corpus *c = &s->sources[i];
        code = corpus_open(c, o->sources[i].path, &options, st);
        if (code)
            break;
        s->n_sources++;
        s->first_shard[i] = n_shards;
        n_shards += c->n_shards;
        budget += working_set(c);
        /* weights are in tokens, the order draws rows: a row of this source carries n_inputs / n_rows tokens on average */
        order[i] = (struct order_source){o->sources[i].weight * (double)c->n_rows / (double)c->n_inputs, c->window_rows,
                                         c->n_windows};
    }
    if (!code && !(s->shards = malloc((size_t)n_shards * sizeof *s->shards)))
        code = status_no_memory(st, (size_t)n_shards * sizeof *s->shards, "the shards");
    for (int i = 0; !code && i < s->n_sources; i++)
        memcpy(s->shards + s->first_shard[i], s->sources[i].shards, (size_t)s->sources[i].n_shards * sizeof *s->shards);
    if (!code)
        code = chunk_cache_create(&s->cache, s->shards, n_shards, budget, st);
    if (!code)
        code = order_create(&s->order, o->seed, o->phase, order, o->n_sources, st);
    free(order);
    return code;
}

int sampler_open(struct sampler **out, const struct stream_options *o, struct plm_status *st)
{
    *out = NULL;
    struct sampler *s = calloc(1, sizeof *s);
    if (!s)
        return status_no_memory(st, sizeof *s, "a sampler");
    pthread_mutex_init(&s->lock, NULL);
    s->seq_len = o->seq_len;
    int code = open_sources(s, o, st);
    if (code)
        sampler_close(s);
    else
        *out = s;
    return code;
}

void sampler_close(struct sampler *s)
{
    if (!s)
        return;
    order_free(s->order);
    chunk_cache_free(s->cache);
    for (int i = 0; i < s->n_sources; i++)
        corpus_close(&s->sources[i]);
    pthread_mutex_destroy(&s->lock);
    free(s->shards);
    free(s->first_shard);
    free(s->sources);
    free(s);
}

int sampler_thread_create(struct sampler_thread **out, struct sampler *s, struct plm_status *st)
{
    *out = NULL;
    struct sampler_thread *t = calloc(1, sizeof *t);
    size_t n = (size_t)s->seq_len + 1;
    if (!t || !(t->pieces = malloc(n * sizeof *t->pieces)) || !(t->run = malloc(n * sizeof *t->run))) {
        sampler_thread_free(t);
        return status_no_memory(st, n * sizeof *t->pieces, "a row");
    }
    t->sampler = s;
    int code = shard_decoder_create(&t->decoder, st);
    if (code)
        sampler_thread_free(t);
    else
        *out = t;
    return code;
}

void sampler_thread_free(struct sampler_thread *t)
{
    if (!t)
        return;
    shard_decoder_free(t->decoder);
    free(t->pieces);
    free(t->run);
    free(t);
}

/* Copy tokens [begin, begin + n) of a shard into t->run. */
static int read_run(struct sampler_thread *t, int64_t shard, uint64_t begin, int64_t n, struct plm_status *st)
{
    struct sampler *s = t->sampler;
    const struct shard_info *info = shard_information(s->shards[shard]);
    for (int64_t done = 0; done < n;) {
        int64_t chunk = (int64_t)(begin + (uint64_t)done) / info->chunk_tokens;
        int64_t at = (int64_t)(begin + (uint64_t)done) % info->chunk_tokens;
        int64_t take = info->chunk_tokens - at < n - done ? info->chunk_tokens - at : n - done;
        const void *tokens;
        int code = chunk_cache_acquire(s->cache, shard, chunk, t->decoder, &tokens, st);
        if (code)
            return code;
        if (info->token_bytes == 2)
            for (int64_t i = 0; i < take; i++)
                t->run[done + i] = ((const uint16_t *)tokens)[at + i];
        else
            for (int64_t i = 0; i < take; i++)
                t->run[done + i] = (int32_t)((const uint32_t *)tokens)[at + i];
        chunk_cache_release(s->cache, shard, chunk);
        done += take;
    }
    return PLM_OK;
}

/* Look the sample up: its shard and, copied to t->pieces, its pieces. */
static int locate(struct sampler_thread *t, int64_t sample, int64_t *shard, int64_t *n_pieces, struct plm_status *st)
{
    struct sampler *s = t->sampler;
    struct order_place place;
    const struct packing *p;
    pthread_mutex_lock(&s->lock);
    int code = order_locate(s->order, sample, &place, st);
    if (!code)
        code = corpus_packing(&s->sources[place.source], place.window, &p, st);
    if (!code) {
        const int64_t *begin = p->row_begin + place.row;
        *n_pieces = begin[1] - begin[0];
        memcpy(t->pieces, p->pieces + begin[0], (size_t)*n_pieces * sizeof *t->pieces);
        *shard = s->first_shard[place.source] + s->sources[place.source].windows[place.window].shard;
    }
    pthread_mutex_unlock(&s->lock);
    return code;
}

static int fill_row(struct sampler_thread *t, int64_t sample, struct batch *b, int row, struct plm_status *st)
{
    int64_t shard, n_pieces, base = (int64_t)row * b->seq_len;
    int code = locate(t, sample, &shard, &n_pieces, st);
    if (code)
        return code;
    int32_t *tokens = b->tokens + base, *targets = b->targets + base, *doc_start = b->doc_start + base;
    float *weight = b->weight + base;
    int column = 0;
    for (int64_t i = 0; i < n_pieces; i++) {
        const struct piece *p = &t->pieces[i];
        code = read_run(t, shard, p->begin, p->length + 1, st);
        if (code)
            return code;
        memcpy(tokens + p->column, t->run, (size_t)p->length * sizeof *tokens);
        memcpy(targets + p->column, t->run + 1, (size_t)p->length * sizeof *targets);
        column = p->column + p->length;
        for (int j = p->column; j < column; j++) {
            weight[j] = 1;
            doc_start[j] = p->column;
        }
    }
    int64_t eos = shard_information(t->sampler->shards[shard])->eos_id;
    for (int j = column; j < b->seq_len; j++) {
        tokens[j] = eos >= 0 ? (int32_t)eos : 0;
        targets[j] = 0;
        weight[j] = 0;
        doc_start[j] = j;
    }
    return PLM_OK;
}

int sampler_fill(struct sampler_thread *t, int64_t first, struct batch *b, struct plm_status *st)
{
    int code = PLM_OK;
    for (int row = 0; !code && row < b->rows; row++)
        code = fill_row(t, first + row, b, row, st);
    return code;
}

int sampler_usage(struct sampler *s, int source, int64_t n_samples, struct stream_usage *out, struct plm_status *st)
{
    *out = (struct stream_usage){0};
    if (source < 0 || source >= s->n_sources)
        return status_set(st, PLM_EINVAL, "the mixture has %d sources, not a source %d", s->n_sources, source);
    int64_t *counts = malloc((size_t)s->n_sources * sizeof *counts);
    if (!counts)
        return status_no_memory(st, (size_t)s->n_sources * sizeof *counts, "the usage of the sources");
    pthread_mutex_lock(&s->lock);
    int code = order_counts(s->order, n_samples, counts, st);
    pthread_mutex_unlock(&s->lock);
    if (!code) {
        const struct corpus *c = &s->sources[source];
        *out = (struct stream_usage){c->n_rows, c->n_inputs, counts[source], (double)counts[source] / (double)c->n_rows};
    }
    free(counts);
    return code;
}
