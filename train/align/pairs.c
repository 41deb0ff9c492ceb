#include "train/align/pairs.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/random.h"
#include "train/files.h"

/* ---- files ---- */

static json_t *messages_json(const struct row *row)
{
    json_t *list = json_array();
    for (int i = 0; i < row->n_messages; i++)
        json_array_append_new(list, json_pack("{s:s, s:s%}", "role", row->messages[i].role, "content", row->messages[i].content, row->messages[i].content_bytes));
    return list;
}

static json_t *tokens_json(const struct answer *a)
{
    json_t *list = json_array();
    for (int i = 0; i < a->n; i++)
        json_array_append_new(list, json_integer(a->tokens[i]));
    return list;
}

static json_t *pair_json(const struct row_set *tasks, const struct answer_set *answers, const struct selected_pair *pair)
{
    const struct answer *w = &answers->answers[pair->chosen], *l = pair->rejected >= 0 ? &answers->answers[pair->rejected] : NULL;
    json_t *row = json_pack("{s:I, s:o}", "task", (json_int_t)w->task, "prompt", messages_json(&tasks->rows[w->task]));
    json_object_set_new(row, l ? "chosen" : "completion", json_string(w->text));
    json_object_set_new(row, l ? "chosen_tokens" : "completion_tokens", tokens_json(w));
    json_object_set_new(row, l ? "score_chosen" : "score", json_real(w->score));
    if (l) {
        json_object_set_new(row, "rejected", json_string(l->text));
        json_object_set_new(row, "rejected_tokens", tokens_json(l));
        json_object_set_new(row, "score_rejected", json_real(l->score));
    }
    return row;
}

int pairs_write(const struct row_set *tasks, const struct answer_set *answers, const struct selected_pair *pairs, int64_t n, const char *path,
                struct plm_status *st)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    int code = out ? PLM_OK : status_no_memory(st, 0, "the pairs as text");
    for (int64_t i = 0; i < n && !code; i++) {
        json_t *row = pair_json(tasks, answers, &pairs[i]);
        if (!row || json_dumpf(row, out, JSON_COMPACT | JSON_PRESERVE_ORDER) || fputc('\n', out) == EOF)
            code = status_no_memory(st, 0, "the pairs as text");
        json_decref(row);
    }
    if (out && fclose(out) != 0 && !code)
        code = status_no_memory(st, bytes, "the pairs as text");
    if (!code)
        code = file_replace(path, text, bytes, st);
    free(text);
    return code;
}

static int read_tokens(struct sampled_tokens *t, const json_t *object, const char *key, int vocab_size, struct plm_status *st)
{
    const json_t *list = json_object_get(object, key);
    *t = (struct sampled_tokens){0};
    if (!list)
        return PLM_OK;
    const size_t n = json_array_size(list);
    if (!json_is_array(list) || n == 0 || n > INT32_MAX)
        return status_set(st, PLM_EFORMAT, "\"%s\": expected a list of token ids", key);
    t->tokens = malloc(n * sizeof *t->tokens);
    if (!t->tokens)
        return status_no_memory(st, n * sizeof *t->tokens, "the tokens of an answer");
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= vocab_size)
            return status_set(st, PLM_EFORMAT, "\"%s\"[%zu]: expected a token id from 0 to %d", key, i, vocab_size - 1);
        t->tokens[i] = (int32_t)json_integer_value(id);
    }
    t->n = (int)n;
    return PLM_OK;
}

/* Room for one row more; the new entries are zero. */
static int grow(struct pair_set *set, struct plm_status *st)
{
    struct row_set *rows = &set->rows;
    if (rows->n < rows->capacity)
        return PLM_OK;
    const int64_t capacity = 2 * rows->capacity + 64;
    struct row *r = realloc(rows->rows, (size_t)capacity * sizeof *r);
    rows->rows = r ? r : rows->rows;
    struct sampled_tokens *first = realloc(set->first, (size_t)capacity * sizeof *first), *second = realloc(set->second, (size_t)capacity * sizeof *second);
    set->first = first ? first : set->first;
    set->second = second ? second : set->second;
    if (!r || !first || !second)
        return status_no_memory(st, (size_t)capacity * sizeof *r, "the pairs");
    rows->capacity = capacity;
    return PLM_OK;
}

/* A prompt and an answer to it? A conversation may end otherwise, and a text has neither. */
static int check_answer(const struct row *row, struct plm_status *st)
{
    const bool ok = row->kind == ROW_PAIR || row->kind == ROW_LABELLED ||
                    (row->kind == ROW_CONVERSATION && row->n_messages > 1 && strcmp(row->messages[row->n_messages - 1].role, "assistant") == 0);
    return ok ? PLM_OK : status_set(st, PLM_EFORMAT, "expected a prompt and an answer to it; the row %s", row->kind == ROW_TEXT ? "is a text" : "does not end in an answer");
}

/* Append what a row of the file says. vocab_size 0: sampled tokens are passed over. */
static int add_row(struct pair_set *set, const json_t *object, int64_t line, const struct row_options *o, int vocab_size, struct plm_status *st)
{
    int code = grow(set, st);
    if (code)
        return code;
    const int64_t i = set->rows.n;
    struct row *row = &set->rows.rows[i];
    set->first[i] = set->second[i] = (struct sampled_tokens){0};
    code = row_read(row, object, o, st);
    if (code)
        return code;
    row->line = line;
    const bool pair = row->kind == ROW_PAIR;
    code = check_answer(row, st);
    if (!code && vocab_size)
        code = read_tokens(&set->first[i], object, pair ? "chosen_tokens" : "completion_tokens", vocab_size, st);
    if (!code && vocab_size && pair)
        code = read_tokens(&set->second[i], object, "rejected_tokens", vocab_size, st);
    if (code) { /* a row that is skipped leaves nothing behind */
        free(set->first[i].tokens);
        free(set->second[i].tokens);
        row_free(row);
        return code;
    }
    set->rows.n++;
    return PLM_OK;
}

/* How many copies of row number `index` weight stands for. */
static int64_t copies(double weight, uint64_t seed, int source, int64_t index)
{
    const double whole = (double)(int64_t)weight;
    return (int64_t)whole + (random_uniform(seed, RANDOM_SPLIT, (uint32_t)source, (uint64_t)index) < weight - whole);
}

static int read_file(struct pair_set *set, const struct example_source *source, int number, enum row_kind wanted, bool skip_bad, uint64_t seed, int vocab_size,
                     struct plm_status *st)
{
    const struct row_options o = {.wanted = wanted, .fields = source->fields};
    struct json_rows *rows;
    int code = json_rows_open(&rows, source->path, st);
    if (code)
        return code;
    for (int64_t index = 0; !code; index++) {
        json_t *object;
        int64_t line;
        struct plm_status why = {0};
        code = json_rows_next(rows, &object, &line, &why);
        if (!code && !object)
            break;
        for (int64_t n = code ? 1 : copies(source->weight, seed, number, index); n > 0 && !code; n--) {
            code = add_row(set, object, line, &o, vocab_size, &why);
            if (code)
                status_prefix(&why, "%s:%lld", source->path, (long long)line);
        }
        if (skip_bad && code == PLM_EFORMAT && line > 0) { /* line 0: the rest of the file cannot be read */
            if (set->rows.bad++ == 0)
                snprintf(set->rows.first_bad, sizeof set->rows.first_bad, "%.500s", why.message);
            code = PLM_OK;
        } else if (code && st) {
            *st = why;
        }
    }
    json_rows_close(rows);
    return code;
}

int pairs_read_sources(struct pair_set *set, const struct example_source *sources, int n, enum row_kind wanted, bool skip_bad, uint64_t seed, struct plm_status *st)
{
    *set = (struct pair_set){0};
    int code = PLM_OK;
    for (int i = 0; i < n && !code; i++)
        code = read_file(set, &sources[i], i, wanted, skip_bad, seed, 0, st);
    if (!code && set->rows.n == 0)
        code = status_set(st, PLM_EINVAL, "'%s': no rows to learn from%s%s", sources[0].path, set->rows.bad ? "; the first bad one: " : "", set->rows.first_bad);
    return code;
}

int pairs_read(struct pair_set *set, const char *path, enum row_kind wanted, int vocab_size, struct plm_status *st)
{
    const struct example_source source = {.path = path, .weight = 1};
    *set = (struct pair_set){0};
    return read_file(set, &source, 0, wanted, false, 0, vocab_size, st);
}

void pair_set_free(struct pair_set *set)
{
    for (int64_t i = 0; i < set->rows.n; i++) {
        free(set->first[i].tokens);
        free(set->second[i].tokens);
    }
    free(set->first);
    free(set->second);
    row_set_free(&set->rows);
    *set = (struct pair_set){0};
}

/* ---- sequences ---- */

struct builder {
    struct pair_sequences *p;
    const struct pair_set *set;
    const struct pair_context *c;
    struct encoder *encoder;
    struct token_list ids;
    struct target_list targets;
};

/* The answer that a part is about: text and, when it was sampled, tokens. */
struct part_answer {
    const char *text;
    const struct sampled_tokens *sampled;
};

static struct part_answer first_answer(const struct pair_set *set, int64_t i)
{
    const struct row *row = &set->rows.rows[i];
    const char *text = row->kind == ROW_PAIR ? row->chosen : row->kind == ROW_LABELLED ? row->completion : row->messages[row->n_messages - 1].content;
    return (struct part_answer){text, &set->first[i]};
}

static int prompt_messages(const struct row *row) { return row->kind == ROW_CONVERSATION ? row->n_messages - 1 : row->n_messages; }

/* The context of row i (refined from `draft` when there is one), then the answer: one more sequence, unless it is too long. */
static int add_sequence(struct builder *b, int64_t i, const char *draft, struct part_answer answer, bool *fits, struct plm_status *st)
{
    const struct row *row = &b->set->rows.rows[i];
    const int n = prompt_messages(row);
    b->ids.length = b->targets.length = 0;
    int code = PLM_OK;
    if (!draft) {
        code = chat_template_render(b->c->chat, b->encoder, row->messages, n, CHAT_BEGINS, true, &b->ids, NULL, st);
    } else {
        const struct chat_message *x = &row->messages[n - 1];
        size_t bytes;
        char *text = refine_template_fill(b->c->refine, x->content, x->content_bytes, draft, strlen(draft), &bytes);
        struct chat_message *messages = malloc((size_t)n * sizeof *messages);
        code = text && messages ? PLM_OK : status_no_memory(st, (size_t)n * sizeof *messages, "a refinement");
        if (!code) {
            memcpy(messages, row->messages, (size_t)n * sizeof *messages);
            messages[n - 1].content = text;
            messages[n - 1].content_bytes = bytes;
            code = chat_template_render(b->c->chat, b->encoder, messages, n, CHAT_BEGINS, true, &b->ids, NULL, st);
        }
        free(messages);
        free(text);
    }
    const int64_t context = (int64_t)b->ids.length;
    if (!code && !answer.sampled->tokens)
        code = chat_template_answer(b->c->chat, b->encoder, answer.text, strlen(answer.text), true, &b->ids, NULL, st);
    if (code)
        return code;
    const int sampled = answer.sampled->tokens ? answer.sampled->n : 0;
    *fits = *fits && (int64_t)b->ids.length + sampled <= b->c->max_len;
    if (!*fits)
        return PLM_OK;
    for (int k = 0; k < sampled; k++) { /* room was made for the context; the list grows as any other */
        if (b->ids.length == b->ids.capacity) {
            const size_t capacity = 2 * b->ids.capacity + (size_t)sampled;
            int32_t *data = realloc(b->ids.data, capacity * sizeof *data);
            if (!data)
                return status_no_memory(st, capacity * sizeof *data, "the tokens of a pair");
            b->ids.data = data, b->ids.capacity = capacity;
        }
        b->ids.data[b->ids.length++] = answer.sampled->tokens[k];
    }
    return examples_add(&b->p->e, b->ids.data, (int64_t)b->ids.length, NULL, context, st);
}

/* Forget the sequences after the first n. */
static void cut_back(struct examples *e, int64_t n)
{
    e->n = n;
    e->tokens.length = e->target.length = (size_t)(e->begin ? e->begin[n] : 0);
}

static int add_pair(struct builder *b, int64_t i, struct plm_status *st)
{
    const struct row *row = &b->set->rows.rows[i];
    const struct part_answer w = first_answer(b->set, i), l = {row->rejected, &b->set->second[i]};
    const bool pair = row->kind == ROW_PAIR;
    const int64_t before = b->p->e.n;
    bool fits = true;
    int code = add_sequence(b, i, NULL, w, &fits, st);
    if (!code && pair)
        code = add_sequence(b, i, NULL, l, &fits, st);
    for (int given = 0; given < 2 && pair && b->c->refined && !code; given++) {
        const char *draft = given ? w.text : l.text;
        code = add_sequence(b, i, draft, w, &fits, st);
        if (!code)
            code = add_sequence(b, i, draft, l, &fits, st);
    }
    if (!code && b->c->mismatched)
        code = add_sequence(b, i, NULL, first_answer(b->set, i > 0 ? i - 1 : b->set->rows.n - 1), &fits, st);
    if (code)
        return code;
    if (!fits) {
        cut_back(&b->p->e, before);
        b->p->dropped_long++;
        return PLM_OK;
    }
    b->p->desirable[b->p->n] = row->kind != ROW_LABELLED || row->desirable;
    b->p->row[b->p->n++] = i;
    return PLM_OK;
}

/* Which parts there are: all pairs have the same. */
static int layout(struct pair_sequences *p, const struct pair_set *set, const struct pair_context *c, struct plm_status *st)
{
    const enum row_kind kind = set->rows.n ? set->rows.rows[0].kind : ROW_PAIR;
    for (int64_t i = 0; i < set->rows.n; i++)
        if (set->rows.rows[i].kind != kind)
            return status_set(st, PLM_EINVAL, "row of line %lld: pairs and unpaired answers in one set; give them as separate runs", (long long)set->rows.rows[i].line);
    for (int k = 0; k < PAIR_PARTS; k++) {
        const bool wanted = k == PART_CHOSEN || (k == PART_MISMATCHED && c->mismatched) || (kind == ROW_PAIR && k == PART_REJECTED) ||
                            (kind == ROW_PAIR && c->refined && k >= PART_CHOSEN_GIVEN_L && k <= PART_REJECTED_GIVEN_W);
        p->at[k] = wanted ? p->per_pair++ : -1;
    }
    return PLM_OK;
}

int pair_sequences_build(struct pair_sequences *p, const struct pair_set *set, const struct pair_context *c, struct plm_status *st)
{
    *p = (struct pair_sequences){0};
    struct builder b = {.p = p, .set = set, .c = c};
    const size_t n = (size_t)set->rows.n + 1;
    int code = layout(p, set, c, st);
    p->row = malloc(n * sizeof *p->row);
    p->desirable = calloc(n, sizeof *p->desirable);
    if (!code && !(p->row && p->desirable))
        code = status_no_memory(st, n * sizeof *p->row, "the pairs");
    if (!code)
        code = encoder_create(&b.encoder, c->tokenizer, st);
    for (int64_t i = 0; i < set->rows.n && !code; i++)
        code = add_pair(&b, i, st);
    encoder_free(b.encoder);
    free(b.ids.data);
    free(b.targets.data);
    if (!code && !(p->lengths = calloc((size_t)p->e.n + 1, sizeof *p->lengths)))
        code = status_no_memory(st, (size_t)p->e.n * sizeof *p->lengths, "the pairs");
    for (int64_t i = 0; i < p->e.n && !code; i++)
        for (int64_t t = p->e.begin[i]; t < p->e.begin[i + 1]; t++)
            p->lengths[i] += p->e.target.data[t];
    return code;
}

void pair_sequences_free(struct pair_sequences *p)
{
    examples_free(&p->e);
    free(p->row);
    free(p->lengths);
    free(p->desirable);
    *p = (struct pair_sequences){0};
}
