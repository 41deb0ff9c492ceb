/* plm logits: the logits of a list of tokens, for comparison with other programs. */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "infer/format/safetensors.h"
#include "infer/model/session.h"
#include "infer/text/tokenizer.h"
#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/open_model.h"

struct arguments {
    const char *model, *tokens, *out;
    bool decode;
    int threads;
};

static const struct argp_option options[] = {
    {"tokens", 'T', "IDS", 0, "token ids, separated by commas (required)", 0},
    {"out", 'o', "FILE", 0, "write tensor 'logits' (T, vocab) to this safetensors file (required)", 0},
    {"decode", 'd', 0, 0, "feed one token at a time through the latent cache instead of one prefill", 0},
    {"threads", 't', "N", 0, "threads; 0: one per processor (default)", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'T': a->tokens = arg; return 0;
    case 'o': a->out = arg; return 0;
    case 'd': a->decode = true; return 0;
    case 't': a->threads = argument_whole(state, "threads", arg); return 0;
    case ARGP_KEY_ARG: argument_only(state, "MODEL", arg, &a->model); return 0;
    case ARGP_KEY_END:
        if (!a->model || !a->tokens || !a->out)
            argp_error(state, "MODEL, --tokens and --out are required");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {options, parse, "MODEL",
    "Compute the logits after every one of the given tokens. " MODEL_HELP "\v"
    "Example: plm logits model.gguf --tokens 1,2,3 --decode --out logits.safetensors", 0, 0, 0};

static int parse_tokens(const char *text, int32_t **out, size_t *n, struct plm_status *st)
{
    size_t capacity = 1;
    for (const char *p = text; *p; p++)
        capacity += *p == ',';
    *out = malloc(capacity * sizeof **out);
    if (!*out)
        return status_no_memory(st, capacity * sizeof **out, "the tokens");
    *n = 0;
    for (const char *p = text;; p++) {
        char *end;
        errno = 0;
        long id = strtol(p, &end, 10);
        if (end == p || (*end && *end != ',') || errno || id < 0 || id > INT32_MAX)
            return status_set(st, PLM_EINVAL, "--tokens: '%.20s' is not a token id; expected ids separated by commas, such as 1,2,3", p);
        (*out)[(*n)++] = (int32_t)id;
        if (!*end)
            return PLM_OK;
        p = end;
    }
}

static int write_logits(const char *path, const float *logits, int64_t n, int64_t vocab, struct plm_status *st)
{
    struct safetensors_writer *w;
    int code = safetensors_create(&w, path, st);
    if (code)
        return code;
    code = safetensors_declare(w, "logits", DTYPE_F32, 2, (const int64_t[]){n, vocab}, st);
    if (!code)
        code = safetensors_write(w, logits, (size_t)(n * vocab) * sizeof *logits, st);
    if (code) {
        safetensors_discard(w);
        return code;
    }
    return safetensors_finish(w, st);
}

int command_logits(int argc, char **argv)
{
    struct arguments a = {0};
    struct plm_status st = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    struct plm_model *model = NULL;
    struct plm_session *session = NULL;
    int32_t *tokens = NULL;
    float *logits = NULL;
    size_t n = 0, vocab = 0;
    int code = parse_tokens(a.tokens, &tokens, &n, &st);
    if (!code)
        code = open_model(&model, a.model, NULL, &st);
    if (!code) {
        vocab = (size_t)plm_model_vocab_size(model);
        struct plm_session_options o = {.n_threads = a.threads};
        code = plm_session_open(&session, model, &o, &st);
    }
    if (!code && !(logits = malloc(n * vocab * sizeof *logits)))
        code = status_no_memory(&st, n * vocab * sizeof *logits, "the logits");
    if (!code)
        code = session_append_logits(session, tokens, n, a.decode, logits, &st);
    if (!code)
        code = write_logits(a.out, logits, (int64_t)n, (int64_t)vocab, &st);
    free(logits);
    free(tokens);
    plm_session_close(session);
    plm_model_close(model);
    return code ? command_fail(&st) : 0;
}
