#include "infer/model/session.h"

#include <stdlib.h>
#include <string.h>

#include "infer/model/engine.h"
#include "infer/model/lookup.h"
#include "infer/text/sampling.h"

struct plm_session {
    const struct plm_model *model;
    struct engine *engine;
    struct sequence *sequence;
    float *logits;          /* (V) */
    bool has_logits;
    void *sampling_scratch; /* V * 8 bytes */
    struct lookup *lookup;  /* NULL: no drafts */
};

int sequence_options_by_name(struct sequence_options *so, const struct plm_session_options *o, struct plm_status *st)
{
    const enum cache_policy policy = cache_policy_by_name(o->cache_policy ? o->cache_policy : "full");
    const enum dtype type = dtype_by_name(o->cache_type ? o->cache_type : "f32");
    if (policy == POLICY_COUNT)
        return status_set(st, PLM_EINVAL, "no cache policy '%s': expected full, streaming, h2o, d2o or d2o+count", o->cache_policy);
    if (type == DTYPE_COUNT)
        return status_set(st, PLM_EINVAL, "no cache type '%s': expected f32, f16 or q8_0", o->cache_type);
    *so = (struct sequence_options){.type = type, .policy = policy_options_default(policy), .budget = o->cache_budget, .share = o->cache_share};
    if (o->cache_batch)
        so->policy.batch = o->cache_batch;
    return PLM_OK;
}

int plm_session_open(struct plm_session **out, const struct plm_model *model, const struct plm_session_options *options,
                     struct plm_status *st)
{
    const struct plm_session_options o = options ? *options : (struct plm_session_options){0};
    struct sequence_options so;
    *out = NULL;
    int code = sequence_options_by_name(&so, &o, st);
    if (code)
        return code;
    const struct engine_options eo = {.n_threads = o.n_threads, .max_batch = lookup_batch(o.lookup), .context = o.context, .dense = o.dense, .policies = so.policy.policy != POLICY_FULL};
    if (o.lookup < 0 || o.lookup > 64 || (o.lookup && eo.policies))
        return status_set(st, PLM_EINVAL, "drafts of %d tokens were asked for, expected 0 to 64, and none with a cache policy: what it evicts for a "
                          "wrong draft is gone", o.lookup);
    const size_t vocab = (size_t)model->config.vocab_size;
    struct plm_session *s = calloc(1, sizeof *s);
    if (!s)
        return status_no_memory(st, sizeof *s, "a session");
    s->model = model;
    s->logits = malloc(vocab * sizeof *s->logits);
    s->sampling_scratch = malloc(vocab * 8);
    code = s->logits && s->sampling_scratch ? PLM_OK : status_no_memory(st, vocab * 12, "a session");
    if (!code)
        code = engine_create(&s->engine, model, &eo, st);
    if (!code)
        code = sequence_create(&s->sequence, s->engine, &so, st);
    if (!code && o.lookup) {
        s->lookup = calloc(1, sizeof *s->lookup);
        code = s->lookup ? lookup_create(s->lookup, o.lookup, (int)vocab, st) : status_no_memory(st, sizeof *s->lookup, "drafts");
    }
    if (code) {
        plm_session_close(s);
        return code;
    }
    *out = s;
    return PLM_OK;
}

void plm_session_close(struct plm_session *s)
{
    if (!s)
        return;
    sequence_destroy(s->sequence);
    engine_destroy(s->engine);
    free(s->logits);
    free(s->sampling_scratch);
    if (s->lookup)
        lookup_release(s->lookup);
    free(s->lookup);
    free(s);
}

size_t session_bytes(const struct plm_session *s) { return engine_bytes(s->engine) + sequence_bytes(s->sequence); }

int session_append_logits(struct plm_session *s, const int32_t *tokens, size_t n, bool decode, float *logits, struct plm_status *st)
{
    const size_t vocab = (size_t)s->model->config.vocab_size;
    const struct engine_item item = {.sequence = s->sequence, .tokens = tokens, .n = n > INT64_MAX ? INT64_MAX : (int64_t)n, .decode = decode,
        .all = logits != NULL, .logits = logits ? logits : s->logits};
    int code = engine_step(s->engine, &item, 1, st);
    if (code)
        return code;
    if (logits)
        memcpy(s->logits, logits + (n - 1) * vocab, vocab * sizeof *logits);
    s->has_logits = true;
    return PLM_OK;
}

int plm_session_append(struct plm_session *s, const int32_t *tokens, size_t n, struct plm_status *st)
{
    return session_append_logits(s, tokens, n, false, NULL, st);
}

int plm_session_append_drafted(struct plm_session *s, int32_t token, const struct plm_sampling *sampling, int32_t *next, size_t capacity, size_t *n,
                               struct plm_status *st)
{
    int64_t accepted = 0;
    *n = 0;
    if (!s->lookup)
        return plm_session_append(s, &token, 1, st);
    int code = lookup_append(s->lookup, s->engine, s->sequence, sampling, token, capacity > INT32_MAX ? INT32_MAX : (int64_t)capacity, &accepted, st);
    if (code)
        return code;
    const size_t vocab = (size_t)s->model->config.vocab_size;
    *n = (size_t)accepted;
    if (accepted)
        memcpy(next, s->lookup->tokens + 1, *n * sizeof *next);
    memcpy(s->logits, s->lookup->logits + *n * vocab, vocab * sizeof *s->logits);
    s->has_logits = true;
    return PLM_OK;
}

void plm_session_drafts(const struct plm_session *s, int64_t *drafted, int64_t *accepted)
{
    *drafted = s->lookup ? s->lookup->drafted : 0;
    *accepted = s->lookup ? s->lookup->accepted : 0;
}

int plm_session_save(const struct plm_session *s, const char *path, struct plm_status *st) { return sequence_save(s->sequence, path, st); }

int plm_session_load(struct plm_session *s, const char *path, struct plm_status *st)
{
    int code = sequence_load(s->sequence, path, st);
    s->has_logits = s->has_logits && code;
    return code;
}

const int32_t *plm_session_tokens(const struct plm_session *s, size_t *n)
{
    *n = (size_t)sequence_held(s->sequence);
    return sequence_tokens(s->sequence);
}

const float *plm_session_logits(const struct plm_session *s) { return s->has_logits ? s->logits : NULL; }

size_t plm_session_length(const struct plm_session *s) { return (size_t)sequence_length(s->sequence); }

int plm_session_truncate(struct plm_session *s, size_t n, struct plm_status *st)
{
    const size_t length = plm_session_length(s);
    int code = sequence_truncate(s->sequence, n > INT64_MAX ? INT64_MAX : (int64_t)n, st);
    if (!code)
        s->has_logits = s->has_logits && n == length;
    return code;
}

struct plm_sampling plm_sampling_default(void)
{
    return (struct plm_sampling){.temperature = 0.8f, .top_p = 0.95f, .repetition_penalty = 1};
}

int plm_session_sample(struct plm_session *s, const struct plm_sampling *sampling, int32_t *token, struct plm_status *st)
{
    if (!s->has_logits)
        return status_set(st, PLM_EINVAL, "nothing to sample from: append tokens first");
    size_t n;
    const int32_t *tokens = plm_session_tokens(s, &n);
    return sampling_draw(sampling, s->logits, s->model->config.vocab_size, tokens, n, plm_session_length(s), 0, s->sampling_scratch, token, st);
}
