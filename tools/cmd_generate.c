/* plm generate: continue texts, or say how likely given continuations are. */
#include <argp.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/log.h"
#include "infer/model/session.h"
#include "tools/arguments.h"
#include "tools/cache_options.h"
#include "tools/command.h"
#include "tools/exit_status.h"
#include "tools/generation.h"
#include "tools/interrupt.h"
#include "tools/open_model.h"
#include "tools/result.h"
#include "tools/sampling_options.h"
#include "tools/text_list.h"
#include "tools/weigh_choices.h"

struct arguments {
    const char *model, *session_file;
    struct text_list prompts, stops, choices;
    bool json, tokens_given;
    struct plm_session_options session;
    struct generation_options generation;
};

enum { OPT_JSON = 256, OPT_IGNORE_EOS, OPT_SPECIAL, OPT_STOP, OPT_LOGPROBS, OPT_CHOICE, OPT_CHOICES, OPT_SAMPLES, OPT_SESSION, OPT_LOOKUP, OPT_PROMPT_FILE };

static const struct argp_option options[] = {
    {"prompt", 'p', "TEXT", 0, "the text to continue (required); may be given several times, one after the other", 0},
    {"prompt-file", OPT_PROMPT_FILE, "FILE", 0, "the same, from a file, or with - from standard input; one newline at its end is not part of it", 0},
    {"tokens", 'n', "N", 0, "generate at most N tokens (default 128); 0 or -1: without end, until Ctrl-C or a full context", 0},
    {"stop", OPT_STOP, "TEXT", 0, "end before this text (" ESCAPES_HELP "); may be given several times", 0},
    {"samples", OPT_SAMPLES, "N", 0, "N continuations of each prompt, generated as one batch (default 1)", 0},
    {"lookup", OPT_LOOKUP, "N", 0, "draft up to N tokens from earlier text and verify them together: the same text, "
                                 "sooner where it repeats (default 0)", 0},
    {"logprobs", OPT_LOGPROBS, "K", 0, "the log-probability of every token, and of the K likeliest beside it", 0},
    {"choice", OPT_CHOICE, "TEXT", 0, "generate nothing: print the log-probability of this continuation, which is taken as it stands (\\n is a backslash and an n); may be given several times", 0},
    {"choices", OPT_CHOICES, "FILE", 0, "the same for every line of FILE (-: standard input), as it stands", 0},
    {"session", OPT_SESSION, "FILE", 0,
     "keep the cache there (of --samples the first one's): what the prompt has in common with it is not "
     "computed again", 0},
    {"threads", 't', "N", 0, "threads; 0: one per processor (default)", 0},
    {"json", OPT_JSON, 0, 0, "print one JSON object per prompt, with text, token ids and timings, instead of the text", 0},
    {"ignore-eos", OPT_IGNORE_EOS, 0, 0, "go on after a token that ends a text", 0},
    {"special", OPT_SPECIAL, 0, 0, "read special tokens such as <|im_start|> in the prompt, and print them", 0},
    {0},
};

static void check_combinations(const struct arguments *a, struct argp_state *state)
{
    const struct generation_options *g = &a->generation;
    if (!a->model || a->prompts.n == 0)
        argp_error(state, "MODEL and --prompt (or --prompt-file) are required");
    if (g->lookup && (g->samples > 1 || (a->session.cache_policy && strcmp(a->session.cache_policy, "full") != 0)))
        argp_error(state, "--lookup is for one sample and the full cache: leave out --samples and --cache-policy");
    if (a->choices.n && (g->samples > 1 || g->lookup || a->session_file || a->stops.n || g->logprobs >= 0 || a->session.cache_policy ||
                         a->session.cache_type))
        argp_error(state, "--choice generates nothing: only --prompt, --context, --threads, --special and --json go with it");
    if (a->choices.n) {
        static const char why[] = "with --choice, which generates nothing";
        sampling_unused(why);
        if (a->tokens_given)
            argument_unused("tokens", why);
        if (g->ignore_eos)
            argument_unused("ignore-eos", why);
        if (a->session.dense)
            argument_unused("dense", why);
    } else if (g->samples > 1 && g->sampling.temperature == 0) {
        fprintf(stderr, "note: at temperature 0 the %d samples are the same\n", g->samples);
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    struct generation_options *g = &a->generation;
    struct plm_status st = {0};
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &g->sampling, state->child_inputs[1] = &a->session; return 0;
    case 'p': text_list_argument(&a->prompts, arg, "prompt", TEXT_ANY, state); return 0;
    case OPT_PROMPT_FILE:
        if (text_list_read_whole(&a->prompts, arg, &st))
            argp_failure(state, STATUS_ERROR, 0, "error: %s", st.message);
        return 0;
    case 'n':
        a->tokens_given = true;
        g->max_tokens = argument_range(state, "tokens", arg, -1, INT32_MAX);
        g->max_tokens += g->max_tokens < 0;
        return 0;
    case 't': a->session.n_threads = argument_whole(state, "threads", arg); return 0;
    case OPT_STOP: text_list_argument(&a->stops, arg, "stop", TEXT_ESCAPED, state); return 0;
    case OPT_SAMPLES: g->samples = (int)argument_range(state, "samples", arg, 1, 1024); return 0;
    case OPT_LOOKUP: g->lookup = (int)argument_range(state, "lookup", arg, 0, 64); return 0;
    case OPT_LOGPROBS: g->logprobs = (int)argument_range(state, "logprobs", arg, 0, 100); return 0;
    case OPT_CHOICE: text_list_argument(&a->choices, arg, "choice", TEXT_RAW, state); return 0;
    case OPT_CHOICES:
        if (text_list_read(&a->choices, arg, &st))
            argp_failure(state, STATUS_ERROR, 0, "error: %s", st.message);
        return 0;
    case OPT_SESSION: a->session_file = arg; return 0;
    case OPT_JSON: a->json = true; return 0;
    case OPT_IGNORE_EOS: g->ignore_eos = true; return 0;
    case OPT_SPECIAL: g->special = true; return 0;
    case ARGP_KEY_ARG: argument_only(state, "MODEL", arg, &a->model); return 0;
    case ARGP_KEY_SUCCESS: check_combinations(a, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&sampling_argp, 0, "Sampling:", 1}, {&cache_argp, 0, "Cache:", 2}, {0}};

static const struct argp parser = {options, parse, "MODEL",
    "Continue a text. " MODEL_HELP " The text goes to standard output, the speed to standard error.\v"
    "Examples:\n  plm generate model-q8_0.gguf --prompt 'The hacker' -n 64 --temperature 0 --lookup 3\n"
    "  plm generate model-q8_0.gguf --prompt 'The sky is' --choice ' blue' --choice ' green'\n"
    "  plm generate model-q8_0.gguf --prompt 'Once' -n 0 --cache-policy d2o --cache-budget 512", children, 0, 0};

static int tokenize(const struct plm_model *model, const char *prompt, bool special, struct token_list *ids, struct plm_status *st)
{
    struct encoder *encoder;
    if (!*prompt)
        return status_set(st, PLM_EINVAL, "the prompt is empty: give the model at least one character to continue");
    if (!model->tokenizer)
        return status_set(st, PLM_EUNSUPPORTED, "the model came without a tokenizer: put tokenizer.json beside the weights");
    int code = encoder_create(&encoder, model->tokenizer, st);
    ids->length = 0;
    if (!code)
        code = encoder_encode_whole(encoder, prompt, strlen(prompt), special, ids, st);
    encoder_free(encoder);
    if (!code && tokenizer_marks(model->tokenizer)->add_eos)
        log_info("the model's files end every text with token %d (add_eos_token): the prompt too",
                 (int)tokenizer_marks(model->tokenizer)->eos);
    return code;
}

static double rate(size_t n, double seconds) { return seconds > 0 ? (double)n / seconds : 0; }

static json_t *token_json(const struct generation *g, int32_t token, double log_prob)
{
    const char *bytes;
    const size_t n = plm_token_bytes(g->model, token, true, &bytes);
    return json_pack("{s:i, s:o, s:f}", "token", token, "text", result_text(bytes, n), "logprob", log_prob);
}

static json_t *log_probs_json(const struct generation *g, const struct sample *s)
{
    json_t *all = json_array();
    const size_t k = (size_t)(g->o->logprobs > 0 ? g->o->logprobs : 0);
    for (size_t i = 0; i < s->n; i++) {
        json_t *row = token_json(g, s->tokens[i], s->log_probs[i]), *top = json_array();
        for (size_t j = 0; j < k; j++)
            json_array_append_new(top, token_json(g, s->top[i * k + j], s->top_log_probs[i * k + j]));
        json_object_set_new(row, "top", top);
        json_array_append_new(all, row);
    }
    return all;
}

static json_t *sample_json(const struct generation *g, const struct sample *s)
{
    json_t *ids = json_array();
    for (size_t i = 0; i < s->n; i++)
        json_array_append_new(ids, json_integer(s->tokens[i]));
    json_t *v = json_pack("{s:o, s:o, s:s, s:I}", "text", result_text(s->text.data, s->text.length), "tokens", ids, "finish_reason", s->finish,
                          "generated_tokens", (json_int_t)s->n);
    if (v && g->o->logprobs >= 0)
        json_object_set_new(v, "logprobs", log_probs_json(g, s));
    return v;
}

/* One object per prompt: the fields of the sample in it, or those of all in "samples". */
static int print_json(const struct generation *g, const char *prompt, struct plm_status *st)
{
    json_t *root = json_pack("{s:o}", "prompt", result_text(prompt, strlen(prompt))), *samples = json_array();
    for (int i = 0; i < g->o->samples; i++)
        json_array_append_new(samples, sample_json(g, &g->samples[i]));
    if (root && g->o->samples == 1)
        json_object_update(root, json_array_get(samples, 0));
    else if (root)
        json_object_set(root, "samples", samples);
    json_decref(samples);
    json_t *speed = json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:I}", "prompt_tokens", (json_int_t)g->n_prompt,
        "reused_tokens", (json_int_t)g->reused, "prefill_seconds", g->prefill_s, "decode_seconds", g->decode_s,
        "prefill_tokens_per_s", rate(g->n_prompt - g->reused, g->prefill_s), "decode_tokens_per_s", rate(g->generated, g->decode_s),
        "drafted_tokens", (json_int_t)g->lookup.drafted, "accepted_tokens", (json_int_t)g->lookup.accepted);
    const bool ok = root && speed && !json_object_update(root, speed) && !json_dumpf(root, stdout, JSON_PRESERVE_ORDER | JSON_COMPACT);
    putchar('\n');
    json_decref(root);
    json_decref(speed);
    return ok ? PLM_OK : result_failed(st);
}

static void print_token(const struct generation *g, int32_t token, double log_prob)
{
    const char *bytes;
    const size_t n = plm_token_bytes(g->model, token, true, &bytes);
    json_t *text = result_text(bytes, n);
    printf("%10.6f ", log_prob);
    json_dumpf(text, stdout, JSON_ENCODE_ANY);
    json_decref(text);
}

static void print_text(const struct generation *g)
{
    for (int i = 0; i < g->o->samples; i++) {
        const struct sample *s = &g->samples[i];
        const size_t k = (size_t)(g->o->logprobs > 0 ? g->o->logprobs : 0);
        if (g->o->samples > 1)
            printf("--- sample %d of %d, ended by %s\n", i + 1, g->o->samples, s->finish);
        struct text_stream out = {0};
        struct plm_status st = {0}; /* what cannot be written is noticed at the end */
        text_stream_put(&out, stdout, s->text.data, s->text.length, &st);
        text_stream_end(&out, stdout, &st);
        putchar('\n');
        for (size_t t = 0; t < s->n && g->o->logprobs >= 0; t++) {
            print_token(g, s->tokens[t], s->log_probs[t]);
            for (size_t j = 0; j < k; j++)
                print_token(g, s->top[t * k + j], s->top_log_probs[t * k + j]);
            putchar('\n');
        }
    }
    fflush(stdout);
    fprintf(stderr, "%zu prompt tokens", g->n_prompt);
    if (g->reused)
        fprintf(stderr, ", %zu of them in the cache,", g->reused);
    fprintf(stderr, " in %.3f s (%.1f per second), %zu generated in %.3f s (%.1f per second)", g->prefill_s,
            rate(g->n_prompt - g->reused, g->prefill_s), g->generated, g->decode_s, rate(g->generated, g->decode_s));
    if (g->o->lookup)
        fprintf(stderr, ", %lld of %lld drafted tokens accepted", (long long)g->lookup.accepted, (long long)g->lookup.drafted);
    fprintf(stderr, ", stopped by %s\n", g->samples[0].finish);
}

static int continue_prompts(struct arguments *a, const struct plm_model *model, struct plm_status *st)
{
    struct generation_options *o = &a->generation;
    struct generation g = {.o = o};
    struct token_list ids = {0};
    int code = sequence_options_by_name(&o->sequence, &a->session, st);
    o->n_threads = a->session.n_threads, o->context = a->session.context, o->dense = a->session.dense;
    o->stops = (const char *const *)a->stops.items, o->n_stops = a->stops.n;
    o->keep = a->json || o->samples > 1 || o->logprobs >= 0;
    o->out = a->json || o->samples > 1 ? NULL : stdout;
    o->interrupted = interrupt_catch();
    if (!code)
        code = generation_open(&g, model, o, st);
    if (!code && a->session_file && access(a->session_file, F_OK) == 0)
        code = sequence_load(g.samples[0].sequence, a->session_file, st);
    for (int i = 0; i < a->prompts.n && !code && !*o->interrupted; i++) {
        code = tokenize(model, a->prompts.items[i], o->special, &ids, st);
        if (!code)
            code = generation_run(&g, ids.data, ids.length, st);
        if (!code && a->json)
            code = print_json(&g, a->prompts.items[i], st);
        else if (!code)
            print_text(&g);
    }
    if (!code && a->session_file)
        code = sequence_save(g.samples[0].sequence, a->session_file, st);
    generation_close(&g);
    free(ids.data);
    return code;
}

int command_generate(int argc, char **argv)
{
    struct arguments a = {.generation = {.max_tokens = 128, .samples = 1, .logprobs = -1, .sampling = plm_sampling_default()}};
    struct plm_status st = {0};
    struct plm_model *model = NULL;
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    int code = open_model(&model, a.model, NULL, &st);
    struct weigh_options weigh = {.choices = (const char *const *)a.choices.items, .n = a.choices.n, .context = a.session.context,
                                  .threads = a.session.n_threads, .special = a.generation.special, .json = a.json};
    for (int i = 0; i < a.prompts.n && !code && a.choices.n; i++) {
        weigh.prompt = a.prompts.items[i];
        code = weigh_choices(model, &weigh, &st);
    }
    if (!code && a.choices.n == 0)
        code = continue_prompts(&a, model, &st);
    plm_model_close(model);
    text_list_free(&a.prompts);
    text_list_free(&a.stops);
    text_list_free(&a.choices);
    return code ? command_fail(&st) : 0;
}
