/* plm generate: continue a text. */
#include <argp.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "infer/base/status.h"
#include "tools/arguments.h"
#include "tools/cache_options.h"
#include "tools/command.h"
#include "tools/open_model.h"
#include "tools/sampling_options.h"

struct arguments {
    const char *model, *prompt;
    int n;
    bool json, ignore_eos, parse_special;
    struct plm_sampling sampling;
    struct plm_session_options session;
};

enum { OPT_JSON = 256, OPT_IGNORE_EOS, OPT_SPECIAL };

static const struct argp_option options[] = {
    {"prompt", 'p', "TEXT", 0, "the text to continue (required)", 0},
    {"tokens", 'n', "N", 0, "generate at most N tokens (default 128)", 0},
    {"threads", 't', "N", 0, "threads; 0: one per processor (default)", 0},
    {"json", OPT_JSON, 0, 0, "print one JSON object with text, token ids and timings instead of the text", 0},
    {"ignore-eos", OPT_IGNORE_EOS, 0, 0, "go on after the end-of-text token", 0},
    {"special", OPT_SPECIAL, 0, 0, "read special tokens such as <|im_start|> in the prompt, and print them", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &a->sampling, state->child_inputs[1] = &a->session; return 0;
    case 'p': a->prompt = arg; return 0;
    case 'n': a->n = argument_whole(state, "tokens", arg); return 0;
    case 't': a->session.n_threads = argument_whole(state, "threads", arg); return 0;
    case OPT_JSON: a->json = true; return 0;
    case OPT_IGNORE_EOS: a->ignore_eos = true; return 0;
    case OPT_SPECIAL: a->parse_special = true; return 0;
    case ARGP_KEY_ARG: argument_only(state, "MODEL", arg, &a->model); return 0;
    case ARGP_KEY_END:
        if (!a->model || !a->prompt)
            argp_error(state, "MODEL and --prompt are required");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&sampling_argp, 0, "Sampling:", 1}, {&cache_argp, 0, "Cache:", 2}, {0}};

static const struct argp parser = {options, parse, "MODEL",
    "Continue a text. " MODEL_HELP " The text goes to standard output, the speed to standard error.\v"
    "Example: plm generate model-q8_0.gguf --prompt 'The hacker' -n 64 --temperature 0", children, 0, 0};

struct generation {
    int32_t *tokens;      /* prompt, then what was generated */
    size_t n_prompt, n;   /* tokens of the prompt, and of both */
    char *text;           /* bytes of the generated tokens */
    size_t text_bytes;
    double prefill_s, decode_s;
    const char *finish;   /* "length", "eos" or "context" */
};

static int tokenize_prompt(const struct arguments *a, const struct plm_model *model, struct generation *g, struct plm_status *st)
{
    const size_t bytes = strlen(a->prompt), capacity = bytes + 16 + (size_t)a->n; /* a token has at least one byte; NFC may add some */
    if (bytes == 0)
        return status_set(st, PLM_EINVAL, "the prompt is empty: give the model at least one character to continue");
    g->tokens = malloc(3 * capacity * sizeof *g->tokens);
    if (!g->tokens)
        return status_no_memory(st, 3 * capacity * sizeof *g->tokens, "the tokens");
    int code = plm_tokenize(model, a->prompt, bytes, a->parse_special, g->tokens, 3 * capacity - (size_t)a->n, &g->n_prompt, st);
    g->n = g->n_prompt;
    return code;
}

static int append_text(struct generation *g, const char *bytes, size_t n, struct plm_status *st)
{
    char *text = realloc(g->text, g->text_bytes + n + 1);
    if (!text)
        return status_no_memory(st, g->text_bytes + n + 1, "the text");
    memcpy(text + g->text_bytes, bytes, n);
    g->text = text;
    g->text_bytes += n;
    text[g->text_bytes] = 0;
    return PLM_OK;
}

static int generate(const struct arguments *a, const struct plm_model *model, struct plm_session *session, struct generation *g, struct plm_status *st)
{
    double start = seconds_now();
    int code = plm_session_append(session, g->tokens, g->n_prompt, st);
    g->prefill_s = seconds_now() - start;
    start = seconds_now();
    const size_t limit = (size_t)(a->session.context ? a->session.context : plm_model_context_length(model));
    g->finish = "length";
    for (int i = 0; i < a->n && !code; i++) {
        int32_t token;
        code = plm_session_sample(session, &a->sampling, &token, st);
        if (code)
            break;
        g->tokens[g->n++] = token;
        if (token == plm_token_eos(model) && !a->ignore_eos) {
            g->finish = "eos";
            break;
        }
        const char *bytes;
        const size_t n = plm_token_bytes(model, token, a->parse_special, &bytes);
        if (n)
            code = append_text(g, bytes, n, st);
        if (!a->json && n) {
            fwrite(bytes, 1, n, stdout);
            fflush(stdout);
        }
        if (plm_session_length(session) == limit) {
            g->finish = "context";
            break;
        }
        if (!code && i + 1 < a->n)
            code = plm_session_append(session, &token, 1, st);
    }
    g->decode_s = seconds_now() - start;
    return code;
}

static int print_json(const struct arguments *a, const struct generation *g, struct plm_status *st)
{
    char *clean = malloc(3 * g->text_bytes + 1);
    if (!clean)
        return status_no_memory(st, 3 * g->text_bytes + 1, "the text");
    int64_t replaced;
    const size_t n = utf8_repair(g->text ? g->text : "", g->text_bytes, clean, &replaced); /* a cut token may end inside a character */
    json_t *ids = json_array();
    for (size_t i = g->n_prompt; i < g->n; i++)
        json_array_append_new(ids, json_integer(g->tokens[i]));
    const size_t made = g->n - g->n_prompt;
    json_t *root = json_pack("{s:s, s:s%, s:o, s:s, s:I, s:I, s:f, s:f}", "prompt", a->prompt, "text", clean, n, "tokens", ids, "finish_reason", g->finish,
                             "prompt_tokens", (json_int_t)g->n_prompt, "generated_tokens", (json_int_t)made, "prefill_tokens_per_s",
                             g->prefill_s > 0 ? (double)g->n_prompt / g->prefill_s : 0.0, "decode_tokens_per_s", g->decode_s > 0 ? (double)made / g->decode_s : 0.0);
    free(clean);
    if (!root)
        return status_set(st, PLM_EINVAL, "the prompt is not valid UTF-8, which JSON cannot hold; leave out --json");
    json_dumpf(root, stdout, JSON_PRESERVE_ORDER | JSON_COMPACT);
    putchar('\n');
    json_decref(root);
    return PLM_OK;
}

int command_generate(int argc, char **argv)
{
    struct arguments a = {.n = 128, .sampling = plm_sampling_default()};
    struct plm_status st = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    struct plm_model *model = NULL;
    struct plm_session *session = NULL;
    struct generation g = {0};
    int code = open_model(&model, a.model, NULL, &st);
    if (!code)
        code = tokenize_prompt(&a, model, &g, &st);
    if (!code) {
        code = plm_session_open(&session, model, &a.session, &st);
    }
    if (!code)
        code = generate(&a, model, session, &g, &st);
    if (!code && a.json)
        code = print_json(&a, &g, &st);
    if (!code && !a.json) {
        putchar('\n');
        fflush(stdout);
        fprintf(stderr, "%zu prompt tokens in %.3f s (%.1f per second), %zu generated in %.3f s (%.1f per second), stopped by %s\n", g.n_prompt, g.prefill_s,
                g.prefill_s > 0 ? (double)g.n_prompt / g.prefill_s : 0, g.n - g.n_prompt, g.decode_s, g.decode_s > 0 ? (double)(g.n - g.n_prompt) / g.decode_s : 0, g.finish);
    }
    free(g.tokens);
    free(g.text);
    plm_session_close(session);
    plm_model_close(model);
    return code ? command_fail(&st) : 0;
}
