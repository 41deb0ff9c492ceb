#include "infer/model/engine.h"

#include <stdlib.h>
#include <string.h>

#include "infer/model/decode.h"
#include "infer/model/neurons.h"
#include "infer/model/panels.h"
#include "infer/model/prefill.h"
#include "infer/model/sequence.h"

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
    struct prefill_buffers prefill;
    struct prefill_part *parts;       /* (max_batch) */
    const void *const *neurons;       /* (n_layer), the model's; NULL: dense */
    const struct model_weights *weights; /* the model's, or those of `panels` */
    struct panels *panels;            /* NULL: none */
    int64_t *active;                  /* (n_layer) active neurons of `computed` tokens */
    int64_t computed;
    float *normed;                    /* (PREFILL_CHUNK or max_batch, d) final norm: a buffer of the prefill */
};

static void engine_layout(struct engine *e)
{
    const struct model_config *c = &e->model->config;
    struct arena *arena = &e->arena;
    rope_table_layout(&e->rope, c, e->context, arena);
    decode_buffers_layout(&e->decode, c, e->ops, e->max_batch, e->context, pool_size(e->pool), arena);
    e->rows = arena_alloc(arena, (size_t)e->max_batch, sizeof *e->rows);
    e->batch_logits = arena_alloc(arena, (size_t)e->max_batch * (size_t)c->vocab_size, sizeof *e->batch_logits);
    prefill_buffers_layout(&e->prefill, c, e->ops, e->context, e->max_batch, e->policies, pool_size(e->pool), arena);
    e->parts = arena_alloc(arena, (size_t)e->max_batch, sizeof *e->parts);
    e->normed = e->prefill.act.a;
    e->active = arena_alloc(arena, (size_t)c->num_hidden_layers, sizeof *e->active);
    if (e->policies) {
        const struct kv_shape widest = {.content = c->kv_lora_rank, .rotary = c->qk_rope_head_dim, .type = DTYPE_F32, .rope_theta = c->rope_theta, .rope_scaling = c->rope_scaling};
        const struct policy_options merging = policy_options_default(POLICY_D2O_COUNT);
        e->decode.policy_scratch = arena_alloc(arena, policy_scratch_bytes(&merging, &widest, e->context), 1);
    }
}

/* Everything up to the allocations. */
static int engine_prepare(struct engine *e, const struct plm_model *model, const struct engine_options *options, struct plm_status *st)
{
    const struct engine_options o = options ? *options : (struct engine_options){0};
    const int limit = model->config.max_position_embeddings;
    *e = (struct engine){.model = model, .weights = &model->weights, .ops = o.ops ? o.ops : ops_select(OPS_BEST), .context = o.context ? o.context : limit, .max_batch = o.max_batch ? o.max_batch : 1,
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
    if (!code && model->neurons && !(options && options->dense))
        code = neurons_get(model, e->pool, &e->neurons, st);
    if (!code && options && options->packed && panels_create(&e->panels, &e->weights, model, e->ops, NULL))
        e->panels = NULL; /* no room: they only make it faster */
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
    *engine_bytes = e.arena.used + (model->neurons && !(options && options->dense) ? neurons_bytes(model) : 0);
    if (!code)
        code = sequence_measure(&e, sequence, sequence_bytes, st);
    pool_destroy(e.pool);
    return code;
}

void engine_destroy(struct engine *e)
{
    if (!e)
        return;
    panels_free(e->panels);
    pool_destroy(e->pool);
    arena_free(&e->arena);
    free(e);
}

void engine_pack(struct engine *e)
{
    if (e->panels)
        panels_fill(e->panels, e->pool);
}

size_t engine_bytes(const struct engine *e) { return e->arena.size; }

const struct plm_model *engine_model(const struct engine *e) { return e->model; }

void engine_activity(const struct engine *e, int layer, int64_t *active, int64_t *neurons)
{
    *active = e->active[layer];
    *neurons = e->computed * e->model->config.intermediate_size;
}

int64_t engine_context(const struct engine *e) { return e->context; }

struct thread_pool *engine_pool(const struct engine *e) { return e->pool; }

bool engine_policies(const struct engine *e) { return e->policies; }

static struct forward_pass pass_for(const struct engine *e, int64_t n, int64_t past)
{
    return (struct forward_pass){.config = &e->model->config, .weights = e->weights, .ops = e->ops, .pool = e->pool, .rope = &e->rope,
        .precision = PRECISION_FAST, .squares = PRECISION_HIGH, .neurons = e->neurons, .active = e->active, .n_seq = 1, .q_len = n, .past = past};
}

static void head(const struct engine *e, const float *x, int64_t rows, float *logits)
{
    const struct forward_pass f = pass_for(e, rows, 0);
    const int64_t d = e->model->config.hidden_size;
    forward_rms_norm(&f, e->normed, d, NULL, x, d, &e->weights->final_norm, rows);
    forward_linear(&f, logits, e->model->config.vocab_size, e->normed, d, &e->weights->embed, rows, false);
}

/* Do the item's tokens go through the cache one at a time? A prompt that a policy will compress is attended in full. */
static bool is_decoded(const struct engine_item *item)
{
    if (item->sequence->options.policy.policy != POLICY_FULL)
        return item->sequence->compressed;
    return item->n == 1 || item->decode;
}

/* The next tokens of items that are not decoded, of as many as one pass takes; a prompt that a policy will compress goes alone. Returns in
 * *n how many there were. */
static int prefill_tokens(struct engine *e, const struct engine_item *items, int n_items, int64_t *n, struct plm_status *st)
{
    const int64_t vocab = e->model->config.vocab_size, d = e->model->config.hidden_size;
    int64_t rows = 0;
    int n_parts = 0, code = PLM_OK;
    bool alone = false;
    for (int i = 0; i < n_items; i++) {
        struct sequence *s = items[i].sequence;
        const bool full = s->options.policy.policy == POLICY_FULL;
        const int64_t at = s->length - s->step_begin, left = is_decoded(&items[i]) ? 0 : items[i].n - at;
        const int64_t room = alone || n_parts == e->max_batch || (rows && !full) ? 0 : e->prefill.rows - rows;
        s->step_rows = left < room ? left : room;
        if (s->step_rows > 0)
            e->parts[n_parts++] = (struct prefill_part){items[i].tokens + at, s->step_rows, s->length, s->layers, s->sums};
        rows += s->step_rows;
        alone = alone || (s->step_rows > 0 && !full);
    }
    *n = rows;
    if (rows == 0)
        return PLM_OK;
    const struct forward_pass f = pass_for(e, rows, 0);
    e->computed += rows;
    prefill_chunk(&f, &e->prefill, e->parts, n_parts);
    const float *x = e->prefill.act.x;
    for (int i = 0; i < n_items && !code; i++) {
        const struct engine_item *item = &items[i];
        struct sequence *s = item->sequence;
        const int64_t at = s->length - s->step_begin, end = at + s->step_rows;
        if (s->step_rows == 0)
            continue;
        sequence_remember(s, item->tokens + at, s->step_rows);
        if (item->logits && item->all)
            head(e, x, s->step_rows, item->logits + at * vocab);
        else if (item->logits && end == item->n)
            head(e, x + (s->step_rows - 1) * d, 1, item->logits);
        x += s->step_rows * d;
        if (s->options.policy.policy != POLICY_FULL && end == item->n)
            code = sequence_finish_prompt(s, e->ops, e->pool, e->decode.policy_scratch, st);
        if (code)
            sequence_truncate(s, 0, NULL);
    }
    return code;
}

/* The next tokens of every item that is decoded, as one batch: one of each, and what room is left for more of those whose cache only
 * grows. Returns how many there were. */
static int64_t decode_tokens(struct engine *e, const struct engine_item *items, int n_items)
{
    const int64_t vocab = e->model->config.vocab_size;
    int64_t n = 0, spare = e->max_batch;
    bool wanted = false;
    for (int i = 0; i < n_items; i++)
        spare -= is_decoded(&items[i]) && items[i].sequence->length - items[i].sequence->step_begin < items[i].n;
    for (int i = 0; i < n_items; i++) {
        const struct engine_item *item = &items[i];
        struct sequence *s = item->sequence;
        const int64_t at = s->length - s->step_begin, left = is_decoded(item) ? item->n - at : 0;
        const int64_t more = s->options.policy.policy != POLICY_FULL || left < 1 ? 0 : left - 1 < spare ? left - 1 : spare;
        s->step_rows = left > 0 ? 1 + more : 0;
        spare -= more;
        for (int64_t k = 0; k < s->step_rows; k++)
            e->rows[n++] = (struct decode_row){item->tokens[at + k], (int32_t)(s->length + k), s->layers, &s->options.policy, s->budgets};
        wanted = wanted || (item->logits && s->step_rows && (item->all || s->step_rows == left));
    }
    if (n == 0)
        return 0;
    const struct forward_pass f = pass_for(e, n, 0);
    e->computed += n;
    decode_batch(&f, &e->decode, e->rows, n);
    if (wanted)
        head(e, e->decode.x, n, e->batch_logits);
    const float *logits = e->batch_logits;
    for (int i = 0; i < n_items; i++) {
        const struct engine_item *item = &items[i];
        struct sequence *s = item->sequence;
        for (int64_t k = 0; k < s->step_rows; k++, logits += vocab) {
            const int64_t at = s->length - s->step_begin;
            sequence_remember(s, &item->tokens[at], 1);
            if (item->logits && (item->all || at + 1 == item->n))
                memcpy(item->logits + (item->all ? at * vocab : 0), logits, (size_t)vocab * sizeof *logits);
        }
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
    if (item->n > sequence_room(s))
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
    for (int i = 0; i < n_items; i++)
        items[i].sequence->step_begin = items[i].sequence->length;
    while (decode_tokens(e, items, n_items))
        ;
    int code = PLM_OK;
    for (int64_t n = 1; n > 0 && !code;)
        code = prefill_tokens(e, items, n_items, &n, st);
    return code;
}
