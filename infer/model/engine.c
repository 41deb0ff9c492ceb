#include "infer/model/engine.h"

#include <stdlib.h>
#include <string.h>

#include "infer/cache/column_sums.h"
#include "infer/model/decode.h"
#include "infer/model/sequence.h"

#define PREFILL_CHUNK 256 /* tokens a prefill takes through the layers at once: bounds the activations */

struct engine {
    const struct plm_model *model;
    const struct ops *ops;
    struct thread_pool *pool;
    struct arena arena;
    int64_t context, max_batch;
    bool policies;
    struct rope_table rope;
    struct decode_buffers decode;
    struct decode_row *rows;          /* (max_batch) */
    float *batch_logits;              /* (max_batch, V) */
    struct layer_activations prefill; /* every layer uses these; x, mid and the layer's output are one buffer */
    float *keys;                      /* (context, L) latents of one layer as float32: the cache's, then the chunk's */
    float *normed;                    /* (PREFILL_CHUNK, d) final norm */
    void *attention_scratch;
    void *column_scratch;             /* NULL without policies */
};

static void engine_layout(struct engine *e)
{
    const struct model_config *c = &e->model->config;
    const size_t d = (size_t)c->hidden_size, f = sizeof(float), heads = (size_t)c->num_attention_heads;
    const int64_t chunk = e->context < PREFILL_CHUNK ? e->context : PREFILL_CHUNK;
    const size_t rows = (size_t)(chunk > e->max_batch ? chunk : e->max_batch);
    struct arena *arena = &e->arena;
    rope_table_layout(&e->rope, c, e->context, arena);
    decode_buffers_layout(&e->decode, c, e->ops, e->max_batch, e->context, pool_size(e->pool), arena);
    e->rows = arena_alloc(arena, (size_t)e->max_batch, sizeof *e->rows);
    e->batch_logits = arena_alloc(arena, (size_t)e->max_batch * (size_t)c->vocab_size, f);
    struct layer_activations *l = &e->prefill;
    l->x = l->mid = arena_alloc(arena, (size_t)chunk * d, f);
    l->a = l->b = arena_alloc(arena, (size_t)chunk * d, f);
    l->q = arena_alloc(arena, (size_t)chunk * heads * (size_t)model_qk_head_dim(c), f);
    l->kv_a = arena_alloc(arena, (size_t)chunk * (size_t)model_latent_dim(c), f);
    l->kv = arena_alloc(arena, (size_t)e->context * heads * (size_t)(c->qk_nope_head_dim + c->v_head_dim), f);
    l->attn = arena_alloc(arena, (size_t)chunk * heads * (size_t)c->v_head_dim, f);
    l->u = l->m = arena_alloc(arena, (size_t)chunk * (size_t)c->intermediate_size, f);
    e->keys = arena_alloc(arena, (size_t)e->context * (size_t)model_latent_dim(c), f);
    e->normed = arena_alloc(arena, rows * d, f);
    e->attention_scratch = arena_alloc(arena, attention_scratch_bytes(e->ops, e->context, pool_size(e->pool)), 1);
    if (e->policies) {
        const struct kv_shape widest = {.content = c->kv_lora_rank, .rotary = c->qk_rope_head_dim, .type = DTYPE_F32, .rope_theta = c->rope_theta};
        const struct policy_options merging = policy_options_default(POLICY_D2O_COUNT);
        l->lse = arena_alloc(arena, (size_t)chunk * heads, f);
        e->column_scratch = arena_alloc(arena, column_sums_scratch_bytes(e->ops, pool_size(e->pool)), 1);
        e->decode.policy_scratch = arena_alloc(arena, policy_scratch_bytes(&merging, &widest, e->context), 1);
    }
}

/* Everything up to the allocations. */
static int engine_prepare(struct engine *e, const struct plm_model *model, const struct engine_options *options, struct plm_status *st)
{
    const struct engine_options o = options ? *options : (struct engine_options){0};
    const int limit = model->config.max_position_embeddings;
    *e = (struct engine){.model = model, .ops = ops_select(OPS_BEST), .context = o.context ? o.context : limit, .max_batch = o.max_batch ? o.max_batch : 1,
        .policies = o.policies};
    if (o.context < 0 || o.context > limit)
        return status_set(st, PLM_ELIMIT, "a context of %lld positions was asked for, the model was trained for 1 to %d", (long long)o.context, limit);
    if (o.max_batch < 0 || o.max_batch > 1 << 16)
        return status_set(st, PLM_EINVAL, "a batch of %d sequences was asked for, expected 1 to %d", o.max_batch, 1 << 16);
    int code = pool_create(&e->pool, o.n_threads, st);
    if (!code)
        engine_layout(e);
    return code;
}

int engine_create(struct engine **out, const struct plm_model *model, const struct engine_options *options, struct plm_status *st)
{
    *out = NULL;
    struct engine *e = malloc(sizeof *e);
    if (!e)
        return status_no_memory(st, sizeof *e, "an engine");
    int code = engine_prepare(e, model, options, st);
    if (!code)
        code = arena_commit(&e->arena, 0, "the buffers of an engine (a smaller context or batch needs less)", st);
    if (code) {
        engine_destroy(e);
        return code;
    }
    engine_layout(e);
    rope_table_fill(&e->rope, &model->config);
    *out = e;
    return PLM_OK;
}

int engine_measure(const struct plm_model *model, const struct engine_options *options, const struct sequence_options *sequence, size_t *engine_bytes,
                   size_t *sequence_bytes, struct plm_status *st)
{
    struct engine e;
    int code = engine_prepare(&e, model, options, st);
    *engine_bytes = e.arena.used;
    if (!code)
        code = sequence_measure(&e, sequence, sequence_bytes, st);
    pool_destroy(e.pool);
    return code;
}

void engine_destroy(struct engine *e)
{
    if (!e)
        return;
    pool_destroy(e->pool);
    arena_free(&e->arena);
    free(e);
}

size_t engine_bytes(const struct engine *e) { return e->arena.size; }

const struct plm_model *engine_model(const struct engine *e) { return e->model; }

int64_t engine_context(const struct engine *e) { return e->context; }

bool engine_policies(const struct engine *e) { return e->policies; }

static struct forward_pass pass_for(const struct engine *e, int64_t n, int64_t past)
{
    return (struct forward_pass){.config = &e->model->config, .weights = &e->model->weights, .ops = e->ops, .pool = e->pool, .rope = &e->rope,
        .precision = PRECISION_HIGH, .n_seq = 1, .q_len = n, .past = past, .attention_scratch = e->attention_scratch, .max_keys = e->context};
}

static void head(const struct engine *e, const float *x, int64_t rows, float *logits)
{
    const struct forward_pass f = pass_for(e, rows, 0);
    const int64_t d = e->model->config.hidden_size;
    forward_rms_norm(&f, e->normed, d, NULL, x, d, &e->model->weights.final_norm, rows);
    forward_linear(&f, logits, e->model->config.vocab_size, e->normed, d, &e->model->weights.embed, rows, false);
}

/* Take n <= PREFILL_CHUNK tokens of one sequence through the layers; the residual stream stays in e->prefill.x. */
static void prefill_chunk(struct engine *e, struct sequence *s, const int32_t *tokens, int64_t n)
{
    const struct model_config *c = &e->model->config;
    const int64_t past = s->length, rank = c->kv_lora_rank, latent = model_latent_dim(c);
    const struct forward_pass f = pass_for(e, n, past);
    forward_embed(&f, tokens, n, e->prefill.x);
    for (int layer = 0; layer < c->num_hidden_layers; layer++) {
        struct kv_slots *slots = &s->layers[layer];
        for (int64_t i = 0; i < past; i++)
            kv_read(slots, i, e->keys + i * latent, e->keys + i * latent + rank, NULL);
        e->prefill.latent = e->keys + past * latent;
        forward_layer(&f, layer, &e->prefill, e->keys, e->prefill.x);
        if (s->sums[layer]) {
            const struct attention a = forward_attention(&f, &e->prefill, e->keys);
            const struct column_sums sums = column_sums_of_attention(&a, 0);
            column_sums_add(&sums, e->ops, e->pool, e->column_scratch, s->sums[layer]);
        }
        for (int64_t i = past; i < past + n; i++)
            kv_append(slots, (int32_t)i, e->keys + i * latent, e->keys + i * latent + rank, NULL);
    }
    memcpy(s->tokens + past, tokens, (size_t)n * sizeof *tokens);
    s->length = past + n;
}

static int prefill(struct engine *e, const struct engine_item *item, struct plm_status *st)
{
    const int64_t vocab = e->model->config.vocab_size, d = e->model->config.hidden_size;
    for (int64_t at = 0; at < item->n;) {
        const int64_t n = item->n - at < PREFILL_CHUNK ? item->n - at : PREFILL_CHUNK;
        prefill_chunk(e, item->sequence, item->tokens + at, n);
        if (item->logits && item->all)
            head(e, e->prefill.x, n, item->logits + at * vocab);
        at += n;
        if (item->logits && !item->all && at == item->n)
            head(e, e->prefill.x + (n - 1) * d, 1, item->logits);
    }
    if (item->sequence->options.policy.policy == POLICY_FULL)
        return PLM_OK;
    int code = sequence_finish_prompt(item->sequence, e->ops, e->pool, e->decode.policy_scratch, st);
    if (code)
        sequence_truncate(item->sequence, 0, NULL);
    return code;
}

/* Do the item's tokens go through the cache one at a time? A prompt that a policy will compress is attended in full. */
static bool is_decoded(const struct engine_item *item)
{
    if (item->sequence->options.policy.policy != POLICY_FULL)
        return item->sequence->compressed;
    return item->n == 1 || item->decode;
}

/* Token number `at` of every item that is decoded and has one: one batch. Returns how many there were. */
static int64_t decode_tokens(struct engine *e, const struct engine_item *items, int n_items, int64_t at)
{
    const int64_t vocab = e->model->config.vocab_size;
    int64_t n = 0, wanted = 0;
    for (int i = 0; i < n_items; i++) {
        const struct engine_item *item = &items[i];
        if (is_decoded(item) && at < item->n) {
            const struct sequence *s = item->sequence;
            e->rows[n++] = (struct decode_row){item->tokens[at], (int32_t)s->length, s->layers, &s->options.policy, s->budgets};
            wanted += item->logits && (item->all || at + 1 == item->n);
        }
    }
    if (n == 0)
        return 0;
    const struct forward_pass f = pass_for(e, n, 0);
    decode_batch(&f, &e->decode, e->rows, n);
    if (wanted)
        head(e, e->decode.x, n, e->batch_logits);
    int64_t row = 0;
    for (int i = 0; i < n_items; i++) {
        const struct engine_item *item = &items[i];
        if (!is_decoded(item) || at >= item->n)
            continue;
        struct sequence *s = item->sequence;
        s->tokens[s->length++] = item->tokens[at];
        if (item->logits && (item->all || at + 1 == item->n))
            memcpy(item->logits + (item->all ? at * vocab : 0), e->batch_logits + row * vocab, (size_t)vocab * sizeof(float));
        row++;
    }
    return n;
}

static int check_item(const struct engine *e, const struct engine_item *item, int i, struct plm_status *st)
{
    const struct sequence *s = item->sequence;
    const int vocab = e->model->config.vocab_size;
    if (s->engine != e)
        return status_set(st, PLM_EINVAL, "item %d: the sequence belongs to another engine", i);
    if (item->n < 1)
        return status_set(st, PLM_EINVAL, "no tokens to append: an empty prompt gives the model nothing to continue");
    if (item->n > s->capacity - s->length)
        return status_set(st, PLM_ELIMIT, "%lld tokens after %lld do not fit into a context of %lld", (long long)item->n, (long long)s->length,
                          (long long)s->capacity);
    for (int64_t k = 0; k < item->n; k++)
        if (item->tokens[k] < 0 || item->tokens[k] >= vocab)
            return status_set(st, PLM_EINVAL, "token %lld is %d, the vocabulary has ids 0 to %d", (long long)k, (int)item->tokens[k], vocab - 1);
    return PLM_OK;
}

int engine_step(struct engine *e, const struct engine_item *items, int n_items, struct plm_status *st)
{
    int64_t decoded = 0;
    for (int i = 0; i < n_items; i++) {
        int code = check_item(e, &items[i], i, st);
        for (int k = 0; k < i && !code; k++)
            if (items[k].sequence == items[i].sequence)
                code = status_set(st, PLM_EINVAL, "items %d and %d are the same sequence", k, i);
        if (code)
            return code;
        decoded += is_decoded(&items[i]);
    }
    if (decoded > e->max_batch)
        return status_set(st, PLM_ELIMIT, "%lld sequences take single tokens in this step, the engine was made for %lld", (long long)decoded,
                          (long long)e->max_batch);
    /* Decode first: a prompt that its policy compresses would count as decoded afterwards. */
    for (int64_t at = 0; decode_tokens(e, items, n_items, at); at++)
        ;
    for (int i = 0; i < n_items; i++) {
        int code = is_decoded(&items[i]) ? PLM_OK : prefill(e, &items[i], st);
        if (code)
            return code;
    }
    return PLM_OK;
}
