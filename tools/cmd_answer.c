/* plm answer: questions in bulk, by an inference strategy (aries.md 1.8). */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/strategy.h"
#include "infer/model/templates.h"
#include "tools/answer_turns.h"
#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/interrupt.h"
#include "tools/open_model.h"
#include "tools/result.h"
#include "tools/sampling_options.h"
#include "tools/text_list.h"
#include "train/settings.h"

enum { OPT_QUESTION = 256, OPT_STRATEGY, OPT_VERIFIER, OPT_SET, OPT_ACCEPT, OPT_OUT, OPT_LIMIT, OPT_TEMPLATE, OPT_REFINE_TEMPLATE, OPT_CONTEXT, OPT_JSON };

struct arguments {
    const char *model, *file, *question, *system, *strategy, *verifier, *out, *template, *refine_template;
    struct text_list set;
    struct plm_sampling sampling;
    int refinements, parallel, batch, threads;
    int64_t max_tokens, context, limit;
    bool accept, json, refinements_given, parallel_given;
};

static const struct argp_option options[] = {
    {"question", OPT_QUESTION, "TEXT", 0, "answer this instead of a file: the answer goes to standard output, the table to standard error", 0},
    {"system", 's', "TEXT", 0, "the system message of --question", 0},
    {"strategy", OPT_STRATEGY, "NAME", 0, "direct (default): one answer; chain: refined K times, each from the one before; parallel: N answers and a majority "
                                        "vote; chains: N chains and a vote", 0},
    {"refinements", 'k', "K", 0, "refinements of a chain (default 3)", 0},
    {"parallel", 'p', "N", 0, "answers or chains per question (default 8)", 0},
    {"verifier", OPT_VERIFIER, "KIND", 0, "score answers, and vote by what it reads out of them: gsm8k, number, boxed, choice, exact, regex, tests, command", 0},
    {"set", OPT_SET, "KEY=VALUE", 0, "a setting of the verifier, such as pattern='#### (.*)'; may be given several times", 0},
    {"accept", OPT_ACCEPT, 0, 0, "a chain ends when the verifier accepts an answer", 0},
    {"out", OPT_OUT, "FILE", 0, "write every answer of every turn as JSON lines", 0},
    {"limit", OPT_LIMIT, "N", 0, "the first N questions; 0: all (default)", 0},
    {"tokens", 'n', "N", 0, "at most N tokens in an answer (default 256)", 0},
    {"batch", 'b', "N", 0, "answers made together (default 32)", 0},
    {"template", OPT_TEMPLATE, "FILE", 0, "a chat template (Jinja or JSON) instead of the one the model came with, or else ChatML", 0},
    {"refine-template", OPT_REFINE_TEMPLATE, "FILE", 0, "a refinement template with {x} and {y_prev} instead of the one the model came with, or else the "
                                                      "built-in one", 0},
    {"context", OPT_CONTEXT, "N", 0, "tokens of a prompt and its answer; 0: the model's (default)", 0},
    {"threads", 't', "N", 0, "threads; 0: one per processor (default)", 0},
    {"json", OPT_JSON, 0, 0, "print the result as JSON", 0},
    {0},
};

static const struct {
    const char *name;
    bool parallel, refines;
} strategies[] = {{"direct", false, false}, {"chain", false, true}, {"parallel", true, false}, {"chains", true, true}};

static void note_unused(const struct arguments *a)
{
    for (size_t i = 0; i < sizeof strategies / sizeof *strategies; i++) {
        if (strcmp(a->strategy, strategies[i].name) != 0)
            continue;
        if (!strategies[i].refines && a->refinements_given)
            argument_unused("refinements", "without --strategy chain or chains");
        if (!strategies[i].refines && a->refine_template)
            argument_unused("refine-template", "without --strategy chain or chains");
        if (!strategies[i].parallel && a->parallel_given)
            argument_unused("parallel", "without --strategy parallel or chains");
        if (!strategies[i].refines && a->accept)
            argument_unused("accept", "without --strategy chain or chains");
        if (strategies[i].parallel && a->sampling.temperature == 0)
            fprintf(stderr, "note: at temperature 0 the %d answers of a question are the same\n", a->parallel);
    }
    if (a->set.n && !a->verifier)
        argument_unused("set", "without a --verifier");
    if (a->system && a->file)
        argument_unused("system", "on the questions of a file: a row's messages have their own");
    if (a->limit && a->question)
        argument_unused("limit", "with --question");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &a->sampling; return 0;
    case OPT_QUESTION: a->question = arg; return 0;
    case 's': a->system = arg; return 0;
    case OPT_STRATEGY: a->strategy = arg; return 0;
    case 'k':
        a->refinements_given = true;
        a->refinements = (int)argument_range(state, "refinements", arg, 1, 1000);
        return 0;
    case 'p':
        a->parallel_given = true;
        a->parallel = (int)argument_range(state, "parallel", arg, 1, 1 << 16);
        return 0;
    case OPT_VERIFIER: a->verifier = arg; return 0;
    case OPT_SET: text_list_argument(&a->set, arg, "set", TEXT_ANY, state); return 0;
    case OPT_ACCEPT: a->accept = true; return 0;
    case OPT_OUT: a->out = arg; return 0;
    case OPT_LIMIT: a->limit = argument_range(state, "limit", arg, 0, INT64_MAX); return 0;
    case 'n': a->max_tokens = argument_range(state, "tokens", arg, 1, INT32_MAX); return 0;
    case 'b': a->batch = (int)argument_range(state, "batch", arg, 1, 1 << 16); return 0;
    case OPT_TEMPLATE: a->template = arg; return 0;
    case OPT_REFINE_TEMPLATE: a->refine_template = arg; return 0;
    case OPT_CONTEXT: a->context = argument_whole(state, "context", arg); return 0;
    case 't': a->threads = argument_whole(state, "threads", arg); return 0;
    case OPT_JSON: a->json = true; return 0;
    case ARGP_KEY_ARG:
        if (a->model && a->file)
            argp_error(state, "one MODEL and one FILE, found '%s' too", arg);
        *(a->model ? &a->file : &a->model) = arg;
        return 0;
    case ARGP_KEY_END:
        if (!a->model)
            argp_error(state, "MODEL is required");
        if (!a->file == !a->question)
            argp_error(state, "give a FILE of questions or one with --question");
        if (a->accept && (!a->verifier || a->question))
            argp_error(state, "--accept wants a --verifier and a FILE with what answers are checked against");
        return 0;
    case ARGP_KEY_SUCCESS: note_unused(a); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&sampling_argp, 0, "Sampling:", 1}, {0}};

static const struct argp parser = {options, parse, "MODEL [FILE]",
    "Answer the prompts of a dataset (JSON lines with a prompt, question, instruction or messages) directly, by chains of self-refinement, or by a vote, and "
    "say what each turn is worth. " MODEL_HELP "\v"
    "Examples:\n  plm answer run/sft gsm8k_test.jsonl --strategy chain -k 3 --verifier gsm8k --out answers.jsonl\n"
    "  plm answer model.gguf --question 'What is 12 * 7?' --strategy parallel -p 16 --verifier number", children, 0, 0};

static int set_strategy(struct strategy *s, const struct arguments *a, struct plm_status *st)
{
    for (size_t i = 0; i < sizeof strategies / sizeof *strategies; i++)
        if (!strcmp(a->strategy, strategies[i].name)) {
            s->chains = strategies[i].parallel ? a->parallel : 1;
            s->refinements = strategies[i].refines ? a->refinements : 0;
            return PLM_OK;
        }
    return status_set(st, PLM_EINVAL, "no strategy '%s': expected direct, chain, parallel or chains", a->strategy);
}

struct answering {
    const struct arguments *a;
    struct plm_model *model;
    struct row_set tasks;
    struct strategy_question *questions; /* (tasks.n) */
    struct strategy s;
    struct chat_template *chat;
    struct refine_template *refine;
    struct settings *settings;
    struct scorer *verifier;             /* NULL: none */
    struct completer *completer;
    struct end_tokens ends;
    struct answer_set answers;
    struct strategy_counts counts;
    struct scorer_stats scored;
    struct plm_status checked;           /* of an answer that could not be checked */
    const volatile sig_atomic_t *interrupted;
};

static int open_verifier(struct answering *g, struct plm_status *st)
{
    char kind[64];
    if (!g->a->verifier)
        return PLM_OK;
    snprintf(kind, sizeof kind, "kind=\"%.40s\"", g->a->verifier);
    int code = settings_parse(&g->settings, "{}", 2, "--verifier", st);
    if (!code)
        code = settings_override(g->settings, kind, st);
    for (int i = 0; i < g->a->set.n && !code; i++)
        code = settings_override(g->settings, g->a->set.items[i], st);
    if (code)
        return code;
    struct section root = settings_root(g->settings);
    code = scorer_open(&g->verifier, &root, st);
    if (!code)
        code = settings_finish(g->settings, st);
    if (!code && scorer_needs_model(g->verifier))
        code = status_set(st, PLM_EUNSUPPORTED, "a verifier of kind \"%s\" needs a model: expected one without", scorer_kind(g->verifier));
    return code;
}

static int read_questions(struct answering *g, struct plm_status *st)
{
    const struct row_options o = {.wanted = ROW_TASK};
    int code = g->a->file ? row_set_read(&g->tasks, g->a->file, &o, false, st) : PLM_OK;
    if (!code && g->a->file && g->tasks.n == 0)
        code = status_set(st, PLM_EINVAL, "'%s' has no rows", g->a->file);
    if (g->a->limit && g->a->limit < g->tasks.n) {
        for (int64_t i = g->a->limit; i < g->tasks.n; i++)
            row_free(&g->tasks.rows[i]);
        g->tasks.n = g->a->limit;
    }
    const size_t n = (size_t)(g->a->file ? g->tasks.n : 1);
    g->questions = calloc(n, sizeof *g->questions);
    if (!code && !g->questions)
        code = status_no_memory(st, n * sizeof *g->questions, "questions");
    for (int64_t i = 0; i < g->tasks.n && !code; i++)
        g->questions[i] = (struct strategy_question){g->tasks.rows[i].messages, g->tasks.rows[i].n_messages, (uint64_t)i};
    return code;
}

static int open_all(struct answering *g, struct plm_status *st)
{
    const struct arguments *a = g->a;
    int32_t turn_end = -1;
    int code = set_strategy(&g->s, a, st);
    if (!code)
        code = open_verifier(g, st);
    if (!code)
        code = read_questions(g, st);
    char path[PATH_MAX] = "";
    if (!code)
        code = open_model(&g->model, a->model, path, st);
    if (!code)
        code = model_chat_template(&g->chat, g->model, a->template, st);
    if (!code && !a->template)
        model_chat_template_note(g->model, g->chat);
    if (!code)
        code = model_refine_template(&g->refine, g->model, a->refine_template, st);
    if (!code && !g->model->tokenizer)
        code = status_set(st, PLM_EUNSUPPORTED, "the model came without a tokenizer: put tokenizer.json beside the weights");
    if (!code)
        code = chat_template_end(g->chat, g->model->tokenizer, &turn_end, st);
    if (!code)
        code = end_tokens_with(&g->ends, &g->model->ends, turn_end, st);
    if (code)
        return code;
    g->s.chat = g->chat, g->s.refine = g->refine, g->s.max_tokens = a->max_tokens, g->s.seed = a->sampling.seed;
    const int64_t answers = (a->file ? g->tasks.n : 1) * g->s.chains;
    const struct completer_options o = {.n_threads = a->threads, .max_batch = answers < a->batch ? (int)answers : a->batch, .context = a->context,
                                        .sampling = a->sampling, .end_tokens = g->ends.ids, .n_end_tokens = g->ends.n};
    return completer_create(&g->completer, g->model, &o, st);
}

static void close_all(struct answering *g)
{
    completer_destroy(g->completer);
    free(g->ends.ids);
    answer_set_free(&g->answers);
    scorer_close(g->verifier);
    if (g->settings)
        settings_close(g->settings);
    refine_template_free(g->refine);
    chat_template_free(g->chat);
    row_set_free(&g->tasks);
    free(g->questions);
    plm_model_close(g->model);
}

static void *copy_of(const void *from, size_t bytes)
{
    void *to = malloc(bytes ? bytes : 1);
    return to && bytes ? memcpy(to, from, bytes) : to;
}

static int take(void *ctx, const struct strategy_answer *a, struct plm_status *st)
{
    struct answering *g = ctx;
    const size_t n = (size_t)a->n;
    const struct answer kept = {.task = a->question, .chain = a->chain, .turn = a->turn, .text = copy_of(a->text, a->bytes + 1),
                                .tokens = copy_of(a->tokens, n * sizeof *a->tokens), .log_probs = copy_of(a->log_probs, n * sizeof *a->log_probs),
                                .n = (int)a->n, .ended = a->ended};
    int code = kept.text && kept.tokens && kept.log_probs ? answer_set_add(&g->answers, &kept, st) : status_no_memory(st, a->bytes + 8 * n, "an answer");
    if (code) {
        free(kept.text);
        free(kept.tokens);
        free(kept.log_probs);
    }
    return code;
}

static bool accepted(void *ctx, const struct strategy_answer *a)
{
    struct answering *g = ctx;
    double score = 0;
    return !scorer_check(g->verifier, &g->tasks.rows[a->question], a->text, &score, &g->checked) && score > 0;
}

static int see_token(void *ctx, int64_t question, int chain, int turn, int32_t token, struct plm_status *st)
{
    const struct answering *g = ctx;
    (void)question, (void)chain, (void)turn, (void)token;
    return *g->interrupted ? status_set(st, PLM_ESTOPPED, "interrupted") : PLM_OK;
}

/* Of the answers that are given: their score, and how often any chain ends in an accepted one. */
static int add_chosen(json_t *root, const struct answering *g, const int64_t *chosen, struct plm_status *st)
{
    int64_t n = 0, right = 0, any = 0;
    for (int64_t i = 0; i < g->tasks.n; i++) {
        const struct answer *a = chosen[i] < 0 ? NULL : &g->answers.answers[chosen[i]];
        n += a && a->scored;
        right += a && a->scored && a->score > 0;
    }
    for (int64_t i = 0, last = -1; i < g->answers.n; i++) {
        const struct answer *a = &g->answers.answers[i];
        any += a->scored && a->score > 0 && a->task != last;
        last = a->scored && a->score > 0 ? a->task : last;
    }
    json_object_set_new(root, "scored", json_integer((json_int_t)n));
    json_object_set_new(root, "right_in_any_answer", json_integer((json_int_t)any));
    return result_add_accuracy(root, right, n, st);
}

static int report(const struct answering *g, const int64_t *chosen, struct plm_status *st)
{
    const struct completer_stats s = completer_stats(g->completer);
    const double seconds = s.prefill_s + s.decode_s;
    json_t *root = json_pack("{s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f}", "strategy", g->a->strategy, "chains", g->s.chains, "refinements",
                             g->s.refinements, "questions", (json_int_t)(g->a->file ? g->tasks.n : 1), "too_long", (json_int_t)g->counts.too_long, "prompt_tokens",
                             (json_int_t)s.prompt_tokens, "reused_tokens", (json_int_t)s.reused_tokens, "generated_tokens", (json_int_t)s.generated,
                             "prefill_seconds", s.prefill_s, "decode_seconds", s.decode_s, "tokens_per_s", seconds > 0 ? (double)s.generated / seconds : 0);
    const bool scored = g->verifier && g->a->file;
    int code = root ? PLM_OK : result_failed(st);
    if (!code && scored)
        code = add_chosen(root, g, chosen, st);
    if (!code && scored && g->scored.failed)
        code = json_object_set_new(root, "unscored", json_integer((json_int_t)g->scored.failed)) ? result_failed(st) : PLM_OK;
    if (!code)
        code = answers_by_turn(root, &g->answers, scored, st);
    if (!code)
        code = result_print(g->a->question ? stderr : stdout, root, g->a->json, st);
    json_decref(root);
    return code;
}

static int answer_all(struct answering *g, struct plm_status *st)
{
    const struct arguments *a = g->a;
    struct chat_message messages[2] = {{"system", a->system, a->system ? strlen(a->system) : 0, false}, {"user", a->question, a->question ? strlen(a->question) : 0, false}};
    const int64_t n = a->file ? g->tasks.n : 1;
    if (a->question)
        g->questions[0] = (struct strategy_question){messages + !a->system, 1 + !!a->system, 0};
    int64_t *chosen = malloc((size_t)n * sizeof *chosen);
    int code = chosen ? PLM_OK : status_no_memory(st, (size_t)n * sizeof *chosen, "answers");
    g->interrupted = interrupt_catch();
    g->s.token = see_token;
    if (!code)
        code = strategy_run(g->completer, g->model, &g->s, g->questions, n, take, a->accept ? accepted : NULL, g, &g->counts, st);
    interrupt_release();
    if (!code && g->checked.code)
        code = status_set(st, g->checked.code, "%s", g->checked.message);
    answers_sort(&g->answers);
    if (!code && g->verifier && a->file)
        code = scorer_score(g->verifier, &g->tasks, g->answers.answers, g->answers.n, 1, &g->scored, st);
    if (!code)
        code = answers_choose(chosen, n, &g->answers, g->verifier, st);
    if (!code && a->out)
        code = answer_set_write(&g->answers, 0, g->answers.n, a->out, st);
    if (!code && a->question && chosen[0] < 0)
        code = status_set(st, PLM_ELIMIT, "the question leaves no room for %lld tokens in a context of %lld", (long long)a->max_tokens,
                          (long long)completer_context(g->completer));
    if (!code && a->question)
        puts(g->answers.answers[chosen[0]].text);
    if (!code)
        code = report(g, chosen, st);
    free(chosen);
    return code;
}

int command_answer(int argc, char **argv)
{
    struct arguments a = {.strategy = "direct", .refinements = 3, .parallel = 8, .batch = 32, .max_tokens = 256, .sampling = plm_sampling_default()};
    struct plm_status st = {0};
    struct answering g = {.a = &a};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    int code = open_all(&g, &st);
    if (!code)
        code = answer_all(&g, &st);
    if (!code && g.scored.failed)
        fprintf(stderr, "%lld answers could not be scored, the first: %s\n", (long long)g.scored.failed, g.scored.first_failure);
    close_all(&g);
    text_list_free(&a.set);
    return code ? command_fail(&st) : 0;
}
