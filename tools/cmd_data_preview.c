/* plm data preview: rows of a dataset as they are trained on. */
#include <argp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/examples.h"
#include "infer/model/templates.h"
#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/show_tokens.h"

enum { OPT_TEMPLATE = 256, OPT_ROW, OPT_COUNT, OPT_MAX_LEN, OPT_LAST, OPT_REFINE, OPT_REFINE_TEMPLATE, OPT_TOKENS, OPT_COLOUR, OPT_FIELD, OPT_AS };
enum { MOST_SEQUENCES = 6, MOST_REASONS = 8, REASON_BYTES = 256 };

struct arguments {
    const char *file, *tokenizer, *template, *refine_template;
    int row, count, max_len;
    bool last_turn_only, refine, as_given;
    enum row_kind as;
    struct show_options show;
    json_t *fields;
};

static const struct argp_option options[] = {
    {"tokenizer", 't', "PATH", 0, "tokenizer.json, or a directory that has one (required)", 0},
    {"template", OPT_TEMPLATE, "FILE", 0,
     "a chat template (Jinja, or JSON: system, turn, end, generation) instead of the one in the tokenizer's directory, "
     "or else ChatML", 0},
    {"field", OPT_FIELD, "NAME=OTHER", 0, "the field NAME (prompt, chosen, ...) is called OTHER in this file; may be given several times", 0},
    {"as", OPT_AS, "KIND", 0, "conversation, pair, labelled or task (default: what the first row can be: a pair, labelled, a conversation)", 0},
    {"row", OPT_ROW, "N", 0, "show rows from the N-th on (default 1)", 0},
    {"count", OPT_COUNT, "K", 0, "show K rows (default 3); the summary is always of the whole file", 0},
    {"max-len", OPT_MAX_LEN, "L", 0, "count rows longer than L tokens as dropped; 0 (default): none", 0},
    {"last-turn-only", OPT_LAST, NULL, 0, "only the last answer of a conversation is trained", 0},
    {"refine", OPT_REFINE, NULL, 0, "of pairs also the refinement of each answer, with the built-in template", 0},
    {"refine-template", OPT_REFINE_TEMPLATE, "FILE", 0, "the same with another template", 0},
    {"tokens", OPT_TOKENS, NULL, 0, "show where tokens end", 0},
    {"color", OPT_COLOUR, "WHEN", 0, "auto (default: on a terminal), always or never", 0},
    {0},
};

static int find_word(const char *const *words, const char *word)
{
    int i = 0;
    while (words[i] && strcmp(words[i], word))
        i++;
    return words[i] ? i : -1;
}

static void add_field(struct arguments *a, char *arg, struct argp_state *state)
{
    char *equals = strchr(arg, '=');
    if (!equals || equals == arg || !equals[1])
        argp_error(state, "--field is '%s', expected NAME=OTHER like prompt=instruction", arg);
    if (!a->fields)
        a->fields = json_object();
    *equals = 0;
    if (json_object_set_new(a->fields, arg, json_string(equals + 1)))
        argp_error(state, "--field %s is not UTF-8, or there is no memory for it", arg);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    static const char *const kinds[] = {"conversation", "pair", "labelled", "task", NULL}, *const when[] = {"auto", "always", "never", NULL};
    static const enum row_kind kind_of[] = {ROW_CONVERSATION, ROW_PAIR, ROW_LABELLED, ROW_TASK};
    struct arguments *a = state->input;
    int word;
    switch (key) {
    case 't': a->tokenizer = arg; return 0;
    case OPT_TEMPLATE: a->template = arg; return 0;
    case OPT_FIELD: add_field(a, arg, state); return 0;
    case OPT_AS:
        if ((word = find_word(kinds, arg)) < 0)
            argp_error(state, "--as is '%s', expected conversation, pair, labelled or task", arg);
        else
            a->as = kind_of[word];
        a->as_given = true;
        return 0;
    case OPT_ROW: a->row = (int)argument_range(state, "row", arg, 1, INT32_MAX); return 0;
    case OPT_COUNT: a->count = argument_whole(state, "count", arg); return 0;
    case OPT_MAX_LEN: a->max_len = argument_whole(state, "max-len", arg); return 0;
    case OPT_LAST: a->last_turn_only = true; return 0;
    case OPT_REFINE: a->refine = true; return 0;
    case OPT_REFINE_TEMPLATE: a->refine = true; a->refine_template = arg; return 0;
    case OPT_TOKENS: a->show.boundaries = true; return 0;
    case OPT_COLOUR:
        if ((word = find_word(when, arg)) < 0)
            argp_error(state, "--color is '%s', expected auto, always or never", arg);
        a->show.colour = word == 1 || (word == 0 && isatty(STDOUT_FILENO));
        return 0;
    case ARGP_KEY_ARG: argument_only(state, "FILE", arg, &a->file); return 0;
    case ARGP_KEY_END:
        if (!a->file || !a->tokenizer)
            argp_error(state, "%s is required", a->file ? "--tokenizer" : "FILE");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {options, parse, "FILE",
    "Show rows of a dataset (.jsonl, .json; also .gz, .zst) as they are trained on: through the chat template, tokens that are trained in colour (or in "
    "brackets), and of the whole file how many rows are used, which are not and why, and their lengths. Rows are conversations (messages, ShareGPT, "
    "prompt and completion, Alpaca, question and answer), texts, pairs (chosen, rejected; output_1, output_2, label), labelled answers, or tasks.\v"
    "Example:\n  plm data preview chats.jsonl --tokenizer run/tokenizer.json --max-len 1024\n"
    "  plm data preview pairs.jsonl -t run/tokenizer.json --field prompt=instruction --field chosen=text --field rejected=decoded --refine", 0, 0, 0};

/* Numbers of tokens, for a line of the summary. */
struct lengths {
    const char *name;
    int32_t *values;
    int64_t n, capacity;
};

struct sequence {
    const char *title;
    struct token_list ids;
    struct target_list targets;
};

/* Why rows are malformed, and how many are for this reason. */
struct reason {
    char text[REASON_BYTES];
    int64_t first_line, n;
};

struct preview {
    struct row_unread unread;
    const struct arguments *a;
    struct tokenizer *tokenizer;
    struct encoder *encoder;
    struct chat_template *chat;
    struct refine_template *refine; /* NULL: no refinement */
    bool known;                     /* `kind` is settled */
    enum row_kind kind;
    struct sequence sequences[MOST_SEQUENCES];
    int n_sequences;
    struct lengths all, trained;
    int64_t rows, used, no_target, too_long, bad;
    struct reason reasons[MOST_REASONS]; /* the last one is for all that the others are not */
    int n_reasons;
};

static int lengths_add(struct lengths *l, size_t value, struct plm_status *st)
{
    if (l->n == l->capacity) {
        const int64_t capacity = 2 * l->capacity + 1024;
        int32_t *values = realloc(l->values, (size_t)capacity * sizeof *values);
        if (!values)
            return status_no_memory(st, (size_t)capacity * sizeof *values, "lengths");
        l->values = values;
        l->capacity = capacity;
    }
    l->values[l->n++] = value > INT32_MAX ? INT32_MAX : (int32_t)value;
    return PLM_OK;
}

/* --- sequences of a row --- */

static struct sequence *new_sequence(struct preview *p, const char *title)
{
    struct sequence *s = &p->sequences[p->n_sequences++];
    s->title = title;
    s->ids.length = s->targets.length = 0;
    return s;
}

static int add_answer(struct preview *p, const char *title, const struct row *row, const char *answer, struct plm_status *st)
{
    struct sequence *s = new_sequence(p, title);
    return example_render_answer(row->messages, row->n_messages, answer, p->chat, p->encoder, &s->ids, &s->targets, st);
}

/* Both answers after the refinement template filled with a draft; earlier messages stay (aries.md 1.6). */
static int add_refinements(struct preview *p, const char *const titles[2], const struct row *row, const char *draft, struct plm_status *st)
{
    const struct chat_message *last = &row->messages[row->n_messages - 1];
    const size_t bytes = (size_t)row->n_messages * sizeof *last;
    struct row refined = *row;
    size_t length;
    char *filled = refine_template_fill(p->refine, last->content, last->content_bytes, draft, strlen(draft), &length);
    refined.messages = malloc(bytes);
    int code = filled && refined.messages ? PLM_OK : status_no_memory(st, bytes, "a refinement");
    if (!code) {
        memcpy(refined.messages, row->messages, bytes);
        refined.messages[row->n_messages - 1] = (struct chat_message){"user", filled, length, false};
        code = add_answer(p, titles[0], &refined, row->chosen, st);
    }
    if (!code)
        code = add_answer(p, titles[1], &refined, row->rejected, st);
    free(refined.messages);
    free(filled);
    return code;
}

static int render(struct preview *p, const struct row *row, struct plm_status *st)
{
    static const char *const after_rejected[2] = {"the chosen answer as a refinement of the rejected one", "the rejected answer as a refinement of itself"},
                      *const after_chosen[2] = {"the chosen answer as a refinement of itself", "the rejected answer as a refinement of the chosen one"};
    struct sequence *s;
    int code = PLM_OK;
    p->n_sequences = 0;
    switch (row->kind) {
    case ROW_CONVERSATION:
    case ROW_TEXT:
        s = new_sequence(p, row->kind == ROW_TEXT ? "text" : "conversation");
        return example_render(row, p->chat, p->encoder, tokenizer_eos(p->tokenizer), &s->ids, &s->targets, st);
    case ROW_TASK:
        s = new_sequence(p, "task");
        return chat_template_render(p->chat, p->encoder, row->messages, row->n_messages, true, true, &s->ids, &s->targets, st);
    case ROW_LABELLED: return add_answer(p, row->desirable ? "desirable" : "undesirable", row, row->completion, st);
    case ROW_PAIR:
        code = add_answer(p, "chosen", row, row->chosen, st);
        if (!code)
            code = add_answer(p, "rejected", row, row->rejected, st);
        if (!code && p->refine)
            code = add_refinements(p, after_rejected, row, row->rejected, st);
        if (!code && p->refine)
            code = add_refinements(p, after_chosen, row, row->chosen, st);
        return code;
    }
    return code;
}

/* --- showing and counting --- */

static size_t count_trained(const struct sequence *s)
{
    size_t n = 0;
    for (size_t i = 1; i < s->targets.length; i++)
        n += s->targets.data[i];
    return n;
}

static void show_field(const char *name, const char *text)
{
    if (!text)
        return;
    printf("-- %s\n", name);
    show_text(stdout, text, strlen(text));
    putchar('\n');
}

static void show_row(const struct preview *p, const struct row *row)
{
    printf("== row %lld, line %lld\n", (long long)p->rows, (long long)row->line);
    for (int i = 0; i < p->n_sequences; i++) {
        const struct sequence *s = &p->sequences[i];
        printf("-- %s: %zu tokens, %zu trained%s\n", s->title, s->ids.length, count_trained(s),
               p->a->max_len && s->ids.length > (size_t)p->a->max_len ? ", too long" : "");
        show_tokens(stdout, p->tokenizer, s->ids.data, s->targets.data, s->ids.length, &p->a->show);
    }
    if (row->kind == ROW_TASK) {
        show_field("answer", row->answer);
        show_field("tests", row->tests);
    }
    putchar('\n');
}

static int count_row(struct preview *p, const struct row *row, struct plm_status *st)
{
    bool long_one = false, learnt = row->kind == ROW_TASK;
    int code = PLM_OK;
    for (int i = 0; i < p->n_sequences; i++) {
        long_one = long_one || (p->a->max_len && p->sequences[i].ids.length > (size_t)p->a->max_len);
        learnt = learnt || count_trained(&p->sequences[i]) > 0;
    }
    p->no_target += !learnt;
    p->too_long += learnt && long_one;
    p->used += learnt && !long_one;
    for (int i = 0; i < p->n_sequences && !code && learnt && !long_one; i++) {
        code = lengths_add(&p->all, p->sequences[i].ids.length, st);
        if (!code)
            code = lengths_add(&p->trained, count_trained(&p->sequences[i]), st);
    }
    return code;
}

/* A row of the kind asked for; without one the first row that can be read decides. */
static int read_row(struct preview *p, struct row *row, const json_t *object, struct plm_status *st)
{
    static const enum row_kind tried[] = {ROW_PAIR, ROW_LABELLED, ROW_CONVERSATION};
    struct row_options o = {.wanted = p->kind, .fields = p->a->fields, .last_turn_only = p->a->last_turn_only};
    struct row_unread unread = p->unread;
    o.unread = &unread;
    int code = PLM_EFORMAT;
    for (int i = 0; i < 3 && !p->known && code == PLM_EFORMAT; i++) {
        o.wanted = tried[i];
        unread = p->unread; /* only what the reading that fits does not read */
        code = row_read(row, object, &o, st);
    }
    if (p->known)
        code = row_read(row, object, &o, st);
    p->unread = unread;
    if (p->known)
        return code;
    p->known = !code;
    p->kind = o.wanted;
    return code;
}

static void count_bad(struct preview *p, int64_t line, const char *message)
{
    struct reason r = {.first_line = line}, *same = p->reasons;
    snprintf(r.text, sizeof r.text, "%s", message);
    p->bad++;
    while (same < p->reasons + p->n_reasons && strcmp(same->text, r.text))
        same++;
    if (same == p->reasons + MOST_REASONS)
        same--, snprintf(same->text, sizeof same->text, "other reasons");
    else if (same == p->reasons + p->n_reasons)
        p->reasons[p->n_reasons++] = r;
    same->n++;
}

static int take_row(struct preview *p, const json_t *object, int64_t line, struct plm_status *st)
{
    struct row row;
    int code = read_row(p, &row, object, st);
    if (code == PLM_EFORMAT) {
        count_bad(p, line, st->message);
        return PLM_OK;
    }
    if (code)
        return code;
    row.line = line;
    code = render(p, &row, st);
    if (!code && p->rows >= p->a->row && p->rows < (int64_t)p->a->row + p->a->count)
        show_row(p, &row);
    if (!code)
        code = count_row(p, &row, st);
    row_free(&row);
    return code;
}

static int read_file(struct preview *p, struct plm_status *st)
{
    struct json_rows *rows;
    json_t *object = NULL;
    int64_t line;
    int code = json_rows_open(&rows, p->a->file, st);
    while (!code) {
        code = json_rows_next(rows, &object, &line, st);
        if (!code && !object)
            break;
        p->rows++;
        if (!code) {
            code = take_row(p, object, line, st);
        } else if (code == PLM_EFORMAT && line > 0) {
            const char *after = strstr(st->message, ": "); /* FILE:LINE: */
            count_bad(p, line, after ? after + 2 : st->message);
            code = PLM_OK;
        }
    }
    json_rows_close(rows);
    return code;
}

/* --- summary --- */

static int ascending(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static double show_lengths(struct lengths *l)
{
    static const double shares[] = {0, 0.5, 0.9, 0.99, 1};
    double sum = 0;
    if (l->n == 0)
        return 0;
    qsort(l->values, (size_t)l->n, sizeof *l->values, ascending);
    for (int64_t i = 0; i < l->n; i++)
        sum += l->values[i];
    printf("%-16s%10.1f", l->name, sum / (double)l->n);
    for (int i = 0; i < 5; i++)
        printf("%8d", l->values[(int64_t)(shares[i] * (double)(l->n - 1) + 0.5)]);
    putchar('\n');
    return sum;
}

static void show_summary(struct preview *p)
{
    static const char *const kinds[] = {"conversations", "texts", "pairs", "labelled answers", "tasks"};
    printf("%s: %lld rows, read as %s: %lld used, %lld malformed, %lld with nothing to learn", p->a->file, (long long)p->rows, kinds[p->kind],
           (long long)p->used, (long long)p->bad, (long long)p->no_target);
    if (p->a->max_len)
        printf(", %lld longer than %d tokens", (long long)p->too_long, p->a->max_len);
    putchar('\n');
    for (int i = 0; i < p->n_reasons; i++) {
        printf("  %lld from line %lld on: ", (long long)p->reasons[i].n, (long long)p->reasons[i].first_line);
        show_text(stdout, p->reasons[i].text, strlen(p->reasons[i].text));
        putchar('\n');
    }
    char unread[400];
    row_unread_describe(&p->unread, unread, sizeof unread);
    if (*unread) {
        printf("keys of messages that are not read: ");
        show_text(stdout, unread, strlen(unread));
        putchar('\n');
    }
    if (p->unread.bad_arguments)
        printf("%lld tool calls whose arguments are texts that hold no JSON\n", (long long)p->unread.bad_arguments);
    if (p->a->count && p->a->row > p->rows)
        fprintf(stderr, "note: no row is shown: --row is %d, the file has %lld rows\n", p->a->row,
                (long long)p->rows);
    if (p->used == 0)
        return;
    printf("%-16s%10s%8s%8s%8s%8s%8s\n", "", "mean", "min", "50 %", "90 %", "99 %", "max");
    const double all = show_lengths(&p->all), learnt = show_lengths(&p->trained);
    printf("%.0f tokens in %lld sequences, %.1f %% of them trained\n", all, (long long)p->all.n, 100 * learnt / all);
}

int command_data_preview(int argc, char **argv)
{
    struct plm_status st = {0};
    struct arguments a = {.row = 1, .count = 3, .show = {.colour = isatty(STDOUT_FILENO)}};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    struct preview p = {.a = &a, .known = a.as_given, .kind = a.as, .all = {.name = "tokens"}, .trained = {.name = "trained"}};
    struct stat info;
    const bool directory = !a.template && stat(a.tokenizer, &info) == 0 && S_ISDIR(info.st_mode);
    int code = row_fields_check(a.fields, &st);
    if (!code)
        code = tokenizer_open(&p.tokenizer, a.tokenizer, &st);
    if (!code)
        code = encoder_create(&p.encoder, p.tokenizer, &st);
    if (!code)
        code = directory ? directory_chat_template(&p.chat, a.tokenizer, p.tokenizer, &st)
                         : chat_template_open(&p.chat, a.template, p.tokenizer, &st);
    if (!code && a.refine)
        code = refine_template_open(&p.refine, a.refine_template, &st);
    if (!code)
        code = read_file(&p, &st);
    if (!code && p.rows == 0)
        code = status_set(&st, PLM_EFORMAT, "'%s' has no rows", a.file);
    if (!code)
        show_summary(&p);
    if (!code && p.bad == p.rows)
        code = status_set(&st, PLM_EFORMAT, "no row of '%s' can be used", a.file);
    for (int i = 0; i < MOST_SEQUENCES; i++) {
        free(p.sequences[i].ids.data);
        free(p.sequences[i].targets.data);
    }
    free(p.all.values);
    free(p.trained.values);
    refine_template_free(p.refine);
    chat_template_free(p.chat);
    encoder_free(p.encoder);
    tokenizer_free(p.tokenizer);
    json_decref(a.fields);
    return code ? command_fail(&st) : 0;
}
