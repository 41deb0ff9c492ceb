#include <stdlib.h>
#include <string.h>

#include "infer/model/templates.h"
#include "infer/model/strategy.h"

enum { MAX_TOKENS = 512 };

/* The latest answer of a chain. */
struct candidate {
    char *text;
    double log_prob; /* mean over its tokens */
};

struct answering {
    const struct plm_model *model;
    struct plm_answer_options o;
    struct candidate *chains; /* (parallel) */
    struct end_tokens ends;
};

static int take(void *ctx, const struct strategy_answer *a, struct plm_status *st)
{
    struct answering *g = ctx;
    struct candidate *c = &g->chains[a->chain];
    double sum = 0;
    for (int64_t i = 0; i < a->n; i++)
        sum += (double)a->log_probs[i];
    free(c->text);
    *c = (struct candidate){malloc(a->bytes + 1), sum / (double)a->n};
    if (!c->text)
        return status_no_memory(st, a->bytes + 1, "an answer");
    memcpy(c->text, a->text, a->bytes + 1);
    if (g->o.text && !g->o.text(g->o.ctx, a->chain, a->turn, NULL, 0))
        return status_set(st, PLM_ESTOPPED, "the answer was stopped");
    return PLM_OK;
}

static int show(void *ctx, int64_t question, int chain, int turn, int32_t token, struct plm_status *st)
{
    const struct answering *g = ctx;
    const char *bytes;
    const size_t n = end_tokens_has(&g->ends, token) ? 0 : plm_token_bytes(g->model, token, false, &bytes);
    (void)question;
    return n == 0 || g->o.text(g->o.ctx, chain, turn, bytes, n) ? PLM_OK : status_set(st, PLM_ESTOPPED, "the answer was stopped");
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* What an answer votes with, written over it: its last number, without separators of thousands, or without a number all of it but the white space
 * around it. */
static void make_key(char *text)
{
    const char *const blank = " \t\r\n";
    char *begin = text + strspn(text, blank), *end = text + strlen(text), *last = end;
    while (end > begin && strchr(blank, end[-1]))
        end--;
    while (last > text && !is_digit(last[-1]))
        last--;
    const bool number = last > text;
    if (number) {
        for (begin = end = last; begin > text && (is_digit(begin[-1]) || (strchr(",.", begin[-1]) && begin > text + 1 && is_digit(begin[-2])));)
            begin--;
        begin -= begin > text && begin[-1] == '-';
    }
    for (; begin < end; begin++)
        if (!number || *begin != ',')
            *text++ = *begin;
    *text = 0;
}

static int likelier_first(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (!x->text || !y->text)
        return !x->text - !y->text;
    return (x->log_prob < y->log_prob) - (x->log_prob > y->log_prob);
}

/* *answer: a copy of the winner. */
static int choose(struct answering *g, char **answer, struct plm_status *st)
{
    const char **keys = malloc((size_t)g->o.parallel * sizeof *keys);
    if (!keys)
        return status_no_memory(st, (size_t)g->o.parallel * sizeof *keys, "votes");
    qsort(g->chains, (size_t)g->o.parallel, sizeof *g->chains, likelier_first);
    int n = 0, code = PLM_OK;
    for (; n < g->o.parallel && g->chains[n].text && !code; n++) {
        char *key = strdup(g->chains[n].text);
        if (key)
            make_key(key);
        else
            code = status_no_memory(st, strlen(g->chains[n].text), "votes");
        keys[n] = key;
    }
    const int winner = majority_vote(keys, n);
    if (!code && winner >= 0) {
        *answer = g->chains[winner].text;
        g->chains[winner].text = NULL;
    }
    while (n > 0)
        free((char *)keys[--n]);
    free(keys);
    return code;
}

static int run(struct answering *g, struct strategy *s, const struct strategy_question *q, char **answer, struct plm_status *st)
{
    struct completer *c = NULL;
    int32_t turn_end = -1;
    int code = chat_template_end(s->chat, g->model->tokenizer, &turn_end, st);
    if (!code)
        code = end_tokens_with(&g->ends, &g->model->ends, turn_end, st);
    const struct completer_options co = {.n_threads = g->o.n_threads, .max_batch = g->o.parallel, .context = g->o.context, .sampling = *g->o.sampling,
                                         .end_tokens = g->ends.ids, .n_end_tokens = g->ends.n};
    if (!code)
        code = completer_create(&c, g->model, &co, st);
    if (!code)
        code = strategy_run(c, g->model, s, q, 1, take, NULL, g, NULL, st);
    if (!code)
        code = choose(g, answer, st);
    if (!code && !*answer)
        code = status_set(st, PLM_ELIMIT, "the conversation leaves no room for an answer of %d tokens in a context of %lld", g->o.max_tokens,
                          (long long)completer_context(c));
    completer_destroy(c);
    return code;
}

int plm_answer(const struct plm_model *model, const struct plm_message *messages, int n, const struct plm_answer_options *options, char **answer,
               struct plm_status *st)
{
    const struct plm_sampling usual = plm_sampling_default();
    struct answering g = {.model = model, .o = options ? *options : (struct plm_answer_options){0}};
    struct chat_template *chat = NULL;
    struct refine_template *refine = NULL;
    *answer = NULL;
    g.o.sampling = g.o.sampling ? g.o.sampling : &usual;
    g.o.parallel = g.o.parallel ? g.o.parallel : 1;
    g.o.max_tokens = g.o.max_tokens ? g.o.max_tokens : MAX_TOKENS;
    if (n < 1 || g.o.parallel < 1 || g.o.refinements < 0 || g.o.max_tokens < 0)
        return status_set(st, PLM_EINVAL, "%d messages, %d refinements of %d answers of at most %d tokens: expected one message at least, and no negative number",
                          n, g.o.refinements, g.o.parallel, g.o.max_tokens);
    if (!model->tokenizer)
        return status_set(st, PLM_EUNSUPPORTED, "the model came without a tokenizer: put tokenizer.json beside the weights");
    struct chat_message *m = calloc((size_t)n, sizeof *m);
    g.chains = calloc((size_t)g.o.parallel, sizeof *g.chains);
    int code = m && g.chains ? PLM_OK : status_no_memory(st, (size_t)n * sizeof *m, "messages");
    for (int i = 0; i < n && !code; i++)
        m[i] = (struct chat_message){messages[i].role, messages[i].content, strlen(messages[i].content), false};
    if (!code)
        code = model_chat_template(&chat, model, g.o.chat_template, st);
    if (!code)
        code = model_refine_template(&refine, model, g.o.refine_template, st);
    struct strategy s = {.chains = g.o.parallel, .refinements = g.o.refinements, .max_tokens = g.o.max_tokens, .seed = g.o.sampling->seed, .chat = chat,
                         .refine = refine, .token = g.o.text ? show : NULL};
    const struct strategy_question q = {m, n, 0};
    if (!code)
        code = run(&g, &s, &q, answer, st);
    for (int i = 0; i < g.o.parallel && g.chains; i++)
        free(g.chains[i].text);
    free(g.chains);
    free(g.ends.ids);
    free(m);
    chat_template_free(chat);
    refine_template_free(refine);
    return code;
}
