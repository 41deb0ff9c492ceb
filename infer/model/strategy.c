#include "infer/model/strategy.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/random.h"

/* One chain of answers, at its turn `turn`. */
struct chain {
    struct chain *next;       /* in the queue of those that are to be refined */
    int64_t question;
    int number, turn;
    char *draft;              /* the answer of the turn before; NULL at turn 0 */
    size_t draft_bytes;
    struct token_list prompt;
};

struct run {
    struct completer *completer;
    const struct plm_model *model;
    const struct strategy *s;
    const struct strategy_question *questions;
    int (*take)(void *ctx, const struct strategy_answer *answer, struct plm_status *st);
    bool (*stop)(void *ctx, const struct strategy_answer *answer);
    void *ctx;
    struct encoder *encoder;
    struct chain *chains;     /* (n) question after question */
    int64_t n, begun;
    struct chain *first, *last; /* of the queue */
    struct strategy_counts counts;
    struct plm_status *st;
    int code;                 /* of a prompt that could not be made */
};

int strategy_prompt(const struct strategy *s, struct encoder *e, const struct chat_message *messages, int n_messages, const char *y, size_t y_bytes,
                    struct token_list *ids, struct plm_status *st)
{
    if (n_messages < 1)
        return status_set(st, PLM_EINVAL, "a question without messages");
    if (!y)
        return chat_template_render(s->chat, e, messages, n_messages, CHAT_BEGINS, true, ids, NULL, st);
    struct chat_message *with_draft = malloc((size_t)n_messages * sizeof *with_draft), *last = with_draft + n_messages - 1;
    char *text = NULL;
    if (with_draft) {
        memcpy(with_draft, messages, (size_t)n_messages * sizeof *with_draft);
        last->content = text = refine_template_fill(s->refine, last->content, last->content_bytes, y, y_bytes, &last->content_bytes);
    }
    int code = text ? chat_template_render(s->chat, e, with_draft, n_messages, CHAT_BEGINS, true, ids, NULL, st)
                    : status_no_memory(st, (size_t)n_messages * sizeof *with_draft + y_bytes, "a refinement prompt");
    free(with_draft);
    free(text);
    return code;
}

static uint64_t answer_seed(const struct strategy *s, uint64_t question, int chain, int turn)
{
    const uint64_t seed = random_u64(s->seed, RANDOM_ROLLOUT, 0, question);
    return random_u64(seed, RANDOM_ROLLOUT, 1 + (uint32_t)chain, (uint64_t)turn);
}

/* The next chain to go on with; NULL: none at the moment. New ones first: the last turns then end closer together, and the batch stays full. */
static struct chain *take_chain(struct run *r)
{
    struct chain *c = r->first;
    if (r->begun < r->n) {
        c = &r->chains[r->begun];
        c->question = r->begun / r->s->chains, c->number = (int)(r->begun % r->s->chains);
        r->begun++;
    } else if (c) {
        r->first = c->next;
    }
    return c;
}

static void finish_chain(struct chain *c)
{
    free(c->draft);
    free(c->prompt.data);
    c->draft = NULL, c->prompt = (struct token_list){0};
}

static bool next(void *ctx, struct completion_request *request)
{
    struct run *r = ctx;
    for (struct chain *c; !r->code && (c = take_chain(r)); finish_chain(c)) {
        const struct strategy_question *q = &r->questions[c->question];
        c->prompt.length = 0;
        r->code = strategy_prompt(r->s, r->encoder, q->messages, q->n_messages, c->draft, c->draft_bytes, &c->prompt, r->st);
        const int64_t n = (int64_t)c->prompt.length;
        if (r->code)
            return false;
        if (n + r->s->max_tokens <= completer_context(r->completer)) {
            *request = (struct completion_request){c->prompt.data, n, r->s->max_tokens, answer_seed(r->s, q->id, c->number, c->turn), 0, c};
            return true;
        }
        r->counts.too_long++;
    }
    return false;
}

/* The text of tokens, without special ones: malloc'ed, NUL-terminated. NULL: out of memory. */
static char *text_of(const struct plm_model *model, const int32_t *tokens, int64_t n, size_t *bytes)
{
    const char *piece;
    size_t total = 0;
    for (int64_t i = 0; i < n; i++)
        total += plm_token_bytes(model, tokens[i], false, &piece);
    char *text = malloc(total + 1), *end = text;
    for (int64_t i = 0; i < n && text; i++) {
        const size_t length = plm_token_bytes(model, tokens[i], false, &piece);
        if (length)
            memcpy(end, piece, length);
        end += length;
    }
    if (text)
        *end = 0;
    *bytes = total;
    return text;
}

static int done(void *ctx, const struct completion_request *request, const struct completion *completion, struct plm_status *st)
{
    struct run *r = ctx;
    struct chain *c = request->tag;
    const bool ended = completion->end == COMPLETION_ENDED;
    struct strategy_answer a = {.question = c->question, .chain = c->number, .turn = c->turn, .prompt = request->prompt, .n_prompt = request->n_prompt,
                                .tokens = completion->tokens, .log_probs = completion->log_probs, .n = completion->n, .ended = ended};
    if (r->code)
        return r->code;
    char *text = text_of(r->model, a.tokens, a.n - ended, &a.bytes);
    if (!text)
        return status_no_memory(st, a.bytes, "an answer");
    a.text = text;
    int code = r->take(r->ctx, &a, st);
    const bool more = !code && c->turn < r->s->refinements && !(r->stop && r->stop(r->ctx, &a));
    free(c->draft);
    c->draft = text, c->draft_bytes = a.bytes, c->turn++;
    if (!more) {
        finish_chain(c);
        return code;
    }
    c->next = NULL;
    if (r->first)
        r->last->next = c;
    else
        r->first = c;
    r->last = c;
    return PLM_OK;
}

static int see_token(void *ctx, const struct completion_request *request, int32_t token, struct plm_status *st)
{
    const struct run *r = ctx;
    const struct chain *c = request->tag;
    return r->s->token(r->ctx, c->question, c->number, c->turn, token, st);
}

static int check(const struct run *r, int64_t n, struct plm_status *st)
{
    const struct strategy *s = r->s;
    if (!r->model->tokenizer)
        return status_set(st, PLM_EUNSUPPORTED, "the model came without a tokenizer: put tokenizer.json beside the weights");
    if (s->chains < 1 || s->refinements < 0 || s->max_tokens < 1)
        return status_set(st, PLM_EINVAL, "%d chains of %d refinements of at most %lld tokens were asked for, expected at least 1, 0 and 1", s->chains,
                          s->refinements, (long long)s->max_tokens);
    if (n > INT64_MAX / s->chains || (uint64_t)n * (uint64_t)s->chains > SIZE_MAX / sizeof *r->chains)
        return status_set(st, PLM_ELIMIT, "%lld questions of %d chains are more than can be counted", (long long)n, s->chains);
    return PLM_OK;
}

int strategy_run(struct completer *c, const struct plm_model *model, const struct strategy *s, const struct strategy_question *questions, int64_t n,
                 int (*take)(void *ctx, const struct strategy_answer *answer, struct plm_status *st),
                 bool (*stop)(void *ctx, const struct strategy_answer *answer), void *ctx, struct strategy_counts *counts, struct plm_status *st)
{
    struct run r = {.completer = c, .model = model, .s = s, .questions = questions, .take = take, .stop = stop, .ctx = ctx, .st = st};
    const struct completion_source source = {.next = next, .done = done, .token = s->token ? see_token : NULL, .ctx = &r};
    int code = n > 0 ? check(&r, n, st) : PLM_OK;
    r.n = n > 0 && !code ? n * s->chains : 0;
    r.chains = calloc((size_t)r.n + 1, sizeof *r.chains);
    if (!code && !r.chains)
        code = status_no_memory(st, (size_t)r.n * sizeof *r.chains, "chains of answers");
    if (!code && r.n)
        code = encoder_create(&r.encoder, model->tokenizer, st);
    if (!code && r.n)
        code = completer_run(c, &source, st);
    for (int64_t i = 0; i < r.begun; i++)
        finish_chain(&r.chains[i]);
    free(r.chains);
    encoder_free(r.encoder);
    if (counts)
        *counts = r.counts;
    return code ? code : r.code;
}

int majority_vote(const char *const *keys, int n)
{
    int winner = -1, most = 0;
    for (int i = 0; i < n; i++) {
        int votes = 0;
        for (int k = 0; k < n && keys[i]; k++)
            votes += keys[k] && !strcmp(keys[i], keys[k]);
        if (votes > most)
            most = votes, winner = i;
    }
    return winner;
}
