#include "tools/generation.h"

#include <stdlib.h>
#include <string.h>

#include "infer/text/sampling.h"
#include "tools/arguments.h"
#include "tools/log_prob.h"

int generation_open(struct generation *g, const struct plm_model *model, const struct generation_options *o, struct plm_status *st)
{
    const int vocab = model->config.vocab_size;
    const bool policies = o->sequence.policy.policy != POLICY_FULL;
    *g = (struct generation){.model = model, .o = o};
    const struct engine_options eo = {.n_threads = o->n_threads, .context = o->context, .dense = o->dense, .policies = policies,
                                      .max_batch = o->samples > 1 ? o->samples : lookup_batch(o->lookup)};
    g->samples = calloc((size_t)o->samples, sizeof *g->samples);
    g->scratch = malloc(8 * (size_t)vocab);
    int code = g->samples && g->scratch ? PLM_OK : status_no_memory(st, (size_t)o->samples * sizeof *g->samples, "samples");
    if (!code && o->lookup)
        code = lookup_create(&g->lookup, o->lookup, vocab, st);
    if (!code)
        code = engine_create(&g->engine, model, &eo, st);
    for (int i = 0; i < o->samples && !code; i++) {
        struct sample *s = &g->samples[i];
        s->text = (struct stop_text){.stops = o->stops, .n_stops = o->n_stops};
        s->logits = malloc((size_t)vocab * sizeof *s->logits);
        code = s->logits ? sequence_create(&s->sequence, g->engine, &o->sequence, st)
                         : status_no_memory(st, (size_t)vocab * sizeof *s->logits, "logits");
    }
    return code;
}

void generation_close(struct generation *g)
{
    for (int i = 0; g->samples && i < g->o->samples; i++) {
        struct sample *s = &g->samples[i];
        sequence_destroy(s->sequence);
        free(s->logits);
        stop_text_free(&s->text);
        free(s->tokens);
        free(s->log_probs);
        free(s->top);
        free(s->top_log_probs);
    }
    free(g->samples);
    free(g->scratch);
    lookup_release(&g->lookup);
    engine_destroy(g->engine);
}

static int grow(struct sample *s, size_t likeliest, struct plm_status *st)
{
    const size_t n = 2 * s->capacity + 64;
    void *tokens = realloc(s->tokens, n * sizeof *s->tokens), *log_probs = realloc(s->log_probs, n * sizeof *s->log_probs);
    void *top = realloc(s->top, (n * likeliest + 1) * sizeof *s->top);
    void *values = realloc(s->top_log_probs, (n * likeliest + 1) * sizeof *s->top_log_probs);
    s->tokens = tokens ? tokens : s->tokens;
    s->log_probs = log_probs ? log_probs : s->log_probs;
    s->top = top ? top : s->top;
    s->top_log_probs = values ? values : s->top_log_probs;
    if (!tokens || !log_probs || !top || !values)
        return status_no_memory(st, n * (likeliest + 1) * 16, "the tokens");
    s->capacity = n;
    return PLM_OK;
}

static int keep_token(const struct generation *g, struct sample *s, int32_t token, const float *logits, struct plm_status *st)
{
    const int vocab = g->model->config.vocab_size, k = g->o->logprobs > 0 ? g->o->logprobs : 0;
    double normaliser = 0;
    int code = s->n == s->capacity ? grow(s, (size_t)k, st) : PLM_OK;
    if (code)
        return code;
    s->tokens[s->n] = token;
    if (g->o->logprobs < 0)
        return PLM_OK;
    code = log_prob_normaliser(logits, vocab, &normaliser, st);
    s->log_probs[s->n] = (double)logits[token] - normaliser;
    int32_t *top = s->top + s->n * (size_t)k;
    log_prob_top(logits, vocab, k, top);
    for (int i = 0; i < k; i++)
        s->top_log_probs[s->n * (size_t)k + (size_t)i] = (double)logits[top[i]] - normaliser;
    return code;
}

/* Show what is certain of the text, or all of it at the end. */
static int show(struct generation *g, struct sample *s, struct plm_status *st)
{
    if (!g->o->out)
        return PLM_OK;
    const size_t n = s->finish ? s->text.length : stop_text_certain(&s->text);
    int code = text_stream_put(&g->shown, g->o->out, s->text.data, n, st);
    if (!code && s->finish)
        code = text_stream_end(&g->shown, g->o->out, st);
    stop_text_drop(&s->text, n);
    return code;
}

/* A token was picked from these logits: record it, and see whether the sample ends with it. */
static int take(struct generation *g, struct sample *s, int32_t token, const float *logits, struct plm_status *st)
{
    const struct generation_options *o = g->o;
    const char *bytes;
    bool stopped = false;
    int code = o->keep ? keep_token(g, s, token, logits, st) : PLM_OK;
    s->n++;
    g->generated++;
    if (code)
        return code;
    if (plm_token_ends(g->model, token) && !o->ignore_eos) {
        s->finish = "eos";
    } else {
        const size_t n = plm_token_bytes(g->model, token, true, &bytes);
        const bool hidden = !o->special && plm_token_bytes(g->model, token, false, &bytes) == 0;
        code = stop_text_add(&s->text, bytes, n, hidden, &stopped, st);
        if (stopped)
            s->finish = "stop";
        else if (o->max_tokens && s->n >= (size_t)o->max_tokens)
            s->finish = "length";
        else if (*o->interrupted)
            s->finish = "interrupted";
    }
    if (!o->out && !o->keep) /* only ends that may begin a stop string */
        stop_text_drop(&s->text, stop_text_certain(&s->text));
    return code ? code : show(g, s, st);
}

static int pick(struct generation *g, int k, int32_t *token, struct plm_status *st)
{
    struct sample *s = &g->samples[k];
    const size_t length = (size_t)sequence_length(s->sequence), held = (size_t)sequence_held(s->sequence);
    int code = sampling_draw(&g->o->sampling, s->logits, g->model->config.vocab_size, sequence_tokens(s->sequence), held, length, (uint32_t)k,
                             g->scratch, token, st);
    if (!code)
        code = take(g, s, *token, s->logits, st);
    if (!code && !s->finish && sequence_room(s->sequence) == 0) {
        s->finish = "context";
        code = show(g, s, st);
    }
    return code;
}

/* The only sample, with drafts. */
static int append_drafted(struct generation *g, int32_t token, struct plm_status *st)
{
    struct sample *s = &g->samples[0];
    const int vocab = g->model->config.vocab_size;
    const int64_t before = sequence_length(s->sequence);
    const int64_t most = g->o->max_tokens ? g->o->max_tokens - (int64_t)s->n - 1 : g->o->lookup;
    int64_t n = 0, i = 0;
    int code = lookup_append(&g->lookup, g->engine, s->sequence, &g->o->sampling, token, most, &n, st);
    for (; i < n && !code && !s->finish; i++)
        code = take(g, s, g->lookup.tokens[1 + i], g->lookup.logits + i * vocab, st);
    if (!code && s->finish)
        return sequence_truncate(s->sequence, before + i, st); /* without the last token, as without drafts */
    memcpy(s->logits, g->lookup.logits + n * vocab, (size_t)vocab * sizeof *s->logits);
    return code;
}

static int generate(struct generation *g, struct plm_status *st)
{
    const double begin = seconds_now();
    const int samples = g->o->samples;
    struct engine_item *items = calloc((size_t)samples, sizeof *items);
    int32_t *tokens = malloc((size_t)samples * sizeof *tokens);
    int code = items && tokens ? PLM_OK : status_no_memory(st, (size_t)samples * sizeof *items, "a batch");
    for (int n = 1; n && !code;) {
        n = 0;
        for (int k = 0; k < samples && !code; k++) {
            struct sample *s = &g->samples[k];
            if (s->finish)
                continue;
            code = pick(g, k, &tokens[k], st);
            if (!s->finish)
                items[n++] = (struct engine_item){.sequence = s->sequence, .tokens = &tokens[k], .n = 1, .logits = s->logits};
        }
        if (n && !code)
            code = g->o->lookup ? append_drafted(g, tokens[0], st) : engine_step(g->engine, items, n, st);
    }
    g->decode_s += seconds_now() - begin;
    free(items);
    free(tokens);
    return code;
}

/* Cut a sample back to what it has in common with the prompt; one token at least is left to be appended. */
static int keep_prefix(struct generation *g, struct sequence *s, const int32_t *tokens, size_t n, struct plm_status *st)
{
    const size_t length = (size_t)sequence_length(s), held = (size_t)sequence_held(s);
    const int32_t *have = sequence_tokens(s);
    size_t keep = 0;
    while (held == length && keep < held && keep + 1 < n && have[keep] == tokens[keep])
        keep++;
    int code = sequence_truncate(s, (int64_t)keep, NULL);
    if (code) {
        keep = 0;
        code = sequence_truncate(s, 0, st);
    }
    g->reused += keep;
    return code;
}

static void start(struct generation *g, int n)
{
    g->n_prompt = g->reused = g->generated = 0;
    for (int i = 0; i < g->o->samples; i++) {
        g->samples[i].n = 0;
        stop_text_clear(&g->samples[i].text);
        g->samples[i].finish = i < n ? NULL : "unused";
    }
}

static int prefill(struct generation *g, struct sample *s, const int32_t *tokens, size_t n, struct plm_status *st)
{
    const double begin = seconds_now();
    const size_t before = g->reused;
    int code = keep_prefix(g, s->sequence, tokens, n, st);
    const size_t kept = g->reused - before;
    const struct engine_item item = {.sequence = s->sequence, .tokens = tokens + kept, .n = (int64_t)(n - kept), .logits = s->logits};
    if (!code)
        code = engine_step(g->engine, &item, 1, st);
    g->n_prompt += n;
    g->prefill_s += seconds_now() - begin;
    return code;
}

int generation_run(struct generation *g, const int32_t *tokens, size_t n, struct plm_status *st)
{
    const struct sample *first = &g->samples[0];
    g->prefill_s = g->decode_s = 0;
    start(g, g->o->samples);
    int code = prefill(g, &g->samples[0], tokens, n, st);
    for (int i = 1; i < g->o->samples && !code; i++) {
        code = sequence_copy(g->samples[i].sequence, first->sequence, st);
        memcpy(g->samples[i].logits, first->logits, (size_t)g->model->config.vocab_size * sizeof *first->logits);
    }
    return code ? code : generate(g, st);
}

static size_t in_common(const struct sequence *s, const struct token_list *prompt)
{
    size_t n = 0;
    while (n < (size_t)sequence_held(s) && n < prompt->length && sequence_tokens(s)[n] == prompt->data[n])
        n++;
    return n;
}

int generation_run_each(struct generation *g, const struct token_list *prompts, int n, struct plm_status *st)
{
    int code = PLM_OK;
    g->prefill_s = g->decode_s = 0;
    start(g, n);
    for (int i = 0; i < n && !code; i++) {
        struct sequence *own = g->samples[i].sequence, *first = g->samples[0].sequence;
        if (i > 0 && in_common(first, &prompts[i]) > in_common(own, &prompts[i])) /* the examples that all prompts begin with */
            code = sequence_copy(own, first, st);
        if (!code)
            code = prefill(g, &g->samples[i], prompts[i].data, prompts[i].length, st);
    }
    return code ? code : generate(g, st);
}
