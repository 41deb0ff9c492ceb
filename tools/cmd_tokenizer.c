/* plm tokenizer train|encode|decode */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/reader.h"
#include "data/tokenizer_train.h"
#include "tools/arguments.h"
#include "tools/command.h"

enum {
    KEY_THREADS = 256,
    KEY_MAX_TOKEN,
    KEY_MIN_COUNT,
    KEY_WORD_MEMORY,
    KEY_TEXT_FIELD,
    KEY_STATS,
    KEY_SKIP_SPECIAL,
    KEY_BARE
};

/* All of a stream, malloc'ed. */
static int read_stream(FILE *in, char **out, size_t *length, struct plm_status *st)
{
    size_t capacity = 1 << 16, n = 0;
    char *text = malloc(capacity);
    while (text && (n += fread(text + n, 1, capacity - n, in)) == capacity) {
        char *grown = realloc(text, capacity *= 2);
        if (!grown)
            free(text);
        text = grown;
    }
    if (!text)
        return status_no_memory(st, capacity, "the input");
    if (ferror(in)) {
        free(text);
        return status_set(st, PLM_EIO, "cannot read standard input: %s", strerror(errno));
    }
    *out = text;
    *length = n;
    return PLM_OK;
}

/* --- train --- */

struct train_arguments {
    struct tokenizer_train_options options;
    int threads;
    const char *out, *text_field;
    const char **specials;
    char **paths;
    int n_paths;
};

static const struct argp_option train_options[] = {
    {"vocab", 'v', "N", 0, "tokens: 256 bytes, merged and special tokens together (default 8192)", 0},
    {"out", 'o', "PATH", 0, "the file to write (.json), or a directory that gets a tokenizer.json (default .)", 0},
    {"special", 's', "TEXT", 0, "a special token, may be repeated (default <|endoftext|>, <|im_start|>, <|im_end|>)", 0},
    {"max-token-length", KEY_MAX_TOKEN, "BYTES", 0, "longest merged token (default: no limit)", 0},
    {"min-count", KEY_MIN_COUNT, "N", 0, "stop when the most frequent pair occurs less often (default 2)", 0},
    {"word-memory", KEY_WORD_MEMORY, "MIB", 0, "memory for distinct words; the rarest are dropped beyond it (default 256)", 0},
    {"threads", KEY_THREADS, "N", 0, "counting threads (default: one per processor); the result is the same", 0},
    {"text-field", KEY_TEXT_FIELD, "NAME", 0, "the text in a JSON line (default text)", 0},
    {0},
};

static error_t train_parse(int key, char *arg, struct argp_state *state)
{
    struct train_arguments *a = state->input;
    switch (key) {
    case 'v':
        a->options.vocab_size = (int32_t)argument_range(state, "vocab", arg, 257, 1 << 24);
        return 0;
    case 'o':
        a->out = arg;
        return 0;
    case 's':
        a->specials[a->options.n_specials++] = arg;
        a->options.specials = a->specials;
        return 0;
    case KEY_MAX_TOKEN:
        a->options.max_token_length = (int32_t)argument_range(state, "max-token-length", arg, 2, 1 << 20);
        return 0;
    case KEY_MIN_COUNT:
        a->options.min_count = argument_range(state, "min-count", arg, 1, INT64_MAX);
        return 0;
    case KEY_WORD_MEMORY:
        a->options.word_memory = (size_t)argument_range(state, "word-memory", arg, 1, 1 << 24) << 20;
        return 0;
    case KEY_THREADS:
        a->threads = (int)argument_range(state, "threads", arg, 1, 4096);
        return 0;
    case KEY_TEXT_FIELD:
        a->text_field = arg;
        return 0;
    case ARGP_KEY_ARGS:
        a->paths = state->argv + state->next;
        a->n_paths = state->argc - state->next;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no files to train on");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp train_argp = {
    train_options, train_parse, "FILE|DIRECTORY...",
    "Train a byte-level BPE vocabulary on text, Markdown, code or JSON lines (plain, .gz or .zst; directories recursively)."
    "\vExample:\n  plm tokenizer train --vocab 8192 --out run/tokenizer.json corpus/",
    NULL, NULL, NULL};

/* Write to a temporary name, then rename: the file is the old one or the new one, never half of one. */
static int write_file(const char *path, const char *text, size_t length, struct plm_status *st)
{
    char *temporary = malloc(strlen(path) + 8);
    if (!temporary)
        return status_no_memory(st, strlen(path) + 8, "a path");
    sprintf(temporary, "%s.XXXXXX", path);
    int code = PLM_OK, fd = mkstemp(temporary);
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
    if (!out) {
        code = status_set(st, PLM_EIO, "cannot create '%s': %s", temporary, strerror(errno));
        if (fd >= 0)
            close(fd), unlink(temporary);
        free(temporary);
        return code;
    }
    mode_t mask = umask(0);
    umask(mask);
    fchmod(fd, 0666 & ~mask);
    bool ok = fwrite(text, 1, length, out) == length && fflush(out) == 0 && fsync(fd) == 0;
    ok = fclose(out) == 0 && ok;
    if (!ok || rename(temporary, path)) {
        code = status_set(st, PLM_EIO, "cannot write '%s': %s", path, strerror(errno));
        unlink(temporary);
    }
    free(temporary);
    return code;
}

/* The file --out stands for; makes the directory when there is none. malloc'ed. */
static int output_path(const char *out, char **path, struct plm_status *st)
{
    struct stat info;
    size_t n = strlen(out);
    bool is_directory = stat(out, &info) == 0 && S_ISDIR(info.st_mode);
    *path = malloc(n + sizeof "/tokenizer.json");
    if (!*path)
        return status_no_memory(st, n + 16, "a path");
    if (!is_directory && n > 5 && !strcmp(out + n - 5, ".json")) {
        strcpy(*path, out);
        return PLM_OK;
    }
    if (!is_directory && mkdir(out, 0777)) {
        int code = status_set(st, PLM_EIO, "cannot make the directory '%s': %s", out, strerror(errno));
        free(*path);
        *path = NULL;
        return code;
    }
    sprintf(*path, "%s%stokenizer.json", out, n && out[n - 1] == '/' ? "" : "/");
    return PLM_OK;
}

static int feed_files(struct tokenizer_trainer *trainer, const struct train_arguments *a, struct plm_status *st)
{
    struct reader_options options = {.text_field = a->text_field};
    struct reader *reader;
    struct document document;
    int code = reader_open(&reader, (const char *const *)a->paths, a->n_paths, &options, st);
    if (code)
        return code;
    while (!(code = reader_next(reader, &document, st)) && document.text)
        if ((code = tokenizer_trainer_feed(trainer, document.text, document.length, st)))
            break;
    reader_close(reader);
    return code;
}

static int train(const struct train_arguments *a, struct tokenizer_trainer **trainer, struct tokenizer **t,
                 struct plm_status *st)
{
    double begin = seconds_now();
    char *path = NULL, *json = NULL;
    size_t length = 0;
    int code = output_path(a->out, &path, st);
    if (!code)
        code = tokenizer_trainer_create(trainer, &a->options, st);
    if (!code)
        code = feed_files(*trainer, a, st);
    double counted = seconds_now();
    if (!code)
        code = tokenizer_trainer_finish(*trainer, t, st);
    double merged = seconds_now();
    if (!code) {
        json = tokenizer_to_json(*t, &length);
        code = json ? write_file(path, json, length, st) : status_no_memory(st, 1 << 20, "tokenizer.json");
    }
    if (!code) {
        const struct tokenizer_train_statistics *s = tokenizer_trainer_statistics(*trainer);
        fprintf(stderr,
                "%lld documents, %.1f MB, %lld words, %lld distinct; read and counted in %.2f s (%.1f MB/s), merged in %.2f s\n"
                "%s: %d tokens, %d merges\n",
                (long long)s->documents, 1e-6 * (double)s->bytes, (long long)s->words, (long long)s->distinct_words,
                counted - begin, 1e-6 * (double)s->bytes / (counted - begin), merged - counted, path, s->vocab_size, s->merges);
    }
    free(json);
    free(path);
    return code;
}

static int run_train(int argc, char **argv)
{
    struct plm_status st = {0};
    struct train_arguments a = {.options.vocab_size = 8192, .out = "."};
    struct tokenizer_trainer *trainer = NULL;
    struct tokenizer *t = NULL;
    a.specials = calloc((size_t)argc, sizeof *a.specials);
    int code = a.specials ? PLM_OK : status_no_memory(&st, (size_t)argc * sizeof *a.specials, "arguments");
    if (!code)
        argp_parse(&train_argp, argc, argv, 0, NULL, &a);
    if (!code)
        code = pool_create(&a.options.pool, a.threads, &st);
    if (!code)
        code = train(&a, &trainer, &t, &st);
    tokenizer_trainer_free(trainer);
    tokenizer_free(t);
    pool_destroy(a.options.pool);
    free(a.specials);
    return code ? command_fail(&st) : 0;
}

/* --- encode and decode --- */

struct code_arguments {
    const char *tokenizer;
    bool special, skip_special, stats, bare;
    char **rest;
    int n_rest;
};

static const struct argp_option encode_options[] = {
    {"tokenizer", 't', "PATH", 0, "tokenizer.json, or a directory that has one (default .)", 0},
    {"special", 's', NULL, 0, "text such as <|im_end|> becomes the special token", 0},
    {"bare", KEY_BARE, NULL, 0,
     "without the tokens that the tokenizer puts around every text (add_bos_token, add_eos_token)", 0},
    {"stats", KEY_STATS, NULL, 0, "print bytes, tokens, bytes per token and speed to standard error", 0},
    {0},
};

static const struct argp_option decode_options[] = {
    {"tokenizer", 't', "PATH", 0, "tokenizer.json, or a directory that has one (default .)", 0},
    {"skip-special", KEY_SKIP_SPECIAL, NULL, 0, "leave special tokens out", 0},
    {0},
};

static error_t code_parse(int key, char *arg, struct argp_state *state)
{
    struct code_arguments *a = state->input;
    switch (key) {
    case 't':
        a->tokenizer = arg;
        return 0;
    case 's':
        a->special = true;
        return 0;
    case KEY_STATS:
        a->stats = true;
        return 0;
    case KEY_BARE:
        a->bare = true;
        return 0;
    case KEY_SKIP_SPECIAL:
        a->skip_special = true;
        return 0;
    case ARGP_KEY_ARGS:
        a->rest = state->argv + state->next;
        a->n_rest = state->argc - state->next;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp encode_argp = {
    encode_options, code_parse, "[TEXT...|-]",
    "Print the token ids of a text, or of standard input, on one line; arguments are joined by spaces."
    "\vExample:\n  plm tokenizer encode --tokenizer run/tokenizer.json 'Hello, world!'",
    NULL, NULL, NULL};

static const struct argp decode_argp = {
    decode_options, code_parse, "[ID...|-]",
    "Print the text of token ids, given as arguments or on standard input, separated by spaces, commas or newlines. "
    "The bytes are written as they are: ids that end within a character are no whole UTF-8."
    "\vExample:\n  plm tokenizer decode --tokenizer run/tokenizer.json 39 68 79",
    NULL, NULL, NULL};

/* The arguments joined by spaces, or standard input when there are none or just "-". malloc'ed. */
static int read_input(const struct code_arguments *a, char **text, size_t *length, struct plm_status *st)
{
    if (a->n_rest == 0 || (a->n_rest == 1 && !strcmp(a->rest[0], "-")))
        return read_stream(stdin, text, length, st);
    size_t size = 1;
    for (int i = 0; i < a->n_rest; i++)
        size += strlen(a->rest[i]) + 1;
    char *end = *text = malloc(size);
    if (!*text)
        return status_no_memory(st, size, "the input");
    for (int i = 0; i < a->n_rest; i++) {
        if (i)
            *end++ = ' ';
        end = stpcpy(end, a->rest[i]);
    }
    *length = (size_t)(end - *text);
    return PLM_OK;
}

static int flush_output(struct plm_status *st)
{
    if (fflush(stdout) || ferror(stdout))
        return status_set(st, PLM_EIO, "cannot write to standard output: %s", strerror(errno));
    return PLM_OK;
}

static int run_encode(int argc, char **argv)
{
    struct plm_status st = {0};
    struct code_arguments a = {.tokenizer = "."};
    struct tokenizer *t = NULL;
    struct encoder *e = NULL;
    struct token_list ids = {0};
    char *text = NULL;
    size_t length = 0;
    argp_parse(&encode_argp, argc, argv, 0, NULL, &a);
    int code = tokenizer_open(&t, a.tokenizer, &st);
    if (!code)
        code = encoder_create(&e, t, &st);
    if (!code)
        code = read_input(&a, &text, &length, &st);
    double begin = seconds_now();
    if (!code)
        code = a.bare ? encoder_encode(e, text, length, a.special, &ids, &st)
                      : encoder_encode_whole(e, text, length, a.special, &ids, &st);
    double seconds = seconds_now() - begin;
    if (!code) {
        for (size_t i = 0; i < ids.length; i++)
            printf("%s%d", i ? " " : "", ids.data[i]);
        printf("\n");
        code = flush_output(&st);
        if (a.stats)
            fprintf(stderr, "%zu bytes, %zu tokens, %.3f bytes per token, %.4f s, %.1f MB/s\n", length, ids.length,
                    ids.length ? (double)length / (double)ids.length : 0.0, seconds, 1e-6 * (double)length / seconds);
    }
    free(text);
    free(ids.data);
    encoder_free(e);
    tokenizer_free(t);
    return code ? command_fail(&st) : 0;
}

/* Whole numbers separated by white space and commas. */
static int parse_ids(const char *text, size_t length, int32_t **ids, size_t *n, struct plm_status *st)
{
    *n = 0;
    *ids = malloc((length / 2 + 1) * sizeof **ids);
    if (!*ids)
        return status_no_memory(st, length * 2, "token ids");
    for (size_t i = 0; i < length;) {
        if (strchr(" \t\r\n,", text[i]) && text[i]) {
            i++;
            continue;
        }
        int64_t value = 0;
        size_t begin = i;
        for (; i < length && text[i] >= '0' && text[i] <= '9' && value <= INT32_MAX; i++)
            value = value * 10 + (text[i] - '0');
        if (i == begin || value > INT32_MAX)
            return status_set(st, PLM_EINVAL, "token %zu is not an id: '%.*s'", *n,
                              (int)(length - begin < 20 ? length - begin : 20), text + begin);
        (*ids)[(*n)++] = (int32_t)value;
    }
    return PLM_OK;
}

static int run_decode(int argc, char **argv)
{
    struct plm_status st = {0};
    struct code_arguments a = {.tokenizer = "."};
    struct tokenizer *t = NULL;
    int32_t *ids = NULL;
    char *input = NULL, *text = NULL;
    size_t n_input = 0, n = 0, length = 0;
    argp_parse(&decode_argp, argc, argv, 0, NULL, &a);
    int code = tokenizer_open(&t, a.tokenizer, &st);
    if (!code)
        code = read_input(&a, &input, &n_input, &st);
    if (!code)
        code = parse_ids(input, n_input, &ids, &n, &st);
    if (!code)
        code = tokenizer_decode(t, ids, n, !a.skip_special, &text, &length, &st);
    if (!code) {
        fwrite(text, 1, length, stdout);
        if (isatty(STDOUT_FILENO))
            printf("\n");
        code = flush_output(&st);
    }
    free(input);
    free(ids);
    free(text);
    tokenizer_free(t);
    return code ? command_fail(&st) : 0;
}

int command_tokenizer(int argc, char **argv)
{
    static const struct command commands[] = {{"train", "make a vocabulary from text", run_train},
                                              {"encode", "text to token ids", run_encode},
                                              {"decode", "token ids to text", run_decode},
                                              {NULL, NULL, NULL}};
    return command_dispatch(commands, "plm tokenizer train --vocab 8192 --out run/tokenizer.json corpus/", argc, argv);
}
