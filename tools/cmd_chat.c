/* plm chat: a conversation in the ChatML template of PLM (plm.md 3.3). */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef HAVE_LIBEDIT
#include <editline/readline.h>
#endif

#include "infer/base/status.h"
#include "tools/arguments.h"
#include "tools/cache_options.h"
#include "tools/command.h"
#include "tools/interrupt.h"
#include "tools/open_model.h"
#include "tools/sampling_options.h"
#include "tools/stop_text.h"
#include "tools/text_list.h"

struct arguments {
    const char *model, *system, *session_file;
    struct text_list stops;
    int64_t n; /* 0: without end */
    struct plm_sampling sampling;
    struct plm_session_options session;
};

enum { OPT_STOP = 256, OPT_SESSION, OPT_LOOKUP, MOST_DRAFTED = 64 };

static const struct argp_option options[] = {
    {"system", 's', "TEXT", 0, "the system message (default: You are a helpful assistant)", 0},
    {"tokens", 'n', "N", 0, "at most N tokens in an answer (default 512); 0 or -1: without end", 0},
    {"stop", OPT_STOP, "TEXT", 0, "an answer ends before this text, \\n is a newline; may be given several times", 0},
    {"lookup", OPT_LOOKUP, "N", 0, "draft up to N tokens from earlier text and verify them together: the same answers, "
                                 "sooner where text repeats (default 0)", 0},
    {"session", OPT_SESSION, "FILE", 0, "go on with the conversation kept there, and keep it there at the end", 0},
    {"threads", 't', "N", 0, "threads; 0: one per processor (default)", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &a->sampling, state->child_inputs[1] = &a->session; return 0;
    case 's': a->system = arg; return 0;
    case 'n': a->n = argument_range(state, "tokens", arg, -1, INT32_MAX); a->n += a->n < 0; return 0;
    case OPT_STOP: text_list_argument(&a->stops, arg, "stop", true, state); return 0;
    case OPT_LOOKUP: a->session.lookup = (int)argument_range(state, "lookup", arg, 0, MOST_DRAFTED); return 0;
    case OPT_SESSION: a->session_file = arg; return 0;
    case 't': a->session.n_threads = argument_whole(state, "threads", arg); return 0;
    case ARGP_KEY_ARG: argument_only(state, "MODEL", arg, &a->model); return 0;
    case ARGP_KEY_END:
        if (!a->model)
            argp_error(state, "MODEL is required");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&sampling_argp, 0, "Sampling:", 1}, {&cache_argp, 0, "Cache:", 2}, {0}};

static const struct argp parser = {options, parse, "MODEL",
    "Talk with a model in the ChatML template. " MODEL_HELP " The answer appears as it is made; Ctrl-C stops it, Ctrl-D or /exit ends the conversation, "
    "/reset starts a new one. Messages come from the terminal (with line editing and history) or, line by line, from a pipe.\v"
    "Example: plm chat model-q8_0.gguf --system 'Answer briefly.'", children, 0, 0};

struct chat {
    const struct arguments *a;
    struct plm_model *model;
    struct plm_session *session;
    int32_t *tokens; /* (capacity) what is appended next */
    size_t capacity, n;
    int32_t turn_end; /* <|im_end|> */
    bool open;        /* the last answer was cut off before its <|im_end|> */
};

/* Append text to c->tokens; special: it is template text, whose <|...|> are special tokens (a person's are not). */
static int add(struct chat *c, const char *text, bool special, struct plm_status *st)
{
    size_t n;
    int code = plm_tokenize(c->model, text, strlen(text), special, c->tokens + c->n, c->capacity - c->n, &n, st);
    if (!code)
        c->n += n;
    return code;
}

static int add_turn(struct chat *c, const char *role, const char *content, struct plm_status *st)
{
    int code = add(c, "<|im_start|>", true, st);
    if (!code)
        code = add(c, role, false, st);
    if (!code)
        code = add(c, "\n", false, st);
    if (!code)
        code = add(c, content, false, st);
    return code ? code : add(c, "<|im_end|>\n", true, st);
}

/* The conversation so far lies in the cache; only what is new is added to it. */
static int add_message(struct chat *c, const char *message, struct plm_status *st)
{
    c->n = 0;
    int code = PLM_OK;
    if (plm_session_length(c->session) == 0)
        code = add_turn(c, "system", c->a->system, st);
    else
        code = add(c, c->open ? "<|im_end|>\n" : "\n", true, st);
    if (!code)
        code = add_turn(c, "user", message, st);
    return code ? code : add(c, "<|im_start|>assistant\n", true, st);
}

static void show(struct stop_text *t, size_t n)
{
    fwrite(t->data, 1, n, stdout);
    fflush(stdout);
    stop_text_drop(t, n);
}

/* One token of an answer, which is in the sequence. *done: it was the last. */
static int take(struct chat *c, struct stop_text *t, int32_t token, bool *done, struct plm_status *st)
{
    const char *bytes;
    c->open = token != c->turn_end;
    *done = !c->open || token == plm_token_eos(c->model);
    const size_t n = *done ? 0 : plm_token_bytes(c->model, token, false, &bytes);
    const int code = *done ? PLM_OK : stop_text_add(t, bytes, n, done, st);
    if (!code)
        show(t, *done ? t->length : stop_text_certain(t));
    return code;
}

static int answer(struct chat *c, struct plm_status *st)
{
    const struct plm_sampling *sampling = &c->a->sampling;
    const volatile sig_atomic_t *interrupted = interrupt_catch();
    struct stop_text text = {.stops = (const char *const *)c->a->stops.items, .n_stops = c->a->stops.n};
    bool done = false;
    c->open = true;
    int code = plm_session_append(c->session, c->tokens, c->n, st);
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
    if (text.data)
        show(&text, text.length);
    interrupt_release();
    free(text.data);
    putchar('\n');
    fflush(stdout);
    return code;
}

/* A line, malloc'ed, without its end; NULL at the end of the input. */
static char *read_message(bool terminal)
{
#ifdef HAVE_LIBEDIT
    if (terminal) {
        char *line = readline("> ");
        if (line && *line)
            add_history(line);
        return line;
    }
#endif
    char *line = NULL;
    size_t capacity = 0;
    if (terminal) {
        fputs("> ", stdout);
        fflush(stdout);
    }
    ssize_t n = getline(&line, &capacity, stdin);
    if (n < 0) {
        free(line);
        return NULL;
    }
    line[strcspn(line, "\r\n")] = 0;
    return line;
}

static int converse(struct chat *c, struct plm_status *st)
{
    const bool terminal = isatty(STDIN_FILENO);
    int code = PLM_OK;
    for (char *line; !code && (line = read_message(terminal)); free(line)) {
        if (!strcmp(line, "/exit")) {
            free(line);
            break;
        }
        if (!strcmp(line, "/reset")) {
            code = plm_session_truncate(c->session, 0, st);
            continue;
        }
        if (!*line)
            continue;
        code = add_message(c, line, st);
        if (!code)
            code = answer(c, st);
        if (code == PLM_ELIMIT) {
            printf("(the conversation has filled the context of %zu tokens: /reset starts a new one)\n", c->capacity);
            code = PLM_OK;
        }
    }
    return code;
}

static int find_turn_end(struct chat *c, struct plm_status *st)
{
    int32_t tokens[16];
    size_t n;
    int code = plm_tokenize(c->model, "<|im_end|>", 10, true, tokens, 16, &n, st);
    if (!code && n != 1)
        code = status_set(st, PLM_EUNSUPPORTED, "the tokenizer has no <|im_end|>: this model was not made for conversations; use plm generate");
    c->turn_end = tokens[0];
    return code;
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
    return code;
}

int command_chat(int argc, char **argv)
{
    struct arguments a = {.system = "You are a helpful assistant", .n = 512, .sampling = plm_sampling_default()};
    struct plm_status st = {0};
    struct chat c = {.a = &a};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    int code = open_model(&c.model, a.model, NULL, &st);
    if (!code)
        code = find_turn_end(&c, &st);
    if (!code) {
        code = plm_session_open(&c.session, c.model, &a.session, &st);
    }
    if (!code) {
        c.capacity = (size_t)(a.session.context ? a.session.context : plm_model_context_length(c.model));
        c.tokens = malloc(c.capacity * sizeof *c.tokens);
        code = c.tokens ? load(&c, &st) : status_no_memory(&st, c.capacity * sizeof *c.tokens, "the tokens");
    }
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
    free(c.tokens);
    plm_session_close(c.session);
    plm_model_close(c.model);
    return code ? command_fail(&st) : 0;
}
