#include "tools/likelihood.h"

#include <stdlib.h>

#include "infer/model/model.h"
#include "tools/arguments.h"

enum { LOGITS_BYTES = 64 << 20, /* logits of all positions of a long window would be gigabytes */
       MAX_ROWS = 256,          /* more do not make a prefill faster */
       DECODE_ROWS = 32,        /* tokens up to which attention over the latents is cheaper than expanding the keys before them */
       LEAST_BRANCH = 256 };    /* slots of a branch */

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

int likelihood_open(struct likelihood *s, const struct plm_model *model, int context, int threads, int batch, struct plm_status *st)
{
    const int vocab = model->config.vocab_size;
    const size_t row = (size_t)vocab * sizeof *s->logits;
    *s = (struct likelihood){.batch = batch, .vocab = vocab, .context = (size_t)(context ? context : model->config.max_position_embeddings),
                         .rows = least(LOGITS_BYTES / row ? LOGITS_BYTES / row : 1, MAX_ROWS)};
    const struct engine_options o = {.n_threads = threads, .context = context, .max_batch = batch > DECODE_ROWS ? batch : DECODE_ROWS};
    int code = engine_create(&s->engine, model, &o, st);
    if (!code)
        code = sequence_create(&s->base, s->engine, NULL, st);
    if (code)
        return code;
    s->branch = calloc((size_t)batch, sizeof(struct sequence *));
    s->logits = malloc(s->rows * row);
    return s->branch && s->logits ? PLM_OK : status_no_memory(st, s->rows * row, "logits");
}

void likelihood_close(struct likelihood *s)
{
    for (int i = 0; i < s->batch && s->branch; i++)
        sequence_destroy(s->branch[i]);
    free(s->branch);
    free(s->logits);
    sequence_destroy(s->base);
    engine_destroy(s->engine);
}

/* Cut the base to what it has in common with the first `most` tokens. */
static int keep_prefix(struct likelihood *s, const int32_t *tokens, size_t most, struct plm_status *st)
{
    const int32_t *held = sequence_tokens(s->base);
    const size_t length = (size_t)sequence_length(s->base);
    size_t keep = 0;
    while (keep < length && keep < most && held[keep] == tokens[keep])
        keep++;
    s->reused += (int64_t)keep;
    return sequence_truncate(s->base, (int64_t)keep, st);
}

static int step(struct likelihood *s, const struct engine_item *items, int n, struct plm_status *st)
{
    const double start = seconds_now();
    const int code = n ? engine_step(s->engine, items, n, st) : PLM_OK;
    s->seconds += seconds_now() - start;
    for (int i = 0; i < n && !code; i++)
        s->fed += items[i].n;
    return code;
}

static int take_scores(struct likelihood *s, const struct score_request *r, size_t at, size_t n, const float *logits, struct plm_status *st)
{
    const double start = seconds_now();
    int code = PLM_OK;
    for (size_t i = 0; i < n && !code; i++)
        code = log_prob_score(logits + i * (size_t)s->vocab, s->vocab, r->tokens[at + i], &r->scores[at + i - r->from], st);
    s->seconds += seconds_now() - start;
    return code;
}

static int feed(struct likelihood *s, const int32_t *tokens, size_t n, struct plm_status *st)
{
    const size_t at = (size_t)sequence_length(s->base);
    return n > at ? step(s, &(struct engine_item){.sequence = s->base, .tokens = tokens + at, .n = (int64_t)(n - at)}, 1, st) : PLM_OK;
}

static int score_one(struct likelihood *s, const struct score_request *r, struct plm_status *st)
{
    int code = keep_prefix(s, r->tokens, r->from - 1, st);
    if (!code)
        code = feed(s, r->tokens, r->from - 1, st);
    for (size_t i = r->from; i < r->n && !code;) { /* the logits of token i come from token i - 1 */
        const size_t n = least(r->n - i, s->rows);
        const struct engine_item item = {.sequence = s->base, .tokens = r->tokens + i - 1, .n = (int64_t)n,
                                         .decode = r->n - r->from <= DECODE_ROWS, .all = true, .logits = s->logits};
        code = step(s, &item, 1, st);
        if (!code)
            code = take_scores(s, r, i, n, s->logits, st);
        i += n;
    }
    return code;
}

/* A branch that holds what the base holds, with room for `needed` tokens. */
static int branch_off(struct likelihood *s, int i, size_t needed, struct plm_status *st)
{
    if (s->branch[i] && (size_t)sequence_capacity(s->branch[i]) < needed) {
        sequence_destroy(s->branch[i]);
        s->branch[i] = NULL;
    }
    size_t capacity = LEAST_BRANCH;
    while (capacity < needed)
        capacity *= 2;
    const struct sequence_options o = {.capacity = (int64_t)least(capacity, s->context), .type = DTYPE_F32,
                                       .policy = policy_options_default(POLICY_FULL)};
    int code = s->branch[i] ? PLM_OK : sequence_create(&s->branch[i], s->engine, &o, st);
    return code ? code : sequence_copy(s->branch[i], s->base, st);
}

/* Requests whose logits fit together. */
static int score_group(struct likelihood *s, const struct score_request *r, int n, struct plm_status *st)
{
    size_t common = r->from - 1;
    for (int k = 1; k < n; k++) {
        size_t same = 0;
        while (same < common && same < r[k].from - 1 && r[k].tokens[same] == r->tokens[same])
            same++;
        common = same;
    }
    struct engine_item *items = calloc((size_t)n, sizeof *items);
    int code = items ? keep_prefix(s, r->tokens, common, st) : status_no_memory(st, (size_t)n * sizeof *items, "a batch");
    if (!code)
        code = feed(s, r->tokens, common, st);
    int n_items = 0;
    for (int k = 0; k < n && !code; k++) {
        code = branch_off(s, k, r[k].n - 1, st);
        s->reused += k ? (int64_t)common : 0;
        if (!code && r[k].from - 1 > common)
            items[n_items++] = (struct engine_item){.sequence = s->branch[k], .tokens = r[k].tokens + common, .n = (int64_t)(r[k].from - 1 - common)};
    }
    if (!code)
        code = step(s, items, n_items, st);
    float *logits = s->logits;
    for (int k = 0; k < n && !code; logits += (r[k].n - r[k].from) * (size_t)s->vocab, k++)
        items[k] = (struct engine_item){.sequence = s->branch[k], .tokens = r[k].tokens + r[k].from - 1, .n = (int64_t)(r[k].n - r[k].from),
                                        .decode = r[k].n - r[k].from <= DECODE_ROWS, .all = true, .logits = logits};
    if (!code)
        code = step(s, items, n, st);
    for (int k = 0; k < n && !code; k++)
        code = take_scores(s, &r[k], r[k].from, r[k].n - r[k].from, items[k].logits, st);
    free(items);
    return code;
}

int likelihood_score(struct likelihood *s, const struct score_request *requests, int n, struct plm_status *st)
{
    int code = PLM_OK;
    for (int i = 0, end; i < n && !code; i = end) {
        size_t rows = requests[i].n - requests[i].from;
        for (end = i + 1; end < n && end - i < s->batch && rows + requests[end].n - requests[end].from <= s->rows; end++)
            rows += requests[end].n - requests[end].from;
        code = end == i + 1 ? score_one(s, &requests[i], st) : score_group(s, requests + i, end - i, st);
    }
    return code;
}

size_t likelihood_departure(const struct token_list *context, const struct token_list *joined, int n)
{
    size_t from = SIZE_MAX;
    for (int i = 0; i < n; i++) {
        size_t same = 1;
        while (same + 1 < joined[i].length && same < context->length && joined[i].data[same] == context->data[same])
            same++;
        from = least(from, same);
    }
    return from;
}
