/* plm eval kv */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/output.h"
#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/eval_kv.h"
#include "tools/open_model.h"
#include "tools/result.h"

enum {
    OPT_CONTEXT = 256,
    OPT_JSON,
    OPT_OUT,
    OPT_METHOD,
    OPT_BUDGET,
    OPT_TYPE,
    OPT_PROMPT,
    OPT_CONTINUATION,
    OPT_WINDOWS,
    OPT_FIELD,
    OPT_TASK,
    OPT_LENGTH,
    OPT_PAIRS,
    OPT_QUERIES,
    OPT_KEYS,
    OPT_DIGITS,
    OPT_COUNT,
    OPT_SEED,
    OPT_RESAMPLES
};

struct arguments {
    const char *model, *out, *budgets;
    const char *names[KV_MAX_METHODS];
    int n_names, context;
    bool json;
    double shares[KV_MAX_BUDGETS];
    struct kv_method methods[KV_MAX_METHODS];
    struct eval_kv_options o;
};

static const struct argp_option options[] = {
    {"method", OPT_METHOD, "NAME", 0,
     "streaming, h2o, d2o, d2o+count or full, with :uniform (the same budget for every layer), :ungated (merge all), :f16, "
     ":q8_0 or :f32 behind it; may be given several times (default the first four)",
     0},
    {"budget", OPT_BUDGET, "P,P,...", 0, "percent of the bytes of the prompt's full cache (default 10,20,30,50)", 0},
    {"cache-type", OPT_TYPE, "TYPE", 0, "f16 (default), f32 or q8_0", 0},
    {"prompt", OPT_PROMPT, "N", 0, "tokens of a window of text before the cache is compressed (default: half of the context)",
     1},
    {"continuation", OPT_CONTINUATION, "N", 0,
     "tokens of a window that are predicted behind it (default: the rest of the context)", 1},
    {"windows", OPT_WINDOWS, "N", 0, "windows, evenly spaced over the text (default 64)", 1},
    {"text-field", OPT_FIELD, "NAME", 0, "the text in a JSON line (default text)", 1},
    {"task", OPT_TASK, "TASK", 0,
     "passkey, mqar (pairs as text), mqar-tokens (pairs of random tokens) or facts (about things of different kinds); may be given "
     "several times (default passkey and mqar)",
     2},
    {"length", OPT_LENGTH, "N", 0, "tokens of a recall document, with filler (default: the context, at most 1024)", 2},
    {"pairs", OPT_PAIRS, "N", 0, "key-value pairs of an mqar document (default 4)", 2},
    {"queries", OPT_QUERIES, "N", 0, "of them asked for (default 4)", 2},
    {"keys", OPT_KEYS, "N", 0, "keys to draw from (default 6760)", 2},
    {"digits", OPT_DIGITS, "N", 0, "of a number, 1 to 9 (default: 5 of a passkey, 4 of a value)", 2},
    {"count", OPT_COUNT, "N", 0, "recall documents of each task; 0: none (default 100)", 2},
    {"context", OPT_CONTEXT, "N", 0, "longest document or window (default: what the model was trained for)", 3},
    {"seed", OPT_SEED, "S", 0, "of the recall documents and of the resamples (default 0)", 3},
    {"resamples", OPT_RESAMPLES, "N", 0, "of the bootstrap (default 2000)", 3},
    {"out", OPT_OUT, "FILE", 0, "write the result as JSON to this file, too", 3},
    {"json", OPT_JSON, 0, 0, "print the result as JSON", 3},
    {"threads", 't', "N", 0, "threads; 0: one per processor (default)", 3},
    {0},
};

static void parse_budgets(struct arguments *a, const char *arg, struct argp_state *state)
{
    a->o.n_shares = 0;
    for (const char *p = arg;; p++) {
        char *end;
        const double percent = strtod(p, &end);
        if (end == p || (*end && *end != ',') || !(percent > 0 && percent <= 100) || a->o.n_shares == KV_MAX_BUDGETS)
            argp_error(state, "--budget is '%s', expected up to %d numbers above 0 and up to 100, separated by commas", arg,
                       KV_MAX_BUDGETS);
        a->shares[a->o.n_shares++] = percent / 100;
        if (!*end)
            return;
        p = end;
    }
}

static void parse_cache_type(struct arguments *a, const char *arg, struct argp_state *state)
{
    a->o.type = dtype_by_name(arg);
    if (a->o.type != DTYPE_F32 && a->o.type != DTYPE_F16 && a->o.type != DTYPE_Q8_0)
        argp_error(state, "--cache-type is '%s', expected f32, f16 or q8_0", arg);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    struct plm_status st = {0};
    enum recall_task task;
    switch (key) {
    case OPT_METHOD:
        if (a->n_names == KV_MAX_METHODS)
            argp_error(state, "more than %d times --method", KV_MAX_METHODS);
        a->names[a->n_names++] = arg;
        return 0;
    case OPT_BUDGET: parse_budgets(a, arg, state); return 0;
    case OPT_TYPE: parse_cache_type(a, arg, state); return 0;
    case OPT_PROMPT: a->o.prompt = (int)argument_range(state, "prompt", arg, 1, INT32_MAX / 2); return 0;
    case OPT_CONTINUATION: a->o.continuation = (int)argument_range(state, "continuation", arg, 1, INT32_MAX / 2); return 0;
    case OPT_WINDOWS: a->o.windows = (int)argument_range(state, "windows", arg, 1, INT32_MAX); return 0;
    case OPT_FIELD: a->o.text_field = arg; return 0;
    case OPT_TASK:
        if (recall_task_parse(&task, arg, &st))
            argp_error(state, "--task: %s", st.message);
        a->o.recall.tasks[task] = true;
        return 0;
    case OPT_LENGTH: a->o.recall.length = (int)argument_range(state, "length", arg, 1, RECALL_MAX_LENGTH); return 0;
    case OPT_PAIRS: a->o.recall.pairs = (int)argument_range(state, "pairs", arg, 1, RECALL_MAX_PAIRS); return 0;
    case OPT_QUERIES: a->o.recall.queries = (int)argument_range(state, "queries", arg, 1, RECALL_MAX_PAIRS); return 0;
    case OPT_KEYS: a->o.recall.keys = (int)argument_range(state, "keys", arg, 1, RECALL_MAX_KEYS); return 0;
    case OPT_DIGITS: a->o.recall.digits = (int)argument_range(state, "digits", arg, 1, 9); return 0;
    case OPT_COUNT: a->o.recall.count = (int)argument_range(state, "count", arg, 0, 1 << 24); return 0;
    case OPT_CONTEXT: a->context = (int)argument_range(state, "context", arg, 1, INT32_MAX); return 0;
    case OPT_SEED: a->o.seed = a->o.recall.seed = argument_seed(state, "seed", arg); return 0;
    case OPT_RESAMPLES: a->o.resamples = (int)argument_range(state, "resamples", arg, 1, 1 << 20); return 0;
    case OPT_OUT: a->out = arg; return 0;
    case OPT_JSON: a->json = true; return 0;
    case 't': a->o.n_threads = argument_whole(state, "threads", arg); return 0;
    case ARGP_KEY_ARGS:
        a->model = state->argv[state->next];
        a->o.paths = (const char *const *)state->argv + state->next + 1;
        a->o.n_paths = state->argc - state->next - 1;
        state->next = state->argc;
        return 0;
    case ARGP_KEY_NO_ARGS: argp_error(state, "MODEL is required"); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    options,
    parse,
    "MODEL [FILE...]",
    "What cache policies cost in quality, at equal bytes: the prompt goes through the full cache, which is then compressed; what "
    "follows is fed token by token. On text (FILEs as for plm eval perplexity): kl, KL(full || method) in nats per token, and its "
    "ratio to h2o's; ppl, perplexity, and its ratio to the full cache's; same top, how often the likeliest token is the full cache's. "
    "On recall documents, compressed before their questions are seen: accuracy, and its difference to the full cache's and to h2o's. "
    "All methods keep the same 4 sinks and at least a quarter of the budget for recent tokens; kib is the cache at its largest, with "
    "each method's metadata. Intervals: 95 %, paired bootstrap over windows or documents. " MODEL_HELP "\v"
    "Example: plm eval kv model.gguf held-out.txt --budget 10,20,50 --pairs 8 --queries 8 --out kv.json",
    0, 0, 0};

static int write_json(const char *path, const json_t *result, struct plm_status *st)
{
    FILE *f;
    int code = output_create_stream(&f, path, st);
    if (code)
        return code;
    code = result_print(f, result, true, st);
    if (fclose(f) && !code)
        code = status_set(st, PLM_EIO, "cannot write '%s': %s", path, strerror(errno));
    return code;
}

int command_eval_kv(int argc, char **argv)
{
    static const char *const usual[] = {"streaming", "h2o", "d2o", "d2o+count"};
    struct arguments a = {.shares = {0.1, 0.2, 0.3, 0.5},
                          .o = {.n_shares = 4,
                                .windows = 64,
                                .type = DTYPE_F16,
                                .resamples = 2000,
                                .recall = {.pairs = 4, .queries = 4, .count = 100}}};
    struct plm_status st = {0};
    struct eval_model e = {0};
    json_t *result = NULL;
    bool any = false;
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    for (int i = 0; i < RECALL_N_TASKS; i++)
        any = any || a.o.recall.tasks[i];
    if (!any)
        a.o.recall.tasks[RECALL_PASSKEY] = a.o.recall.tasks[RECALL_MQAR] = true;
    a.o.methods = a.methods;
    a.o.shares = a.shares;
    a.o.n_methods = a.n_names ? a.n_names : 4;
    int code = PLM_OK;
    for (int i = 0; i < a.o.n_methods && !code; i++)
        code = kv_method_parse(&a.methods[i], a.n_names ? a.names[i] : usual[i], a.o.type, &st);
    if (!code)
        code = eval_model_open(&e, a.model, a.context, a.o.n_threads, &st);
    if (!code)
        code = eval_kv(&e, &a.o, &result, &st);
    if (!code && a.out)
        code = write_json(a.out, result, &st);
    if (!code)
        code = result_print(stdout, result, a.json, &st);
    json_decref(result);
    eval_model_close(&e);
    return code ? command_fail(&st) : 0;
}
