/* plm eval perplexity|choice|exact|recall; kv is in cmd_eval_kv.c */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/output.h"
#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/eval.h"
#include "tools/eval_answer.h"
#include "tools/open_model.h"
#include "tools/result.h"
#include "tools/text_list.h"

enum { MAX_STOPS = 16, MAX_DEPTHS = 64 };
enum { OPT_CONTEXT = 256, OPT_JSON, OPT_LIMIT, OPT_ITEMS, OPT_STRIDE, OPT_MAX_TOKENS, OPT_FIELD, OPT_DELIMITER, OPT_TEMPLATE, OPT_STOP,
       OPT_EXTRACT, OPT_SPECIAL, OPT_TASK, OPT_DEPTH, OPT_LENGTH, OPT_PAIRS, OPT_QUERIES, OPT_KEYS, OPT_DIGITS, OPT_COUNT, OPT_SEED, OPT_BATCH };

struct arguments {
    const char *model, *items;
    char **inputs;
    int n_inputs, context, threads, batch;
    bool json;
    struct eval_perplexity_options perplexity;
    struct eval_choice_options choice;
    struct eval_exact_options exact;
    struct eval_recall_options recall;
    const char *stops[MAX_STOPS];
    double depths[MAX_DEPTHS];
};

static error_t parse_common(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case OPT_CONTEXT: a->context = (int)argument_range(state, "context", arg, 1, INT32_MAX); return 0;
    case 't': a->threads = argument_whole(state, "threads", arg); return 0;
    case OPT_JSON: a->json = true; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option common_options[] = {
    {"context", OPT_CONTEXT, "N", 0, "positions of the cache (default: what the model was trained for)", 0},
    {"threads", 't', "N", 0, "threads; 0: one per processor (default)", 0},
    {"json", OPT_JSON, 0, 0, "print the result as JSON", 0},
    {0},
};
static const struct argp common_parser = {common_options, parse_common, 0, 0, 0, 0, 0};
static const struct argp_child common[] = {{&common_parser, 0, "Common:", 9}, {0}};

/* MODEL, then what is evaluated on: at least `least` more arguments and at most `most`. */
static void positional(struct argp_state *state, int least, int most, const char *what)
{
    struct arguments *a = state->input;
    const int n = state->argc - state->next;
    if (n < 1 + least)
        argp_error(state, "MODEL%s%s required", least ? " and " : " is", least ? what : "");
    if (n > 1 + most)
        argp_error(state, "one %s only, found '%s'", most ? what : "MODEL", state->argv[state->next + 1 + most]);
    a->model = state->argv[state->next];
    a->inputs = state->argv + state->next + 1;
    a->n_inputs = n - 1;
    state->next = state->argc;
}

/* Run one evaluation, with the model opened and closed around it. */
static int evaluate(struct arguments *a, int (*run)(struct eval_model *, struct arguments *, json_t **, struct plm_status *))
{
    struct plm_status st = {0};
    struct eval_model e;
    json_t *result = NULL;
    FILE *items = NULL;
    int code = eval_model_open(&e, a->model, a->context, a->threads, &st);
    if (!code && a->items)
        code = output_create_stream(&items, a->items, &st);
    a->choice.items = a->exact.items = items;
    e.batch = a->batch ? a->batch : 1;
    a->exact.batch = a->batch;
    if (!code)
        code = run(&e, a, &result, &st);
    if (items && (ferror(items) | fclose(items)) && !code)
        code = status_set(&st, PLM_EIO, "cannot write '%s': %s", a->items, strerror(errno));
    if (!code)
        code = result_print(stdout, result, a->json, &st);
    json_decref(result);
    eval_model_close(&e);
    return code ? command_fail(&st) : 0;
}

/* --- perplexity --- */

static const struct argp_option perplexity_options[] = {
    {"stride", OPT_STRIDE, "N", 0, "tokens between windows, 1 to the context (default: half of the context)", 0},
    {"max-tokens", OPT_MAX_TOKENS, "N", 0, "stop after N tokens; 0: all (default)", 0},
    {"text-field", OPT_FIELD, "NAME", 0, "the text in a JSON line (default text)", 0},
    {0},
};

static error_t parse_perplexity(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = a; return 0;
    case OPT_STRIDE: a->perplexity.stride = (int)argument_range(state, "stride", arg, 1, INT32_MAX); return 0;
    case OPT_MAX_TOKENS: a->perplexity.max_tokens = argument_range(state, "max-tokens", arg, 0, INT64_MAX); return 0;
    case OPT_FIELD: a->perplexity.text_field = arg; return 0;
    case ARGP_KEY_ARGS: positional(state, 1, INT32_MAX - 1, "FILE"); return 0;
    case ARGP_KEY_NO_ARGS: argp_error(state, "MODEL and FILE are required"); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp perplexity_parser = {perplexity_options, parse_perplexity, "MODEL FILE...",
    "Perplexity per token, nats per token and bits per byte of text. " MODEL_HELP " FILE is text, code or JSON lines, plain, .gz or "
    ".zst, or a directory of such; every document is evaluated on its own, every token once.\v"
    "Example: plm eval perplexity model.gguf held-out.txt --context 512 --stride 256", common, 0, 0};

static int run_perplexity(struct eval_model *e, struct arguments *a, json_t **result, struct plm_status *st)
{
    return eval_perplexity(e, (const char *const *)a->inputs, a->n_inputs, &a->perplexity, result, st);
}

static int command_perplexity(int argc, char **argv)
{
    struct arguments a = {0};
    argp_parse(&perplexity_parser, argc, argv, 0, NULL, &a);
    return evaluate(&a, run_perplexity);
}

/* --- choice --- */

static const struct argp_option choice_options[] = {
    {"delimiter", OPT_DELIMITER, "TEXT", 0, "between context and choice; " ESCAPES_HELP " (default: nothing)", 0},
    {"limit", OPT_LIMIT, "N", 0, "the first N rows; 0: all (default)", 0},
    {"items", OPT_ITEMS, "FILE", 0, "write each row's log-probabilities and choices to this JSONL file", 0},
    {"batch", OPT_BATCH, "N", 0, "choices of a row that are scored together (default 16)", 0},
    {0},
};

static error_t parse_choice(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = a; return 0;
    case OPT_BATCH: a->batch = (int)argument_range(state, "batch", arg, 1, 1024); return 0;
    case OPT_DELIMITER: a->choice.delimiter = text_unescape(arg); return 0;
    case OPT_LIMIT: a->choice.limit = argument_range(state, "limit", arg, 0, INT64_MAX); return 0;
    case OPT_ITEMS: a->items = arg; return 0;
    case ARGP_KEY_ARGS: positional(state, 1, 1, "FILE"); return 0;
    case ARGP_KEY_NO_ARGS: argp_error(state, "MODEL and FILE are required"); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp choice_parser = {choice_options, parse_choice, "MODEL FILE",
    "Multiple choice: the choice with the highest log-probability, summed and per byte. " MODEL_HELP " FILE has lines {\"context\": "
    "..., \"choices\": [...], \"answer\": INDEX} (or query and gold; or context_options, continuation and gold). Context and choice are "
    "tokenised together and scored from the first token where any choice departs from the context's own.\v"
    "Example: plm eval choice model.gguf arc.jsonl --delimiter '\\nAnswer: ' --limit 200", common, 0, 0};

static int run_choice(struct eval_model *e, struct arguments *a, json_t **result, struct plm_status *st)
{
    return eval_choice(e, a->inputs[0], &a->choice, result, st);
}

static int command_choice(int argc, char **argv)
{
    struct arguments a = {.choice.delimiter = "", .batch = 16};
    argp_parse(&choice_parser, argc, argv, 0, NULL, &a);
    return evaluate(&a, run_choice);
}

/* --- exact --- */

static const struct argp_option exact_options[] = {
    {"template", OPT_TEMPLATE, "TEXT", 0, "the prompt, with {field} for a field of the row; " ESCAPES_HELP " (default: {prompt}, or "
                                          "for rows with a question 'Question: {question}\\nAnswer:')", 0},
    {"stop", OPT_STOP, "TEXT", 0, "generation ends before this text (" ESCAPES_HELP "); may be given several times (default \\n\\n)", 0},
    {"extract", OPT_EXTRACT, "RULE", 0, "the answer in the text: last-number (default), gsm8k (the number after ####), line or all", 0},
    {"max-tokens", OPT_MAX_TOKENS, "N", 0, "generate at most N tokens (default 256)", 0},
    {"special", OPT_SPECIAL, 0, 0, "read special tokens such as <|im_start|> in the prompt", 0},
    {"limit", OPT_LIMIT, "N", 0, "the first N rows; 0: all (default)", 0},
    {"items", OPT_ITEMS, "FILE", 0, "write each row's text and answer to this JSONL file", 0},
    {"batch", OPT_BATCH, "N", 0, "rows that are generated together, each with a cache of its own (default 4)", 0},
    {0},
};

static error_t parse_exact(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    struct plm_status st = {0};
    enum answer_rule rule;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = a; return 0;
    case OPT_TEMPLATE: a->exact.prompt_template = text_unescape(arg); return 0;
    case OPT_STOP:
        if (!*arg || a->exact.n_stops == MAX_STOPS)
            argp_error(state, *arg ? "more than %d times --stop" : "--stop is empty, expected a text that ends an answer", MAX_STOPS);
        a->stops[a->exact.n_stops++] = text_unescape(arg);
        return 0;
    case OPT_EXTRACT:
        if (answer_rule_parse(&rule, arg, &st))
            argp_error(state, "--extract: %s", st.message);
        a->exact.extract = (int)rule;
        return 0;
    case OPT_BATCH: a->batch = (int)argument_range(state, "batch", arg, 1, 1024); return 0;
    case OPT_MAX_TOKENS: a->exact.max_tokens = (int)argument_range(state, "max-tokens", arg, 1, INT32_MAX); return 0;
    case OPT_SPECIAL: a->exact.parse_special = true; return 0;
    case OPT_LIMIT: a->exact.limit = argument_range(state, "limit", arg, 0, INT64_MAX); return 0;
    case OPT_ITEMS: a->items = arg; return 0;
    case ARGP_KEY_ARGS: positional(state, 1, 1, "FILE"); return 0;
    case ARGP_KEY_NO_ARGS: argp_error(state, "MODEL and FILE are required"); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp exact_parser = {exact_options, parse_exact, "MODEL FILE",
    "Exact match of answers that the model generates greedily. " MODEL_HELP " FILE has lines {\"prompt\": ..., \"answer\": ...}, or "
    "GSM8K's question and answer. Numbers are compared without commas, currency sign and needless zeros.\v"
    "Example: plm eval exact model.gguf gsm8k.jsonl --extract gsm8k --max-tokens 320", common, 0, 0};

static int run_exact(struct eval_model *e, struct arguments *a, json_t **result, struct plm_status *st)
{
    return eval_exact(e, a->inputs[0], &a->exact, result, st);
}

static int command_exact(int argc, char **argv)
{
    struct arguments a = {.batch = 4, .exact = {.max_tokens = 256, .extract = ANSWER_LAST_NUMBER}};
    argp_parse(&exact_parser, argc, argv, 0, NULL, &a);
    if (a.exact.n_stops == 0)
        a.stops[a.exact.n_stops++] = "\n\n";
    a.exact.stops = a.stops;
    return evaluate(&a, run_exact);
}

/* --- recall --- */

static const struct argp_option recall_options[] = {
    {"task", OPT_TASK, "TASK", 0, "passkey, mqar (pairs as text), mqar-tokens (pairs of random tokens) or facts (about things of different kinds); may be given several times "
                                  "(default passkey and mqar)", 0},
    {"depth", OPT_DEPTH, "D,D,...", 0, "depths of the passkey, 0 (first) to 1 (last) (default 0,0.25,0.5,0.75,1)", 0},
    {"length", OPT_LENGTH, "N", 0, "tokens of a document, with filler (default: the context, at most 1024)", 0},
    {"pairs", OPT_PAIRS, "N", 0, "key-value pairs of an mqar document (default 4)", 0},
    {"queries", OPT_QUERIES, "N", 0, "of them asked for (default 4)", 0},
    {"keys", OPT_KEYS, "N", 0, "keys to draw from (default 6760)", 0},
    {"digits", OPT_DIGITS, "N", 0, "of a number, 1 to 9 (default: 5 of a passkey, 4 of a value)", 0},
    {"count", OPT_COUNT, "N", 0, "documents per depth of the passkey, and of mqar (default 20)", 0},
    {"seed", OPT_SEED, "S", 0, "of the held-out documents (default 0)", 0},
    {0},
};

static void parse_depths(struct arguments *a, const char *arg, struct argp_state *state)
{
    a->recall.n_depths = 0;
    for (const char *p = arg;; p++) {
        char *end;
        const double depth = strtod(p, &end);
        if (end == p || (*end && *end != ',') || !(depth >= 0 && depth <= 1) || a->recall.n_depths == MAX_DEPTHS)
            argp_error(state, "--depth is '%s', expected up to %d numbers from 0 to 1, separated by commas", arg, MAX_DEPTHS);
        a->depths[a->recall.n_depths++] = depth;
        if (!*end)
            return;
        p = end;
    }
}

static error_t parse_recall(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    struct plm_status st = {0};
    enum recall_task task;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = a; return 0;
    case OPT_TASK:
        if (recall_task_parse(&task, arg, &st))
            argp_error(state, "--task: %s", st.message);
        a->recall.tasks[task] = true;
        return 0;
    case OPT_DEPTH: parse_depths(a, arg, state); return 0;
    case OPT_LENGTH: a->recall.length = (int)argument_range(state, "length", arg, 1, RECALL_MAX_LENGTH); return 0;
    case OPT_PAIRS: a->recall.pairs = (int)argument_range(state, "pairs", arg, 1, RECALL_MAX_PAIRS); return 0;
    case OPT_QUERIES: a->recall.queries = (int)argument_range(state, "queries", arg, 1, RECALL_MAX_PAIRS); return 0;
    case OPT_KEYS: a->recall.keys = (int)argument_range(state, "keys", arg, 1, RECALL_MAX_KEYS); return 0;
    case OPT_DIGITS: a->recall.digits = (int)argument_range(state, "digits", arg, 1, 9); return 0;
    case OPT_COUNT: a->recall.count = (int)argument_range(state, "count", arg, 1, INT32_MAX); return 0;
    case OPT_SEED: a->recall.seed = argument_seed(state, "seed", arg); return 0;
    case ARGP_KEY_ARGS: positional(state, 0, 0, ""); return 0;
    case ARGP_KEY_NO_ARGS: argp_error(state, "MODEL is required"); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp recall_parser = {recall_options, parse_recall, "MODEL",
    "Recall from the context, on generated documents that are never training data (plm data recall makes those): a passkey hidden in "
    "filler text at several depths, and multi-query associative recall. An answer counts when every token of it is the likeliest. "
    MODEL_HELP "\v"
    "Example: plm eval recall model.gguf --length 1024 --depth 0,0.5,1 --pairs 8 --queries 4", common, 0, 0};

static int run_recall(struct eval_model *e, struct arguments *a, json_t **result, struct plm_status *st)
{
    return eval_recall(e, &a->recall, result, st);
}

static int command_recall(int argc, char **argv)
{
    struct arguments a = {.recall = {.n_depths = 5, .count = 20, .pairs = 4, .queries = 4}, .depths = {0, 0.25, 0.5, 0.75, 1}};
    argp_parse(&recall_parser, argc, argv, 0, NULL, &a);
    bool any = false;
    for (int i = 0; i < RECALL_N_TASKS; i++)
        any = any || a.recall.tasks[i];
    if (!any)
        a.recall.tasks[RECALL_PASSKEY] = a.recall.tasks[RECALL_MQAR] = true;
    a.recall.depths = a.depths;
    return evaluate(&a, run_recall);
}

int command_eval(int argc, char **argv)
{
    static const struct command commands[] = {{"perplexity", "of text, and bits per byte", command_perplexity},
                                              {"choice", "multiple choice by log-likelihood", command_choice},
                                              {"exact", "generated answers", command_exact},
                                              {"recall", "passkeys and associative recall at a depth", command_recall},
                                              {"kv", "what cache policies cost, at equal bytes", command_eval_kv},
                                              {NULL, NULL, NULL}};
    return command_dispatch(commands, "plm eval perplexity model.gguf held-out.txt", argc, argv);
}
