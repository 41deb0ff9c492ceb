#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/ops/ops.h"
#include "tools/eval_kv.h"

enum { TARGET_BATCH = 64 }; /* sequences in a batch: more make a small model no faster */
enum { BLOCK = 1024 };      /* exponentials that are added in single precision */

int kv_method_parse(struct kv_method *m, const char *name, enum dtype type, struct plm_status *st)
{
    char part[64];
    const size_t length = strcspn(name, ":");
    *m = (struct kv_method){.name = name, .type = type};
    snprintf(part, sizeof part, "%.*s", (int)(length < sizeof part ? length : sizeof part - 1), name);
    const enum cache_policy policy = cache_policy_by_name(part);
    if (policy == POLICY_COUNT)
        return status_set(st, PLM_EINVAL, "the policy is '%s', expected full, streaming, h2o, d2o or d2o+count", part);
    m->policy = policy_options_default(policy);
    for (const char *p = name + length; *p;) {
        const size_t n = strcspn(++p, ":");
        snprintf(part, sizeof part, "%.*s", (int)(n < sizeof part ? n : sizeof part - 1), p);
        const enum dtype t = !strcasecmp(part, "f32")    ? DTYPE_F32
                             : !strcasecmp(part, "f16")  ? DTYPE_F16
                             : !strcasecmp(part, "q8_0") ? DTYPE_Q8_0
                                                     : DTYPE_COUNT;
        if (t != DTYPE_COUNT)
            m->type = t;
        else if (!strcmp(part, "uniform") && policy_merges(policy))
            m->policy.temperature = 1e6f; /* a softmax over layers that is flat */
        else if (!strcmp(part, "ungated") && policy_merges(policy))
            m->policy.gate = false;
        else
            return status_set(st, PLM_EINVAL, "'%s' of method '%s' is unknown: expected f32, f16 or q8_0%s", part, name,
                              policy_merges(policy) ? ", uniform or ungated" : "");
        p += n;
    }
    return PLM_OK;
}

/* Bytes of a slot: its vectors, its position, and what the method needs to know beside: the score; for merging the norm; for
 * counting the count and its logarithm. */
static size_t slot_bytes(const struct plm_model *model, const struct kv_method *m, enum dtype type)
{
    const struct kv_shape shape = {
        .content = model->config.kv_lora_rank, .rotary = model->config.qk_rope_head_dim, .type = type};
    const enum cache_policy p = m ? m->policy.policy : POLICY_FULL;
    return kv_row_bytes(&shape) + sizeof(int32_t) +
           sizeof(float) * (size_t)(policy_needs_scores(p) + policy_merges(p) + 2 * (p == POLICY_D2O_COUNT));
}

/* One cell of one item. */
struct lane {
    struct sequence *sequence;
    const struct kv_item *item;
    struct kv_score *score;
    int64_t *tokens; /* of the item; counted in the reference's lane only */
    bool right;      /* so far in this answer */
};

struct run {
    const struct plm_model *model;
    const struct ops *ops;
    struct engine *engine;
    const struct kv_cell *cells;
    int n_cells;
    enum dtype type;
    struct lane *lanes;        /* (group, n_cells) */
    struct engine_item *batch; /* (group * n_cells) */
    float *logits;             /* (group * n_cells, V) */
    float *p;                  /* (V) exp(l - max l) of the reference */
    float *scratch;            /* (V) */
};

static int create_sequence(struct run *r, const struct kv_cell *cell, const struct kv_item *item, struct lane *lane,
                           struct plm_status *st)
{
    const struct kv_method *m = cell->method;
    struct sequence_options o = {.capacity = (int64_t)item->n - 1, .type = m->type, .policy = m->policy};
    const size_t bytes = slot_bytes(r->model, m, m->type), layers = (size_t)r->model->config.num_hidden_layers;
    double slots = (double)(item->n - 1);
    if (cell->share > 0) {
        /* `batch` slots are in use beyond the budget until the victims go */
        slots = floor(cell->share * (double)item->prompt * (double)slot_bytes(r->model, NULL, r->type) / (double)bytes);
        o.budget = (int64_t)slots - m->policy.batch;
        if (o.budget < m->policy.min_budget)
            return status_set(
                st, PLM_EINVAL,
                "a budget of %.4g %% of a prompt of %zu tokens leaves %lld slots per layer to method %s, the minimum is %d: give a greater "
                "budget or longer prompts",
                100 * cell->share, item->prompt, (long long)(o.budget < 0 ? 0 : o.budget), m->name, m->policy.min_budget);
    }
    lane->score->bytes = slots * (double)(bytes * layers);
    return sequence_create(&lane->sequence, r->engine, &o, st);
}

/* ln sum exp(l), and y = exp(l - max l). NaN or infinite when a logit is. */
static double log_sum(const struct ops *ops, const float *l, float *y, int vocab)
{
    const float top = ops->max(l, vocab);
    double sum = 0;
    for (int i = 0; i < vocab; i += BLOCK)
        sum += (double)ops->exp_sum(y + i, l + i, vocab - i < BLOCK ? vocab - i : BLOCK, 1, top);
    return (double)top + log(sum);
}

static int likeliest(const float *l, int vocab)
{
    int best = 0;
    for (int i = 1; i < vocab; i++)
        best = l[i] > l[best] ? i : best;
    return best;
}

/* Score the prediction of token number `at` in all cells of an item whose logits are rows of `logits`. */
static int score_token(struct run *r, struct lane *lanes, const float *logits, size_t at, struct plm_status *st)
{
    const int vocab = r->model->config.vocab_size;
    const struct kv_item *item = lanes->item;
    const int32_t token = item->tokens[at], answer = item->answer ? item->answer[at] : 0;
    const double reference_sum = log_sum(r->ops, logits, r->p, vocab);
    const int reference_top = likeliest(logits, vocab);
    double mass = 0;
    for (int i = 0; i < vocab; i++)
        mass += (double)r->p[i];
    ++*lanes->tokens;
    for (int c = 0; c < r->n_cells; c++) {
        const float *l = logits + (size_t)c * (size_t)vocab;
        struct kv_score *s = lanes[c].score;
        const double sum = log_sum(r->ops, l, r->scratch, vocab);
        const int top = likeliest(l, vocab);
        double difference = 0;
        for (int i = 0; i < vocab; i++)
            difference += (double)(r->p[i] * (logits[i] - l[i]));
        if (!isfinite(sum + difference))
            return status_set(st, PLM_EFORMAT,
                              "the model's logits are not finite: its weights are damaged, or it diverged in training");
        s->kl += fmax(0, difference / mass - reference_sum + sum); /* rounding may leave it a little below zero */
        s->nats += sum - (double)l[token];
        s->same_top += top == reference_top;
        if (!answer)
            continue;
        lanes[c].right = (item->answer[at - 1] == answer ? lanes[c].right : true) && top == token;
        if (at + 1 == item->n || item->answer[at + 1] != answer) {
            s->answers++;
            s->correct += lanes[c].right;
        }
    }
    return PLM_OK;
}

static bool is_scored(const struct kv_item *item, size_t at)
{
    return at > item->prompt && at < item->n && (!item->answer || item->answer[at]);
}

/* Feed token number `at` to every item that has one after it, then score what was predicted. */
static int feed(struct run *r, size_t n_items, size_t offset, struct plm_status *st)
{
    const size_t vocab = (size_t)r->model->config.vocab_size, cells = (size_t)r->n_cells;
    int n = 0;
    for (size_t i = 0; i < n_items; i++) {
        const struct kv_item *item = r->lanes[i * cells].item;
        const size_t at = item->prompt + offset;
        for (size_t c = 0; c < cells && at + 1 < item->n; c++)
            r->batch[n++] = (struct engine_item){.sequence = r->lanes[i * cells + c].sequence,
                                                 .tokens = item->tokens + at,
                                                 .n = 1,
                                                 .decode = true,
                                                 .logits = is_scored(item, at + 1) ? r->logits + (i * cells + c) * vocab
                                                                                   : NULL};
    }
    int code = engine_step(r->engine, r->batch, n, st);
    for (size_t i = 0; i < n_items && !code; i++)
        if (is_scored(r->lanes[i * cells].item, r->lanes[i * cells].item->prompt + offset + 1))
            code = score_token(r, r->lanes + i * cells, r->logits + i * cells * vocab,
                               r->lanes[i * cells].item->prompt + offset + 1, st);
    return code;
}

static int run_group(struct run *r, const struct kv_item *items, size_t n_items, struct kv_score *scores, int64_t *tokens,
                     struct plm_status *st)
{
    const size_t cells = (size_t)r->n_cells;
    size_t longest = 0;
    int code = PLM_OK;
    memset(r->lanes, 0, n_items * cells * sizeof *r->lanes);
    for (size_t k = 0; k < n_items * cells && !code; k++) {
        const struct kv_item *item = &items[k / cells];
        struct lane *lane = &r->lanes[k];
        *lane = (struct lane){.item = item, .score = &scores[k], .tokens = &tokens[k / cells]};
        longest = item->n - 1 - item->prompt > longest ? item->n - 1 - item->prompt : longest;
        code = create_sequence(r, &r->cells[k % cells], item, lane, st);
        if (!code)
            code = engine_step(
                r->engine,
                &(struct engine_item){.sequence = lane->sequence, .tokens = item->tokens, .n = (int64_t)item->prompt}, 1, st);
    }
    for (size_t offset = 0; offset < longest && !code; offset++)
        code = feed(r, n_items, offset, st);
    for (size_t k = 0; k < n_items * cells; k++)
        sequence_destroy(r->lanes[k].sequence);
    return code;
}

int kv_run(const struct plm_model *model, int n_threads, const struct kv_cell *cells, int n_cells, enum dtype type,
           const struct kv_item *items, size_t n_items, struct kv_score *scores, int64_t *tokens, struct plm_status *st)
{
    struct run r = {.model = model, .ops = ops_select(OPS_BEST), .cells = cells, .n_cells = n_cells, .type = type};
    const size_t vocab = (size_t)model->config.vocab_size;
    size_t context = 1, group = (TARGET_BATCH + (size_t)n_cells - 1) / (size_t)n_cells;
    for (size_t i = 0; i < n_items; i++)
        context = items[i].n - 1 > context ? items[i].n - 1 : context; /* the last token is not fed */
    group = group < n_items ? group : n_items;
    const size_t lanes = group * (size_t)n_cells;
    int code = engine_create(
        &r.engine, model,
        &(struct engine_options){
            .n_threads = n_threads, .max_batch = (int)lanes, .context = (int64_t)context, .policies = true},
        st);
    if (code)
        return code;
    r.lanes = malloc(lanes * sizeof *r.lanes);
    r.batch = malloc(lanes * sizeof *r.batch);
    r.logits = malloc(lanes * vocab * sizeof *r.logits);
    r.p = malloc(vocab * sizeof *r.p);
    r.scratch = malloc(vocab * sizeof *r.scratch);
    if (!r.lanes || !r.batch || !r.logits || !r.p || !r.scratch)
        code = status_no_memory(st, lanes * vocab * sizeof *r.logits, "logits");
    for (size_t i = 0; i < n_items && !code; i += group)
        code = run_group(&r, items + i, n_items - i < group ? n_items - i : group, scores + i * (size_t)n_cells, tokens + i,
                         st);
    engine_destroy(r.engine);
    free(r.lanes);
    free(r.batch);
    free(r.logits);
    free(r.p);
    free(r.scratch);
    return code;
}
