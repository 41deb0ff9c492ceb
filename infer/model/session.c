#include "infer/model/session.h"

#include <stdlib.h>
#include <string.h>

#include "infer/model/decode.h"
#include "infer/model/model.h"
#include "infer/text/sampling.h"

#define PREFILL_CHUNK 256 /* tokens a prefill takes through the layers at once: bounds the activations */

struct plm_session {
    const struct plm_model *model;
    const struct ops *ops;
    struct thread_pool *pool;
    struct arena arena;
    struct latent_cache cache;
    struct rope_table rope;
    struct decode_buffers decode;
    struct layer_activations prefill; /* every layer uses these; x, mid and the layer's output are one buffer */
    float *normed;                    /* (PREFILL_CHUNK, d) final norm */
    float *logits;                    /* (V) */
    bool has_logits;
    int32_t *tokens;                  /* (capacity) */
    void *attention_scratch;
    void *sampling_scratch;           /* V * 8 bytes */
};

static void session_layout(struct plm_session *s, int64_t capacity)
{
    const struct model_config *c = &s->model->config;
    const size_t d = (size_t)c->hidden_size, f = sizeof(float);
    const int64_t chunk = capacity < PREFILL_CHUNK ? capacity : PREFILL_CHUNK;
    struct arena *arena = &s->arena;
    latent_cache_layout(&s->cache, c, capacity, arena);
    rope_table_layout(&s->rope, c, capacity, arena);
    decode_buffers_layout(&s->decode, c, capacity, arena);
    struct layer_activations *l = &s->prefill;
    l->x = l->mid = arena_alloc(arena, (size_t)chunk * d, f);
    l->a = l->b = arena_alloc(arena, (size_t)chunk * d, f);
    l->q = arena_alloc(arena, (size_t)chunk * (size_t)(c->num_attention_heads * model_qk_head_dim(c)), f);
    l->kv_a = arena_alloc(arena, (size_t)chunk * (size_t)model_latent_dim(c), f);
    l->kv = arena_alloc(arena, (size_t)capacity * (size_t)(c->num_attention_heads * (c->qk_nope_head_dim + c->v_head_dim)), f);
    l->attn = arena_alloc(arena, (size_t)chunk * (size_t)(c->num_attention_heads * c->v_head_dim), f);
    l->u = l->m = arena_alloc(arena, (size_t)chunk * (size_t)c->intermediate_size, f);
    s->normed = arena_alloc(arena, (size_t)chunk * d, f);
    s->logits = arena_alloc(arena, (size_t)c->vocab_size, f);
    s->tokens = arena_alloc(arena, (size_t)capacity, sizeof *s->tokens);
    s->attention_scratch = arena_alloc(arena, attention_scratch_bytes(s->ops, capacity, pool_size(s->pool)), 1);
    s->sampling_scratch = arena_alloc(arena, (size_t)c->vocab_size, 8);
}

int plm_session_open(struct plm_session **out, const struct plm_model *model, const struct plm_session_options *options,
                     struct plm_status *st)
{
    *out = NULL;
    struct plm_session_options o = options ? *options : (struct plm_session_options){0};
    int limit = model->config.max_position_embeddings;
    if (o.context == 0)
        o.context = limit;
    if (o.context < 1 || o.context > limit)
        return status_set(st, PLM_ELIMIT, "a context of %d positions was asked for, the model was trained for 1 to %d", o.context, limit);
    struct plm_session *s = calloc(1, sizeof *s);
    if (!s)
        return status_no_memory(st, sizeof *s, "a session");
    s->model = model;
    s->ops = ops_select(OPS_BEST);
    int code = pool_create(&s->pool, o.n_threads, st);
    if (!code) {
        session_layout(s, o.context);
        code = arena_commit(&s->arena, 0, "the cache and buffers of a session", st);
    }
    if (code) {
        plm_session_close(s);
        return code;
    }
    session_layout(s, o.context);
    rope_table_fill(&s->rope, &model->config);
    *out = s;
    return PLM_OK;
}

void plm_session_close(struct plm_session *s)
{
    if (!s)
        return;
    pool_destroy(s->pool);
    arena_free(&s->arena);
    free(s);
}

size_t session_bytes(const struct plm_session *s) { return s->arena.size; }

static struct forward_pass pass_for(const struct plm_session *s, int64_t n)
{
    return (struct forward_pass){.config = &s->model->config, .weights = &s->model->weights, .ops = s->ops, .pool = s->pool,
        .rope = &s->rope, .n_seq = 1, .q_len = n, .past = s->cache.length, .attention_scratch = s->attention_scratch,
        .max_keys = s->cache.capacity};
}

static void head(const struct plm_session *s, const struct forward_pass *f, const float *x, int64_t rows, float *logits)
{
    const int64_t d = s->model->config.hidden_size;
    forward_rms_norm(f, s->normed, d, NULL, x, d, &s->model->weights.final_norm, rows);
    forward_linear(f, logits, s->model->config.vocab_size, s->normed, d, &s->model->weights.embed, rows, false);
}

/* Take n <= PREFILL_CHUNK tokens through the layers; the residual stream stays in s->prefill.x. */
static void prefill_chunk(struct plm_session *s, const int32_t *tokens, int64_t n)
{
    const struct forward_pass f = pass_for(s, n);
    forward_embed(&f, tokens, n, s->prefill.x);
    for (int layer = 0; layer < s->model->config.num_hidden_layers; layer++) {
        s->prefill.latent = latent_cache_row(&s->cache, layer, s->cache.length);
        forward_layer(&f, layer, &s->prefill, latent_cache_row(&s->cache, layer, 0), s->prefill.x);
    }
}

int session_append_logits(struct plm_session *s, const int32_t *tokens, size_t n, bool decode, float *logits, struct plm_status *st)
{
    const struct model_config *c = &s->model->config;
    if (n == 0)
        return status_set(st, PLM_EINVAL, "no tokens to append: an empty prompt gives the model nothing to continue");
    if (n > (size_t)(s->cache.capacity - s->cache.length))
        return status_set(st, PLM_ELIMIT, "%zu tokens after %lld do not fit into a context of %lld", n, (long long)s->cache.length,
                          (long long)s->cache.capacity);
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= c->vocab_size)
            return status_set(st, PLM_EINVAL, "token %zu is %d, the vocabulary has ids 0 to %d", i, (int)tokens[i], c->vocab_size - 1);
    for (size_t at = 0; at < n;) {
        int64_t take = decode || n == 1 ? 1 : (int64_t)(n - at < PREFILL_CHUNK ? n - at : PREFILL_CHUNK);
        const struct forward_pass f = pass_for(s, take);
        const float *x = s->prefill.x;
        if (decode || n == 1) {
            decode_token(&f, &s->cache, &s->decode, tokens[at]);
            x = s->decode.x;
        } else {
            prefill_chunk(s, tokens + at, take);
        }
        memcpy(s->tokens + s->cache.length, tokens + at, (size_t)take * sizeof *tokens);
        s->cache.length += take;
        if (logits)
            head(s, &f, x, take, logits + (int64_t)at * c->vocab_size);
        at += (size_t)take;
        if (at == n && !logits)
            head(s, &f, x + (take - 1) * c->hidden_size, 1, s->logits);
    }
    if (logits)
        memcpy(s->logits, logits + (int64_t)(n - 1) * c->vocab_size, (size_t)c->vocab_size * sizeof *logits);
    s->has_logits = true;
    return PLM_OK;
}

int plm_session_append(struct plm_session *s, const int32_t *tokens, size_t n, struct plm_status *st)
{
    return session_append_logits(s, tokens, n, false, NULL, st);
}

const float *plm_session_logits(const struct plm_session *s) { return s->has_logits ? s->logits : NULL; }

size_t plm_session_length(const struct plm_session *s) { return (size_t)s->cache.length; }

int plm_session_truncate(struct plm_session *s, size_t n, struct plm_status *st)
{
    if (n > (size_t)s->cache.length)
        return status_set(st, PLM_EINVAL, "cannot cut a sequence of %lld tokens to %zu", (long long)s->cache.length, n);
    s->has_logits = s->has_logits && n == (size_t)s->cache.length;
    s->cache.length = (int64_t)n;
    return PLM_OK;
}

struct plm_sampling plm_sampling_default(void)
{
    return (struct plm_sampling){.temperature = 0.8f, .top_p = 0.95f, .repetition_penalty = 1};
}

int plm_session_sample(struct plm_session *s, const struct plm_sampling *sampling, int32_t *token, struct plm_status *st)
{
    if (!s->has_logits)
        return status_set(st, PLM_EINVAL, "nothing to sample from: append tokens first");
    return sampling_draw(sampling, s->logits, s->model->config.vocab_size, s->tokens, (size_t)s->cache.length,
                         (uint64_t)s->cache.length, 0, s->sampling_scratch, token, st);
}
