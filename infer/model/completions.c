#include "infer/model/completions.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/clock.h"
#include "infer/model/sequence.h"
#include "infer/text/sampling.h"

enum {
    SPARSE_BATCH = 4,   /* batches that read neurons one by one */
    PACKED_BATCH = 8,   /* smaller ones read rows of the matrices as they are */
    BLOCK = 1024,       /* logits whose exponentials are added in single precision */
    WORTH_WAITING = 16, /* tokens: prompts are prefilled together, and one that waits for another is not */
};

struct slot {
    struct sequence *sequence;
    struct completion_request request;
    bool busy;
    bool pending;      /* its prompt is not in the cache yet */
    int64_t n, most;   /* tokens sampled, and how many may be */
    int code;          /* of the last draw */
    float *logits;     /* (V) that follow its sequence */
    int32_t *tokens;   /* (context) */
    float *log_probs;  /* (context) */
};

struct completer {
    const struct plm_model *model;
    const struct ops *ops;
    struct engine *engine;
    struct completer_options o;
    int64_t context;
    int32_t *end_tokens;
    struct arena arena;
    struct slot *slots;          /* (max_batch) */
    struct slot **busy;          /* (max_batch) those of this step */
    struct engine_item *items;   /* (max_batch) */
    struct completion_request *waiting; /* (max_batch) taken, but what they begin with is being prefilled for another */
    unsigned char *scratch;      /* (threads, V * 8) */
    struct completer_stats stats;
};

static void lay_out(struct completer *c)
{
    const size_t vocab = (size_t)c->model->config.vocab_size, batch = (size_t)c->o.max_batch, context = (size_t)c->context;
    struct slot *slots = arena_alloc(&c->arena, batch, sizeof *slots);
    c->busy = arena_alloc(&c->arena, batch, sizeof *c->busy);
    c->items = arena_alloc(&c->arena, batch, sizeof *c->items);
    c->waiting = arena_alloc(&c->arena, batch, sizeof *c->waiting);
    c->end_tokens = arena_alloc(&c->arena, (size_t)c->o.n_end_tokens, sizeof *c->end_tokens);
    c->scratch = arena_alloc(&c->arena, (size_t)pool_size(engine_pool(c->engine)), vocab * 8);
    c->slots = slots;
    for (size_t i = 0; i < batch; i++) {
        const struct slot s = {.logits = arena_alloc(&c->arena, vocab, sizeof *s.logits), .tokens = arena_alloc(&c->arena, context, sizeof *s.tokens),
                               .log_probs = arena_alloc(&c->arena, context, sizeof *s.log_probs)};
        if (slots)
            slots[i] = s;
    }
}

static int create(struct completer *c, struct plm_status *st)
{
    const struct engine_options eo = {.n_threads = c->o.n_threads, .max_batch = c->o.max_batch, .context = c->o.context,
                                      .dense = c->o.max_batch > SPARSE_BATCH, .packed = c->o.packed && !c->o.ops && c->o.max_batch > PACKED_BATCH,
                                      .ops = c->o.ops};
    int code = sampling_check(&c->o.sampling, st);
    if (!code && (c->o.max_batch < 1 || c->o.n_end_tokens < 0))
        code = status_set(st, PLM_EINVAL, "a batch of %d completions with %d ending tokens was asked for, expected 1 and 0 at least", c->o.max_batch,
                          c->o.n_end_tokens);
    if (!code)
        code = engine_create(&c->engine, c->model, &eo, st);
    if (code)
        return code;
    c->context = engine_context(c->engine);
    lay_out(c);
    code = arena_commit(&c->arena, 0, "the buffers of a batch of completions (a smaller batch or context needs less)", st);
    if (code)
        return code;
    lay_out(c);
    if (c->o.n_end_tokens)
        memcpy(c->end_tokens, c->o.end_tokens, (size_t)c->o.n_end_tokens * sizeof *c->end_tokens);
    for (int i = 0; i < c->o.max_batch && !code; i++)
        code = sequence_create(&c->slots[i].sequence, c->engine, NULL, st);
    return code;
}

int completer_create(struct completer **out, const struct plm_model *model, const struct completer_options *o, struct plm_status *st)
{
    *out = NULL;
    struct completer *c = malloc(sizeof *c);
    if (!c)
        return status_no_memory(st, sizeof *c, "completions");
    *c = (struct completer){.model = model, .ops = ops_select(OPS_BEST), .o = *o};
    int code = create(c, st);
    if (code) {
        completer_destroy(c);
        return code;
    }
    *out = c;
    return PLM_OK;
}

void completer_destroy(struct completer *c)
{
    if (!c)
        return;
    for (int i = 0; c->slots && i < c->o.max_batch; i++)
        sequence_destroy(c->slots[i].sequence);
    engine_destroy(c->engine);
    arena_free(&c->arena);
    free(c);
}

int64_t completer_context(const struct completer *c) { return c->context; }

struct completer_stats completer_stats(const struct completer *c) { return c->stats; }

/* ---- prompts ---- */

static int64_t in_common(const int32_t *a, int64_t n_a, const int32_t *b, int64_t n_b)
{
    const int64_t n = n_a < n_b ? n_a : n_b;
    int64_t i = 0;
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

/* The slot whose cache begins like the prompt for longest, and how long. A free one is preferred: its cache can be cut in place. */
static struct slot *find_source(struct completer *c, const struct completion_request *r, int64_t *common)
{
    struct slot *best = NULL;
    *common = -1;
    for (int i = 0; i < c->o.max_batch; i++) {
        struct slot *s = &c->slots[i];
        if (s->pending)
            continue;
        const int64_t n = in_common(sequence_tokens(s->sequence), sequence_length(s->sequence), r->prompt, r->n_prompt);
        if (n > *common || (n == *common && best->busy && !s->busy))
            best = s, *common = n;
    }
    return best;
}

/* Does a prompt that is about to be prefilled begin like this one, for much longer than what is there already? */
static bool worth_waiting(const struct completer *c, const struct completion_request *r, int64_t common)
{
    bool yes = false;
    for (int i = 0; i < c->o.max_batch && !yes; i++)
        yes = c->slots[i].pending && in_common(c->slots[i].request.prompt, c->slots[i].request.n_prompt, r->prompt, r->n_prompt) >= common + WORTH_WAITING;
    return yes;
}

/* Give the request a slot, with what is cached of its prompt. */
static int place(struct completer *c, const struct completion_request *r, struct slot *source, int64_t common, struct plm_status *st)
{
    struct slot *to = source->busy ? NULL : source;
    for (int i = 0; !to; i++)
        to = c->slots[i].busy ? NULL : &c->slots[i];
    const bool whole = common == r->n_prompt && sequence_length(source->sequence) == common; /* its logits are those of the prompt */
    const int64_t keep = whole || common < r->n_prompt ? common : common - 1;
    int code = to == source ? sequence_truncate(to->sequence, keep, st) : sequence_copy_first(to->sequence, source->sequence, keep, st);
    if (code)
        return code;
    if (whole && to != source)
        memcpy(to->logits, source->logits, (size_t)c->model->config.vocab_size * sizeof *to->logits);
    const int64_t room = c->context - r->n_prompt;
    to->request = *r;
    to->n = 0, to->most = r->max_tokens < room ? r->max_tokens : room;
    to->busy = true, to->pending = !whole;
    c->stats.prompt_tokens += r->n_prompt;
    c->stats.reused_tokens += keep;
    return PLM_OK;
}

static int prefill_pending(struct completer *c, struct plm_status *st)
{
    int n = 0;
    for (int i = 0; i < c->o.max_batch; i++) {
        struct slot *s = &c->slots[i];
        const int64_t kept = sequence_length(s->sequence);
        if (s->pending)
            c->items[n++] = (struct engine_item){.sequence = s->sequence, .tokens = s->request.prompt + kept, .n = s->request.n_prompt - kept,
                                                 .logits = s->logits};
        s->pending = false;
    }
    return n ? engine_step(c->engine, c->items, n, st) : PLM_OK;
}

static int check_request(const struct completer *c, const struct completion_request *r, struct plm_status *st)
{
    if (r->n_prompt < 1 || r->max_tokens < 1)
        return status_set(st, PLM_EINVAL, "a completion of at most %lld tokens after a prompt of %lld was asked for, expected at least one of each",
                          (long long)r->max_tokens, (long long)r->n_prompt);
    if (r->n_prompt >= c->context)
        return status_set(st, PLM_ELIMIT, "a prompt of %lld tokens leaves no room for an answer in a context of %lld", (long long)r->n_prompt,
                          (long long)c->context);
    return PLM_OK;
}

/* Take requests for the slots that are free. A prompt that begins like one before it waits until that is in a cache. */
static int refill(struct completer *c, const struct completion_source *source, struct plm_status *st)
{
    int free_slots = 0, n = 0, code = PLM_OK;
    for (int i = 0; i < c->o.max_batch; i++)
        free_slots += !c->slots[i].busy;
    while (n < free_slots && !code && source->next(source->ctx, &c->waiting[n]))
        code = check_request(c, &c->waiting[n++], st);
    while (n > 0 && !code) {
        int left = 0;
        for (int i = 0; i < n && !code; i++) {
            const struct completion_request r = c->waiting[i];
            int64_t common;
            struct slot *from = find_source(c, &r, &common);
            if (worth_waiting(c, &r, common))
                c->waiting[left++] = r;
            else
                code = place(c, &r, from, common, st);
        }
        n = left;
        if (!code)
            code = prefill_pending(c, st);
    }
    return code;
}

/* ---- tokens ---- */

/* ln of the probability of a token: logits are finite, sampling_draw has seen them. scratch: BLOCK floats. */
static float log_prob(const struct ops *ops, const float *logits, int vocab, int32_t token, float *scratch)
{
    const float top = ops->max(logits, vocab);
    double sum = 0;
    for (int i = 0; i < vocab; i += BLOCK)
        sum += (double)ops->exp_sum(scratch, logits + i, vocab - i < BLOCK ? vocab - i : BLOCK, 1, top);
    return (float)((double)logits[token] - (double)top - log(sum));
}

static int draw(const struct completer *c, struct slot *s, void *scratch, struct plm_status *st)
{
    struct plm_sampling sampling = c->o.sampling;
    const size_t length = (size_t)sequence_length(s->sequence);
    sampling.seed = s->request.seed;
    return sampling_draw(&sampling, s->logits, c->model->config.vocab_size, sequence_tokens(s->sequence), length, length, s->request.stream, scratch,
                         &s->tokens[s->n], st);
}

static void draw_some(void *ctx, int64_t begin, int64_t end, int worker)
{
    const struct completer *c = ctx;
    const int vocab = c->model->config.vocab_size;
    void *scratch = c->scratch + (size_t)worker * (size_t)vocab * 8;
    float block[BLOCK];
    for (int64_t i = begin; i < end; i++) {
        struct slot *s = c->busy[i];
        s->code = draw(c, s, scratch, NULL);
        if (!s->code)
            s->log_probs[s->n] = log_prob(c->ops, s->logits, vocab, s->tokens[s->n], block);
    }
}

static bool is_end(const struct completer *c, int32_t token)
{
    bool end = false;
    for (int i = 0; i < c->o.n_end_tokens; i++)
        end = end || c->end_tokens[i] == token;
    return end;
}

/* A token has been drawn: deliver the completion when it is the last. */
static int advance(struct completer *c, struct slot *s, const struct completion_source *source, struct plm_status *st)
{
    const int32_t token = s->tokens[s->n++];
    const bool ended = is_end(c, token);
    c->stats.generated++;
    int code = source->token ? source->token(source->ctx, &s->request, token, st) : PLM_OK;
    if (code || !(ended || s->n == s->most))
        return code;
    const struct completion done = {s->tokens, s->log_probs, s->n, ended ? COMPLETION_ENDED : COMPLETION_LIMIT};
    s->busy = false;
    return source->done(source->ctx, &s->request, &done, st);
}

/* The next token of every busy slot; those that go on take it into their sequence. *n: how many are busy. */
static int step(struct completer *c, const struct completion_source *source, int *n, struct plm_status *st)
{
    int n_items = 0, code = PLM_OK;
    *n = 0;
    for (int i = 0; i < c->o.max_batch; i++)
        if (c->slots[i].busy)
            c->busy[(*n)++] = &c->slots[i];
    pool_for(engine_pool(c->engine), *n, 1, draw_some, c);
    for (int i = 0; i < *n && !code; i++) {
        struct slot *s = c->busy[i];
        code = s->code ? draw(c, s, c->scratch, st) : advance(c, s, source, st); /* what failed fails again, with its message */
        if (s->busy)
            c->items[n_items++] = (struct engine_item){.sequence = s->sequence, .tokens = &s->tokens[s->n - 1], .n = 1, .logits = s->logits};
    }
    if (n_items && !code) {
        code = engine_step(c->engine, c->items, n_items, st);
        c->stats.steps++;
    }
    return code;
}

int completer_run(struct completer *c, const struct completion_source *source, struct plm_status *st)
{
    int code = PLM_OK;
    engine_pack(c->engine);
    for (int i = 0; i < c->o.max_batch && !code; i++) {
        c->slots[i].busy = c->slots[i].pending = false;
        code = sequence_truncate(c->slots[i].sequence, 0, st); /* of other weights, perhaps */
    }
    for (int n = 1; n && !code;) {
        const double begin = seconds_now();
        code = refill(c, source, st);
        const double filled = seconds_now();
        c->stats.prefill_s += filled - begin;
        if (!code)
            code = step(c, source, &n, st);
        c->stats.decode_s += seconds_now() - filled;
    }
    return code;
}
