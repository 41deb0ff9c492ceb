#include <stdlib.h>
#include <string.h>

#include "tools/eval.h"
#include "tools/eval_rows.h"
#include "tools/result.h"

enum { MAX_CHOICES = 1024 };

struct text {
    const char *data;
    size_t length;
};

/* One row: option i is text[i][0] + delimiter, then text[i][1], of which one part is the same for all. */
struct row {
    int n, answer;
    bool contexts_differ;
    struct text (*text)[2]; /* (n): context, choice; owned by the JSON row */
};

struct run {
    struct eval_model *e;
    const struct eval_choice_options *o;
    struct row row;
    struct token_list alone;    /* the start token, context and delimiter */
    struct token_list *joined;  /* (MAX_CHOICES): with the choice */
    size_t *from;               /* (MAX_CHOICES) first token to score */
    double *sum, *per_byte;     /* (MAX_CHOICES) */
    struct score_request *requests; /* (MAX_CHOICES) */
    struct token_score *scores; /* of all options */
    size_t n_scores;
    char *buffer;
    size_t capacity;
    int64_t rows, skipped, correct, correct_per_byte;
    double chance;
};

static int get_answer(const json_t *json, int n, int *answer, struct plm_status *st)
{
    const json_t *v = json_object_get(json, "answer");
    if (!v)
        v = json_object_get(json, "gold");
    if (!json_is_integer(v))
        return status_set(st, PLM_EFORMAT, "\"answer\" is %s, expected the index of the right choice, from 0",
                          v ? "not a whole number" : "missing");
    if (json_integer_value(v) < 0 || json_integer_value(v) >= n)
        return status_set(st, PLM_EFORMAT, "\"answer\" is %lld, but there are %d choices: expected 0 to %d",
                          (long long)json_integer_value(v), n, n - 1);
    *answer = (int)json_integer_value(v);
    return PLM_OK;
}

/* Choices and their contexts, from either form of row. */
static int parse_row(const json_t *json, struct row *r, struct plm_status *st)
{
    const json_t *options = json_object_get(json, "context_options");
    r->contexts_differ = options != NULL;
    const char *name = options ? "context_options" : "choices";
    const char *const *shared_names =
        options ? (const char *const[]){"continuation", NULL} : (const char *const[]){"context", "query", NULL};
    struct text shared;
    int code = eval_row_string(json, shared_names, &shared.data, &shared.length, st);
    if (code)
        return code;
    if (!options)
        options = json_object_get(json, "choices");
    if (!json_is_array(options) || json_array_size(options) < 2 || json_array_size(options) > MAX_CHOICES)
        return status_set(st, PLM_EFORMAT, "\"%s\" is %s, expected an array of 2 to %d strings", name,
                          !options                        ? "missing"
                          : !json_is_array(options)       ? "not an array"
                          : json_array_size(options) == 0 ? "empty"
                                                          : "of another size",
                          MAX_CHOICES);
    r->n = (int)json_array_size(options);
    for (int i = 0; i < r->n; i++) {
        const json_t *v = json_array_get(options, (size_t)i);
        if (!json_is_string(v))
            return status_set(st, PLM_EFORMAT, "%s %d (from 0) is not a string", name, i);
        r->text[i][r->contexts_differ] = shared;
        r->text[i][!r->contexts_differ] = (struct text){json_string_value(v), json_string_length(v)};
        if (r->text[i][1].length == 0)
            return status_set(st, PLM_EFORMAT, "%s %d (from 0) is empty: there is nothing to score",
                              r->contexts_differ ? "the continuation of" : "choice", i);
    }
    return get_answer(json, r->n, &r->answer, st);
}

/* Tokens of context i and delimiter, with the choice behind them or not. */
static int encode(struct run *r, int i, bool with_choice, struct token_list *ids, struct plm_status *st)
{
    const struct text *context = &r->row.text[i][0], *choice = &r->row.text[i][1];
    const size_t delimiter = strlen(r->o->delimiter), needed = context->length + delimiter + choice->length;
    if (needed > r->capacity) {
        char *grown = realloc(r->buffer, 2 * needed);
        if (!grown)
            return status_no_memory(st, 2 * needed, "a row");
        r->buffer = grown;
        r->capacity = 2 * needed;
    }
    memcpy(r->buffer, context->data, context->length);
    memcpy(r->buffer + context->length, r->o->delimiter, delimiter);
    memcpy(r->buffer + context->length + delimiter, choice->data, choice->length);
    return eval_encode(r->e, r->buffer, with_choice ? needed : needed - choice->length, false, ids, st);
}

/* Tokens of all options, and where scoring begins. */
static int encode_row(struct run *r, struct plm_status *st)
{
    size_t least = SIZE_MAX;
    for (int i = 0; i < r->row.n; i++) {
        struct token_list *joined = &r->joined[i];
        int code = encode(r, i, true, joined, st);
        if (!code && (i == 0 || r->row.contexts_differ))
            code = encode(r, i, false, &r->alone, st);
        if (code)
            return code;
        size_t same = 1; /* the start token */
        while (same + 1 < joined->length && same < r->alone.length && joined->data[same] == r->alone.data[same])
            same++;
        r->from[i] = same;
        least = same < least ? same : least;
    }
    for (int i = 0; i < r->row.n && !r->row.contexts_differ; i++)
        r->from[i] = least;
    return PLM_OK;
}

static int best(const double *score, int n)
{
    int at = 0;
    for (int i = 1; i < n; i++)
        if (score[i] > score[at])
            at = i;
    return at;
}

static json_t *numbers(const double *values, int n)
{
    json_t *array = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(array, json_real(values[i]));
    return array;
}

static int score_options(struct run *r, int64_t line, struct plm_status *st)
{
    const struct row *row = &r->row;
    size_t n = 0;
    for (int i = 0; i < row->n; i++)
        n += r->joined[i].length;
    if (n > r->n_scores) {
        struct token_score *grown = realloc(r->scores, 2 * n * sizeof *grown);
        if (!grown)
            return status_no_memory(st, 2 * n * sizeof *grown, "scores");
        r->scores = grown;
        r->n_scores = 2 * n;
    }
    n = 0;
    for (int i = 0; i < row->n; i++) {
        r->requests[i] = (struct score_request){r->joined[i].data, r->joined[i].length, r->from[i], r->scores + n};
        n += r->joined[i].length - r->from[i];
    }
    const int code = eval_score_batch(r->e, r->requests, row->n, st);
    if (code)
        return code;
    for (int i = 0; i < row->n; i++) {
        r->sum[i] = 0;
        for (size_t j = 0; j < r->requests[i].n - r->requests[i].from; j++)
            r->sum[i] += r->requests[i].scores[j].log_prob;
        r->per_byte[i] = r->sum[i] / (double)row->text[i][1].length;
    }
    const int by_sum = best(r->sum, row->n), by_byte = best(r->per_byte, row->n);
    r->correct += by_sum == row->answer;
    r->correct_per_byte += by_byte == row->answer;
    r->chance += 1.0 / row->n;
    if (!r->o->items)
        return PLM_OK;
    return eval_write_item(r->o->items,
                           json_pack("{s:I, s:i, s:i, s:i, s:o}", "line", (json_int_t)line, "answer", row->answer, "by_sum", by_sum,
                                     "by_byte", by_byte, "log_probs", numbers(r->sum, row->n)),
                           st);
}

static int one_row(struct run *r, const json_t *json, int64_t line, struct plm_status *st)
{
    int code = parse_row(json, &r->row, st);
    if (!code)
        code = encode_row(r, st);
    if (code)
        return code;
    r->rows++;
    for (int i = 0; i < r->row.n; i++)
        if (r->joined[i].length - 1 > r->e->context) {
            r->skipped++;
            return PLM_OK;
        }
    return score_options(r, line, st);
}

static int make_result(const struct run *r, const char *path, json_t **result, struct plm_status *st)
{
    const int64_t scored = r->rows - r->skipped;
    json_t *sum = json_pack("{s:s}", "score", "sum"), *per_byte = json_pack("{s:s}", "score", "per byte");
    *result = NULL;
    int code = sum && per_byte ? PLM_OK : result_failed(st);
    if (!code)
        code = result_add_accuracy(sum, r->correct, scored, st);
    if (!code)
        code = result_add_accuracy(per_byte, r->correct_per_byte, scored, st);
    if (code) {
        json_decref(sum);
        json_decref(per_byte);
        return code;
    }
    *result = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:f, s:[o, o]}", "evaluation", "choice", "model", r->e->path, "file", path,
                        "context", (json_int_t)r->e->context, "scored", (json_int_t)scored, "skipped_too_long",
                        (json_int_t)r->skipped, "chance", scored ? r->chance / (double)scored : 0.0, "accuracy", sum, per_byte);
    return *result ? eval_add_speed(r->e, *result, st) : result_failed(st);
}

static int allocate(struct run *r, struct plm_status *st)
{
    r->row.text = calloc(MAX_CHOICES, sizeof *r->row.text);
    r->joined = calloc(MAX_CHOICES, sizeof *r->joined);
    r->from = calloc(MAX_CHOICES, sizeof *r->from);
    r->sum = calloc(MAX_CHOICES, sizeof *r->sum);
    r->per_byte = calloc(MAX_CHOICES, sizeof *r->per_byte);
    r->requests = calloc(MAX_CHOICES, sizeof *r->requests);
    return r->row.text && r->joined && r->from && r->sum && r->per_byte && r->requests
               ? PLM_OK
               : status_no_memory(st, MAX_CHOICES * 64, "choices");
}

int eval_choice(struct eval_model *e, const char *path, const struct eval_choice_options *o, json_t **result, struct plm_status *st)
{
    struct run r = {.e = e, .o = o};
    struct json_rows *rows = NULL;
    json_t *json = NULL;
    int64_t line = 0;
    *result = NULL;
    int code = allocate(&r, st);
    if (!code)
        code = json_rows_open(&rows, path, st);
    while (!code && (o->limit == 0 || r.rows < o->limit)) {
        code = json_rows_next(rows, &json, &line, st);
        if (code || !json)
            break;
        if ((code = one_row(&r, json, line, st)))
            status_prefix(st, "%s:%lld", path, (long long)line);
    }
    if (!code && r.rows == 0)
        code = status_set(
            st, PLM_EINVAL,
            "'%s' has no rows; expected lines such as {\"context\": \"1 + 1 =\", \"choices\": [\" 2\", \" 3\"], \"answer\": 0}",
            path);
    if (!code)
        code = make_result(&r, path, result, st);
    json_rows_close(rows);
    for (int i = 0; i < MAX_CHOICES && r.joined; i++)
        free(r.joined[i].data);
    free(r.alone.data);
    free(r.row.text);
    free(r.joined);
    free(r.from);
    free(r.sum);
    free(r.per_byte);
    free(r.requests);
    free(r.scores);
    free(r.buffer);
    return code;
}
