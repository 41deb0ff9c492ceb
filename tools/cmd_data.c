/* plm data build|inspect|preview|recall|arithmetic */
#include <argp.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/build.h"
#include "data/files.h"
#include "data/shard.h"
#include "infer/text/tokenizer.h"
#include "tools/arguments.h"
#include "tools/command.h"

enum { KEY_VALID = 256, KEY_VALID_TEXT, KEY_SEED, KEY_TEXT_FIELD, KEY_MAX_DOCUMENT, KEY_CHUNK, KEY_LEVEL, KEY_THREADS, KEY_FORCE,
       KEY_VERIFY, KEY_SHOW, KEY_BYTES };

/* --- build --- */

static const struct argp_option build_options[] = {
    {"tokenizer", 't', "PATH", 0, "tokenizer.json, or a directory that has one (required)", 0},
    {"out", 'o', "DIR", 0, "directory to build in (required)", 0},
    {"name", 'n', "NAME", 0, "name of the data set, kept in every shard", 0},
    {"valid-fraction", KEY_VALID, "F", 0, "share of the documents to hold out, 0 to below 1 (default 0.01)", 0},
    {"keep-valid-text", KEY_VALID_TEXT, "FILE", 0, "also write the held-out text, to compare with other compressors", 0},
    {"seed", KEY_SEED, "S", 0, "of the held-out split (default 0)", 0},
    {"text-field", KEY_TEXT_FIELD, "NAME", 0, "the text in a JSON line (default text)", 0},
    {"max-document", KEY_MAX_DOCUMENT, "BYTES", 0, "cut longer documents at a paragraph or line (default 1048576)", 0},
    {"chunk-tokens", KEY_CHUNK, "N", 0, "tokens of a compressed chunk (default 65536 for small inputs, else 1048576)", 0},
    {"level", KEY_LEVEL, "N", 0, "zstd level, 1 to 22 (default 3)", 0},
    {"threads", KEY_THREADS, "N", 0, "default: one per processor; the result is the same", 0},
    {"force", KEY_FORCE, NULL, 0, "replace another build in the directory", 0},
    {0},
};

static error_t build_parse(int key, char *arg, struct argp_state *state)
{
    struct build_options *o = state->input;
    char *end;
    switch (key) {
    case 't':
        o->tokenizer_path = arg;
        return 0;
    case 'o':
        o->directory = arg;
        return 0;
    case 'n':
        o->name = arg;
        return 0;
    case KEY_VALID:
        o->valid_fraction = strtod(arg, &end);
        if (end == arg || *end || !(o->valid_fraction >= 0 && o->valid_fraction < 1))
            argp_error(state, "--valid-fraction is '%s', expected a number from 0 to below 1", arg);
        return 0;
    case KEY_VALID_TEXT:
        o->valid_text = arg;
        return 0;
    case KEY_SEED:
        o->seed = argument_range(state, "seed", arg, INT64_MIN, INT64_MAX);
        return 0;
    case KEY_TEXT_FIELD:
        o->text_field = arg;
        return 0;
    case KEY_MAX_DOCUMENT:
        o->max_document = (size_t)argument_range(state, "max-document", arg, 16, 1 << 28);
        return 0;
    case KEY_CHUNK:
        o->chunk_tokens = argument_range(state, "chunk-tokens", arg, 1, 16 << 20);
        return 0;
    case KEY_LEVEL:
        o->level = (int)argument_range(state, "level", arg, 1, 22);
        return 0;
    case KEY_THREADS:
        o->n_threads = (int)argument_range(state, "threads", arg, 1, 4096);
        return 0;
    case KEY_FORCE:
        o->force = true;
        return 0;
    case ARGP_KEY_ARGS:
        o->inputs = (const char *const *)(state->argv + state->next);
        o->n_inputs = state->argc - state->next;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no input: name at least one file or directory");
        return 0;
    case ARGP_KEY_END:
        if (!o->tokenizer_path || !o->directory)
            argp_error(state, "%s is required", o->tokenizer_path ? "--out" : "--tokenizer");
        if (o->valid_fraction == 0 && o->valid_text)
            argp_error(state, "--keep-valid-text wants a --valid-fraction above 0: nothing is held out");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp build_argp = {
    build_options, build_parse, "INPUT...",
    "Tokenise documents into compressed HDF5 shards: DIR/train/*.h5, DIR/valid/*.h5 and DIR/build.json. Inputs are text, "
    "Markdown, code (one file is one document) or JSON lines (.jsonl, .ndjson), plain, .gz or .zst; directories are taken "
    "recursively. Exact duplicates are dropped. A build that is there already is not repeated."
    "\vExample:\n  plm data build --tokenizer run/tokenizer.json --out run/data --valid-fraction 0.02 corpus/",
    NULL, NULL, NULL};

static void print_split(const char *name, const struct build_split *s, int64_t token_bytes)
{
    printf("  %-6s %10lld %12.2f %12lld %9.3f %10.2f %7.2f %7lld\n", name, (long long)s->documents, (double)s->text_bytes * 1e-6,
           (long long)s->tokens, s->tokens ? (double)s->text_bytes / (double)s->tokens : 0, (double)s->stored_bytes * 1e-6,
           s->stored_bytes ? (double)(s->tokens * token_bytes) / (double)s->stored_bytes : 0, (long long)s->shards);
}

static void print_report(const struct build_options *o, const struct build_report *r)
{
    const struct {
        int64_t n;
        const char *what;
    } notes[] = {
        {r->duplicates, "duplicate documents dropped"},
        {r->reader.empty, "empty documents skipped"},
        {r->reader.binary_files, "binary files skipped"},
        {r->reader.bad_json, "lines skipped that are not a JSON object"},
        {r->reader.missing_field, "JSON lines skipped without the text field"},
        {r->reader.wrong_type, "JSON lines skipped whose text is not a string"},
        {r->reader.long_lines, "JSON lines skipped that are too long"},
        {r->reader.ignored_files, "links to directories and special files ignored"},
        {r->reader.repaired_documents, "documents with invalid UTF-8 or NUL repaired"},
        {r->reader.cut, "long documents cut into pieces"},
    };
    printf("%s%s\n", o->directory, r->up_to_date ? ": up to date" : "");
    printf("  %-6s %10s %12s %12s %9s %10s %7s %7s\n", "split", "documents", "text MB", "tokens", "bytes/tok", "stored MB",
           "ratio", "shards");
    print_split("train", &r->train, r->token_bytes);
    print_split("valid", &r->valid, r->token_bytes);
    printf("  %lld files, %.2f MB read", (long long)r->reader.files, (double)r->reader.stored_bytes * 1e-6);
    if (!r->up_to_date)
        printf(", %.2f s (%.1f MB/s)", r->seconds, (double)r->reader.bytes * 1e-6 / fmax(r->seconds, 1e-9));
    printf("\n");
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++)
        if (notes[i].n)
            printf("  %lld %s\n", (long long)notes[i].n, notes[i].what);
}

static int run_build(int argc, char **argv)
{
    struct plm_status st = {0};
    struct build_options o = {.valid_fraction = 0.01};
    struct build_report report;
    argp_parse(&build_argp, argc, argv, 0, NULL, &o);
    if (data_build(&o, &report, &st))
        return command_fail(&st);
    print_report(&o, &report);
    return 0;
}

/* --- inspect --- */

struct inspect_arguments {
    char **paths;
    int n_paths;
    const char *tokenizer;
    long long show, show_bytes;
    bool verify;
};

static const struct argp_option inspect_options[] = {
    {"verify", KEY_VERIFY, NULL, 0, "read and check every chunk", 0},
    {"show", KEY_SHOW, "N", 0, "print the first N documents: ids, or text with --tokenizer", 0},
    {"bytes", KEY_BYTES, "N", 0, "at most this many bytes, or ids, of each (default 400)", 0},
    {"tokenizer", 't', "PATH", 0, "tokenizer.json, or a directory that has one", 0},
    {0},
};

static error_t inspect_parse(int key, char *arg, struct argp_state *state)
{
    struct inspect_arguments *a = state->input;
    switch (key) {
    case KEY_VERIFY:
        a->verify = true;
        return 0;
    case KEY_SHOW:
        a->show = argument_range(state, "show", arg, 0, INT64_MAX);
        return 0;
    case KEY_BYTES:
        a->show_bytes = argument_range(state, "bytes", arg, 1, INT32_MAX);
        return 0;
    case 't':
        a->tokenizer = arg;
        return 0;
    case ARGP_KEY_ARGS:
        a->paths = state->argv + state->next;
        a->n_paths = state->argc - state->next;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "name at least one shard, or a directory of shards");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp inspect_argp = {
    inspect_options, inspect_parse, "SHARD|DIR...",
    "Print what shards hold."
    "\vExample:\n  plm data inspect run/data --verify --show 2 --tokenizer run/tokenizer.json",
    NULL, NULL, NULL};

static void print_info(const struct shard *s)
{
    const struct shard_info *info = shard_information(s);
    printf("%s\n", shard_path(s));
    printf("  name '%s', written by plm %s, tokenizer %.16s..., vocabulary %lld, eos %lld\n", info->name, info->tool_version,
           info->tokenizer_sha256, (long long)info->vocab_size, (long long)info->eos_id);
    printf("  %lld documents, %lld tokens (u%d), %lld bytes of text, %.3f bytes per token\n", (long long)info->n_documents,
           (long long)info->n_tokens, 8 * info->token_bytes, (long long)info->text_bytes,
           (double)info->text_bytes / (double)info->n_tokens);
    printf("  %lld chunks of %lld tokens, %lld bytes stored, ratio %.3f, file %lld bytes\n", (long long)info->n_chunks,
           (long long)info->chunk_tokens, (long long)info->stored_bytes,
           (double)(info->n_tokens * info->token_bytes) / (double)info->stored_bytes, (long long)info->file_bytes);
}

/* Tokens [begin, end) of a shard; `chunk` is room for one chunk. */
static int read_tokens(const struct shard *s, struct shard_decoder *decoder, void *chunk, int64_t begin, int64_t end,
                       int32_t *to, struct plm_status *st)
{
    const struct shard_info *info = shard_information(s);
    for (int64_t c = begin / info->chunk_tokens; c * info->chunk_tokens < end; c++) {
        int code = shard_read_chunk(s, c, decoder, chunk, st);
        if (code)
            return code;
        for (int64_t i = 0; i < info->chunk_tokens; i++) {
            int64_t at = c * info->chunk_tokens + i;
            if (at >= begin && at < end)
                to[at - begin] = info->token_bytes == 2 ? ((uint16_t *)chunk)[i] : (int32_t)((uint32_t *)chunk)[i];
        }
    }
    return PLM_OK;
}

static int show_document(const struct shard *s, struct shard_decoder *decoder, void *chunk, int64_t document,
                         const struct tokenizer *t, long long limit, struct plm_status *st)
{
    const uint64_t *offsets = shard_doc_offsets(s);
    int64_t begin = (int64_t)offsets[document], n = (int64_t)(offsets[document + 1] - offsets[document]);
    int64_t shown = n < limit ? n : limit; /* a token is a byte at least */
    int32_t *ids = malloc((size_t)shown * sizeof *ids);
    int code = ids ? read_tokens(s, decoder, chunk, begin, begin + shown, ids, st)
                   : status_no_memory(st, (size_t)shown * sizeof *ids, "a document");
    if (!code) {
        printf("  document %lld, %lld tokens:\n", (long long)document, (long long)n);
        char *text = NULL;
        size_t length = 0;
        if (t)
            code = tokenizer_decode(t, ids, (size_t)shown, true, &text, &length, st);
        if (!code && t)
            printf("%.*s%s\n", (int)(length < (size_t)limit ? length : (size_t)limit), text,
                   length > (size_t)limit || shown < n ? " ..." : "");
        for (int64_t i = 0; !t && i < shown; i++)
            printf("%s%d%s", i ? " " : "    ", ids[i], i == shown - 1 ? (shown < n ? " ...\n" : "\n") : "");
        free(text);
    }
    free(ids);
    return code;
}

static int inspect_shard(const char *path, const struct inspect_arguments *a, const struct tokenizer *t, struct plm_status *st)
{
    struct shard *s;
    int code = shard_open(&s, path, st);
    if (code)
        return code;
    const struct shard_info *info = shard_information(s);
    struct shard_decoder *decoder = NULL;
    void *chunk = malloc((size_t)info->chunk_tokens * (size_t)info->token_bytes);
    code = chunk ? shard_decoder_create(&decoder, st)
                 : status_no_memory(st, (size_t)info->chunk_tokens * (size_t)info->token_bytes, "a chunk");
    if (!code)
        print_info(s);
    for (int64_t c = 0; !code && a->verify && c < info->n_chunks; c++)
        code = shard_read_chunk(s, c, decoder, chunk, st);
    if (!code && a->verify)
        printf("  all %lld chunks are intact\n", (long long)info->n_chunks);
    for (int64_t d = 0; !code && d < info->n_documents && d < a->show; d++)
        code = show_document(s, decoder, chunk, d, t, a->show_bytes, st);
    shard_decoder_free(decoder);
    free(chunk);
    shard_close(s);
    return code;
}

static int run_inspect(int argc, char **argv)
{
    struct plm_status st = {0};
    struct inspect_arguments a = {.show_bytes = 400};
    struct file_list files = {0};
    struct tokenizer *t = NULL;
    argp_parse(&inspect_argp, argc, argv, 0, NULL, &a);
    int code = a.tokenizer ? tokenizer_open(&t, a.tokenizer, &st) : PLM_OK;
    for (int i = 0; !code && i < a.n_paths; i++)
        code = file_list_add(&files, a.paths[i], ".h5", &st);
    if (!code && files.n == 0)
        code = status_set(&st, PLM_EINVAL, "no shard (*.h5) in '%s': make some with plm data build", a.paths[0]);
    for (int64_t i = 0; !code && i < files.n; i++)
        code = inspect_shard(files.paths[i], &a, t, &st);
    file_list_free(&files);
    tokenizer_free(t);
    return code ? command_fail(&st) : 0;
}

int command_data(int argc, char **argv)
{
    static const struct command commands[] = {{"build", "text to shards", run_build},
                                              {"inspect", "what shards hold", run_inspect},
                                              {"preview", "rows for fine-tuning as they are trained on", command_data_preview},
                                              {"recall", "generated recall tasks as text to train on", command_data_recall},
                                              {"arithmetic", "generated word problems with worked solutions", command_data_arithmetic},
                                              {NULL, NULL, NULL}};
    return command_dispatch(commands, "plm data build --tokenizer run/tokenizer.json --out run/data corpus/", argc, argv);
}
