/* plm data recall: training text of generated recall tasks. */
#include <argp.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "data/recall.h"
#include "infer/base/random.h"
#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/jsonl_output.h"

enum { OPT_TASK = 256, OPT_LENGTH, OPT_DEPTH, OPT_PAIRS, OPT_QUERIES, OPT_COUNT, OPT_KEYS, OPT_DIGITS, OPT_SEED, OPT_HELD_OUT };

struct arguments {
    const char *tokenizer, *out;
    bool passkey, held_out;
    enum recall_task other; /* beside or instead of the passkey; RECALL_N_TASKS: none */
    struct argument_span length, pairs, queries;
    int keys, digits;
    double depth;
    long long count;
    uint64_t seed;
};

static const struct argp_option options[] = {
    {"tokenizer", 't', "PATH", 0, "tokenizer.json, or a directory that has one: lengths are in its tokens (required)", 0},
    {"out", 'o', "FILE", 0, "the JSONL file to write, lines {\"text\": ...} (required)", 0},
    {"count", OPT_COUNT, "N", 0, "documents (required)", 0},
    {"task", OPT_TASK, "TASK", 0, "passkey, mqar, facts, or both (default), which is passkey and mqar in turn", 0},
    {"length", OPT_LENGTH, "N|N:M", 0, "tokens of a document, or drawn from N to M (default 256)", 0},
    {"pairs", OPT_PAIRS, "N|N:M", 0, "key-value pairs of an mqar document (default 4)", 0},
    {"queries", OPT_QUERIES, "N|N:M", 0, "questions, every pair once before one again; repeats make learning easier (default: as many as pairs)", 0},
    {"keys", OPT_KEYS, "N", 0, "keys to draw from; fewer are easier to learn (default 6760)", 0},
    {"digits", OPT_DIGITS, "N", 0, "of a number, 1 to 9 (default: 5 of a passkey, 4 of a value)", 0},
    {"depth", OPT_DEPTH, "D", 0, "of the passkey, 0 (first) to 1 (last) (default: drawn)", 0},
    {"seed", OPT_SEED, "S", 0, "(default 0)", 0},
    {"held-out", OPT_HELD_OUT, 0, 0, "the documents plm eval recall uses, which no seed of training documents gives", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 't': a->tokenizer = arg; return 0;
    case 'o': a->out = arg; return 0;
    case OPT_COUNT: a->count = argument_range(state, "count", arg, 1, 1LL << 40); return 0;
    case OPT_TASK:
        a->passkey = !strcmp(arg, "passkey") || !strcmp(arg, "both");
        a->other = !strcmp(arg, "mqar") || !strcmp(arg, "both") ? RECALL_MQAR : !strcmp(arg, "facts") ? RECALL_FACTS : RECALL_N_TASKS;
        if (!a->passkey && a->other == RECALL_N_TASKS)
            argp_error(state, "--task is '%s', expected passkey, mqar, facts or both", arg);
        return 0;
    case OPT_LENGTH: a->length = argument_span(state, "length", arg, 1, RECALL_MAX_LENGTH); return 0;
    case OPT_PAIRS: a->pairs = argument_span(state, "pairs", arg, 1, RECALL_MAX_PAIRS); return 0;
    case OPT_QUERIES: a->queries = argument_span(state, "queries", arg, 1, RECALL_MAX_QUERIES); return 0;
    case OPT_KEYS: a->keys = (int)argument_range(state, "keys", arg, 1, RECALL_MAX_KEYS); return 0;
    case OPT_DIGITS: a->digits = (int)argument_range(state, "digits", arg, 1, 9); return 0;
    case OPT_DEPTH:
        a->depth = argument_number(state, "depth", arg);
        if (a->depth < 0 || a->depth > 1)
            argp_error(state, "--depth is '%s', expected a number from 0 to 1", arg);
        return 0;
    case OPT_SEED: a->seed = argument_seed(state, "seed", arg); return 0;
    case OPT_HELD_OUT: a->held_out = true; return 0;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument '%s'", arg); return 0;
    case ARGP_KEY_END:
        if (!a->tokenizer || !a->out || !a->count)
            argp_error(state, "--%s is required", !a->tokenizer ? "tokenizer" : !a->out ? "out" : "count");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {options, parse, "",
    "Write documents whose questions can only be answered from the document: a passkey in filler text (\"The pass key is 48213.\"), and "
    "associative recall (\"key kx7 is 4812.\" ... \"What is key kx7? key kx7 is 4812.\").\v"
    "Example: plm data recall --tokenizer run/tokenizer.json --out recall.jsonl --count 20000 --length 64:512 --pairs 2:16", 0, 0, 0};

/* Options of document i; what is drawn comes from the stream behind those of the tasks. */
static struct recall_options document_options(const struct arguments *a, uint64_t i)
{
    const struct argument_span ranges[] = {a->length, a->pairs, a->queries};
    int drawn[3];
    for (int j = 0; j < 3; j++) {
        const uint64_t r = random_u64(a->seed, RANDOM_RECALL, 2 * RECALL_N_TASKS + a->held_out, 3 * i + (uint64_t)j);
        drawn[j] = ranges[j].low + (int)((r >> 32) * (uint64_t)(ranges[j].high - ranges[j].low + 1) >> 32);
    }
    const bool passkey = a->passkey && (a->other == RECALL_N_TASKS || i % 2 == 0);
    return (struct recall_options){.task = passkey ? RECALL_PASSKEY : a->other, .length = drawn[0], .depth = a->depth, .pairs = drawn[1],
                                   .queries = drawn[2] ? drawn[2] : drawn[1], .keys = a->keys, .digits = a->digits, .held_out = a->held_out, .seed = a->seed};
}

static int write_documents(const struct arguments *a, struct recall_generator *g, int64_t *tokens, struct plm_status *st)
{
    struct recall_document d = {0};
    struct jsonl_output out;
    int code = jsonl_output_open(&out, a->out, st);
    for (long long i = 0; i < a->count && !code; i++) {
        const struct recall_options o = document_options(a, (uint64_t)i);
        code = recall_generate(g, &o, (uint64_t)i, &d, st);
        if (code)
            break;
        *tokens += (int64_t)d.tokens.length;
        code = jsonl_output_add(&out, json_pack("{s:s%}", "text", d.text, d.text_length), st);
    }
    recall_document_free(&d);
    return jsonl_output_close(&out, code, st);
}

int command_data_recall(int argc, char **argv)
{
    struct arguments a = {.passkey = true, .other = RECALL_MQAR, .depth = -1, .length = {256, 256}, .pairs = {4, 4}};
    struct plm_status st = {0};
    struct tokenizer *t = NULL;
    struct recall_generator *g = NULL;
    int64_t tokens = 0;
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    const double start = seconds_now();
    int code = tokenizer_open(&t, a.tokenizer, &st);
    if (!code)
        code = recall_generator_create(&g, t, &st);
    if (!code)
        code = write_documents(&a, g, &tokens, &st);
    recall_generator_free(g);
    tokenizer_free(t);
    if (code)
        return command_fail(&st);
    printf("%s: %lld documents, %lld tokens, %.2f s\n", a.out, a.count, (long long)tokens, seconds_now() - start);
    return 0;
}
