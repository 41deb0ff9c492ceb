/* plm chat: a conversation in the template that the model came with, or in ChatML (plm.md 3.3), or in one that is given. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/model/templates.h"
#include "tools/arguments.h"
#include "tools/cache_options.h"
#include "tools/command.h"
#include "tools/exit_status.h"
#include "tools/interrupt.h"
#include "tools/message_input.h"
#include "tools/open_model.h"
#include "tools/refined_chat.h"
#include "tools/sampling_options.h"
#include "tools/stop_text.h"
#include "tools/text_list.h"
#include "tools/text_stream.h"

struct arguments {
    const char *model, *system, *session_file, *template;
    struct text_list stops, system_file;
    int64_t n; /* 0: without end */
    struct plm_sampling sampling;
    struct plm_session_options session;
    const char *refine_template;
    int refinements, parallel;
    bool show_drafts;
};

enum { OPT_STOP = 256, OPT_SESSION, OPT_LOOKUP, OPT_TEMPLATE, OPT_REFINE, OPT_PARALLEL, OPT_DRAFTS,
       OPT_REFINE_TEMPLATE, OPT_SYSTEM_FILE, MOST_DRAFTED = 64 };

static const struct argp_option options[] = {
    {"system", 's', "TEXT", 0, "the system message (default: what the template says; ChatML: You are a helpful assistant)", 0},
    {"system-file", OPT_SYSTEM_FILE, "FILE", 0, "the same, from a file; one newline at its end is not part of it", 0},
    {"template", OPT_TEMPLATE, "FILE", 0,
     "a chat template (Jinja, or JSON: system, turn, end, generation) instead of the one the model came with, or else "
     "ChatML", 0},
    {"tokens", 'n', "N", 0, "at most N tokens in an answer (default 512); 0 or -1: without end", 0},
    {"stop", OPT_STOP, "TEXT", 0, "an answer ends before this text (" ESCAPES_HELP "); may be given several times", 0},
    {"lookup", OPT_LOOKUP, "N", 0, "draft up to N tokens from earlier text and verify them together: the same answers, "
                                 "sooner where text repeats (default 0)", 0},
    {"session", OPT_SESSION, "FILE", 0, "go on with the conversation kept there, and keep it there at the end", 0},
    {"refine", OPT_REFINE, "K", 0, "the model refines each of its answers K times before it is given; only the last stays in the conversation", 0},
    {"parallel", OPT_PARALLEL, "N", 0, "make N answers (or chains of refinements) and give the one most agree with: the same last number, or text", 0},
    {"show-drafts", OPT_DRAFTS, 0, 0, "with --refine, show what is refined, too", 0},
    {"refine-template", OPT_REFINE_TEMPLATE, "FILE", 0, "with {x} and {y_prev}, instead of the one the model came with, or else the built-in one", 0},
    {"threads", 't', "N", 0, "threads; 0: one per processor (default)", 0},
    {0},
};

static void check_refinement(const struct arguments *a, struct argp_state *state)
{
    const struct plm_session_options *s = &a->session;
    if (s->lookup && s->cache_policy && strcmp(s->cache_policy, "full") != 0)
        argp_error(state, "--lookup is for the full cache: leave out --cache-policy");
    if (a->parallel > 1 && a->sampling.temperature == 0)
        fprintf(stderr, "note: at temperature 0 the %d answers of --parallel are the same\n", a->parallel);
    if (a->refinements == 0 && a->parallel < 2) {
        if (a->show_drafts || a->refine_template)
            argp_error(state, "--show-drafts and --refine-template are for --refine");
        return;
    }
    if (a->stops.n || a->session_file || s->lookup || s->cache_type || s->cache_policy || s->dense)
        argp_error(state, "--refine and --parallel go without --stop, --session, --lookup, --dense and options of the cache");
    if (a->n == 0)
        argp_error(state, "--refine and --parallel want a limit for the tokens of an answer");
    if (a->show_drafts && (a->parallel > 1 || a->refinements == 0))
        argp_error(state, "--show-drafts is for --refine without --parallel");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    struct plm_status st = {0};
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &a->sampling, state->child_inputs[1] = &a->session; return 0;
    case 's': a->system = arg; return 0;
    case OPT_SYSTEM_FILE:
        if (!strcmp(arg, "-"))
            argp_error(state, "--system-file is '-', expected a file: messages come from standard input");
        if (text_list_read_whole(&a->system_file, arg, &st))
            argp_failure(state, STATUS_ERROR, 0, "error: %s", st.message);
        return 0;
    case OPT_TEMPLATE: a->template = arg; return 0;
    case 'n': a->n = argument_range(state, "tokens", arg, -1, INT32_MAX); a->n += a->n < 0; return 0;
    case OPT_STOP: text_list_argument(&a->stops, arg, "stop", TEXT_ESCAPED, state); return 0;
    case OPT_LOOKUP: a->session.lookup = (int)argument_range(state, "lookup", arg, 0, MOST_DRAFTED); return 0;
    case OPT_SESSION: a->session_file = arg; return 0;
    case OPT_REFINE: a->refinements = (int)argument_range(state, "refine", arg, 0, 1000); return 0;
    case OPT_PARALLEL: a->parallel = (int)argument_range(state, "parallel", arg, 1, 1024); return 0;
    case OPT_DRAFTS: a->show_drafts = true; return 0;
    case OPT_REFINE_TEMPLATE: a->refine_template = arg; return 0;
    case 't': a->session.n_threads = argument_whole(state, "threads", arg); return 0;
    case ARGP_KEY_ARG: argument_only(state, "MODEL", arg, &a->model); return 0;
    case ARGP_KEY_END:
        if (!a->model)
            argp_error(state, "MODEL is required");
        if (a->system_file.n > 1 || (a->system_file.n && a->system))
            argp_error(state, "give the system message once: --system or --system-file");
        if (a->system_file.n)
            a->system = a->system_file.items[0];
        return 0;
    case ARGP_KEY_SUCCESS: check_refinement(a, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&sampling_argp, 0, "Sampling:", 1}, {&cache_argp, 0, "Cache:", 2}, {0}};

static const struct argp parser = {options, parse, "MODEL",
    "Talk with a model in the chat template it came with, or else ChatML. " MODEL_HELP " The answer appears as it is made; Ctrl-C stops it, Ctrl-D or /exit ends the conversation, "
    "/reset starts a new one. Messages come from the terminal (with line editing and history; pasted lines are one message) or, line by line, from a pipe; "
    "\"\"\" begins and ends a message of several lines. Without --seed each conversation has its own seed, which is shown.\v"
    "Example: plm chat model-q8_0.gguf --system 'Answer briefly.'", children, 0, 0};

struct chat {
    const struct arguments *a;
    struct plm_model *model;
    struct plm_session *session;
    struct chat_template *template;
    struct encoder *encoder;
    struct token_list tokens; /* what is appended next */
    int32_t turn_end;         /* ends an answer */
    bool open;                /* the last answer was cut off before it ended */
    struct text_stream out;
    struct refined_chat refined; /* in place of the session, when answers are refined or chosen */
};

/* The conversation so far lies in the cache; only what is new is added to it. */
static int add_message(struct chat *c, const char *message, struct plm_status *st)
{
    const char *system = c->a->system;
    const bool first = plm_session_length(c->session) == 0, own_system = first && system && *system;
    const struct chat_message messages[2] = {{"system", own_system ? system : "", own_system ? strlen(system) : 0, false},
                                             {"user", message, strlen(message), false}};
    const enum chat_begin begin = !first ? CHAT_CONTINUES : system && !*system ? CHAT_BEGINS_WITHOUT : CHAT_BEGINS;
    c->tokens.length = 0;
    const int code = first ? PLM_OK : chat_template_close(c->template, c->encoder, !c->open, &c->tokens, st);
    return code ? code : chat_template_render(c->template, c->encoder, messages + !own_system, 1 + own_system, begin, true,
                                              &c->tokens, NULL, st);
}

static int show(struct chat *c, struct stop_text *t, size_t n, struct plm_status *st)
{
    const int code = text_stream_put(&c->out, stdout, t->data, n, st);
    stop_text_drop(t, n);
    return code;
}

/* One token of an answer, which is in the sequence. *done: it was the last. */
static int take(struct chat *c, struct stop_text *t, int32_t token, bool *done, struct plm_status *st)
{
    const char *bytes;
    c->open = token != c->turn_end;
    *done = !c->open || plm_token_ends(c->model, token);
    const size_t n = plm_token_bytes(c->model, token, true, &bytes);
    const bool hidden = plm_token_bytes(c->model, token, false, &bytes) == 0;
    const int code = *done ? PLM_OK : stop_text_add(t, bytes, n, hidden, done, st);
    return code ? code : show(c, t, *done ? t->length : stop_text_certain(t), st);
}

static int answer(struct chat *c, struct plm_status *st)
{
    const struct plm_sampling *sampling = &c->a->sampling;
    const volatile sig_atomic_t *interrupted = interrupt_catch();
    struct stop_text text = {.stops = (const char *const *)c->a->stops.items, .n_stops = c->a->stops.n};
    bool done = false;
    c->open = true;
    int code = plm_session_append(c->session, c->tokens.data, c->tokens.length, st);
    for (int64_t made = 0; (c->a->n == 0 || made < c->a->n) && !code && !done && !*interrupted;) {
        int32_t tokens[1 + MOST_DRAFTED];
        const size_t before = plm_session_length(c->session);
        const int64_t left = c->a->n ? c->a->n - made - 1 : MOST_DRAFTED;
        size_t n = 0, i = 0;
        code = plm_session_sample(c->session, sampling, &tokens[0], st);
        if (!code)
            code = plm_session_append_drafted(c->session, tokens[0], sampling, tokens + 1, left < MOST_DRAFTED ? (size_t)left : MOST_DRAFTED, &n, st);
        if (code)
            break;
        for (; i <= n && !code && !done; i++)
            code = take(c, &text, tokens[i], &done, st);
        if (i <= n) /* drafted beyond the end of the answer */
            plm_session_truncate(c->session, before + i, NULL);
        made += (int64_t)i;
    }
    if (!code && text.data)
        code = show(c, &text, text.length, st);
    if (!code)
        code = text_stream_end(&c->out, stdout, st);
    interrupt_release();
    stop_text_free(&text);
    return code ? code : text_stream_put(&c->out, stdout, "\n", 1, st);
}

/* One message: a command, or something to answer. */
static int take_message(struct chat *c, const char *message, struct plm_status *st)
{
    if (!strcmp(message, "/reset")) {
        refined_chat_reset(&c->refined);
        return c->session ? plm_session_truncate(c->session, 0, st) : PLM_OK;
    }
    int code = c->session ? add_message(c, message, st) : refined_chat_answer(&c->refined, message, st);
    if (!code && c->session)
        code = answer(c, st);
    if (code != PLM_ELIMIT)
        return code;
    printf("(the conversation has filled the context of %d tokens: /reset starts a new one)\n",
           c->a->session.context ? c->a->session.context : plm_model_context_length(c->model));
    return PLM_OK;
}

static int converse(struct chat *c, struct plm_status *st)
{
    struct message_input *in;
    char *message = NULL;
    int code = message_input_open(&in, st);
    while (!code && !(code = message_input_next(in, &message, st)) && message && strcmp(message, "/exit") != 0) {
        if (*message)
            code = take_message(c, message, st);
        free(message);
        message = NULL;
    }
    free(message);
    message_input_close(in);
    return code;
}

static int open_template(struct chat *c, struct plm_status *st)
{
    if (!c->model->tokenizer)
        return status_set(st, PLM_EUNSUPPORTED, "the model came without a tokenizer: put tokenizer.json beside the weights");
    int code = model_chat_template(&c->template, c->model, c->a->template, st);
    if (!code && !c->a->template)
        model_chat_template_note(c->model, c->template);
    if (!code)
        code = chat_template_end(c->template, c->model->tokenizer, &c->turn_end, st);
    return code ? code : encoder_create(&c->encoder, c->model->tokenizer, st);
}

/* The conversation of a file goes on where it was. */
static int load(struct chat *c, struct plm_status *st)
{
    size_t n;
    if (!c->a->session_file || access(c->a->session_file, F_OK) != 0)
        return PLM_OK;
    int code = plm_session_load(c->session, c->a->session_file, st);
    const int32_t *tokens = plm_session_tokens(c->session, &n);
    c->open = !code && n > 0 && tokens[n - 1] != c->turn_end;
    if (!code && n > 0 && c->a->system)
        fprintf(stderr, "note: --system cannot change a conversation that has begun ('%s'): it goes on with the system message it has\n",
                c->a->session_file);
    return code;
}

/* What answers come from: a session, or what refines them. */
static int open_source(struct chat *c, struct plm_status *st)
{
    const struct arguments *a = c->a;
    c->refined = (struct refined_chat){.model = c->model, .system = a->system, .show_drafts = a->show_drafts, .options = {.refinements = a->refinements,
        .parallel = a->parallel, .max_tokens = (int)a->n, .context = a->session.context, .n_threads = a->session.n_threads, .chat_template = a->template,
        .refine_template = a->refine_template, .sampling = &a->sampling}};
    if (a->refinements || a->parallel > 1)
        return PLM_OK;
    const int code = plm_session_open(&c->session, c->model, &a->session, st);
    return code ? code : load(c, st);
}

int command_chat(int argc, char **argv)
{
    struct arguments a = {.n = 512, .sampling = plm_sampling_default()};
    struct plm_status st = {0};
    struct chat c = {.a = &a};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    sampling_seed_random(&a.sampling);
    char path[PATH_MAX] = "";
    int code = open_model(&c.model, a.model, path, &st);
    if (!code)
        code = open_template(&c, &st);
    if (!code)
        code = open_source(&c, &st);
    if (!code)
        code = converse(&c, &st);
    if (!code && a.session_file)
        code = plm_session_save(c.session, a.session_file, &st);
    if (!code && a.session.lookup) {
        int64_t drafted, accepted;
        plm_session_drafts(c.session, &drafted, &accepted);
        fprintf(stderr, "%lld of %lld drafted tokens accepted\n", (long long)accepted, (long long)drafted);
    }
    text_list_free(&a.stops);
    text_list_free(&a.system_file);
    free(c.tokens.data);
    refined_chat_reset(&c.refined);
    encoder_free(c.encoder);
    chat_template_free(c.template);
    plm_session_close(c.session);
    plm_model_close(c.model);
    return code ? command_fail(&st) : 0;
}
