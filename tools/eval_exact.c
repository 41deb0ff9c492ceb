#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "tools/arguments.h"
#include "tools/eval.h"
#include "tools/eval_answer.h"
#include "tools/eval_rows.h"
#include "tools/result.h"

#define QUESTION_TEMPLATE "Question: {question}\nAnswer:" /* of GSM8K's rows */

struct bytes {
    char *data;
    size_t length, capacity;
};

struct run {
    struct eval_model *e;
    const struct eval_exact_options *o;
    struct bytes prompt, text;
    struct token_list ids; /* start token, prompt */
    const char *finish;    /* "stop", "eos", "length" or "context" */
    int64_t rows, skipped, correct, without_answer, cut_by_length, cut_by_context, generated;
    double generate_s;
};

static int add_bytes(struct bytes *b, const char *data, size_t n, struct plm_status *st)
{
    if (b->length + n > b->capacity) {
        const size_t capacity = 2 * (b->length + n) + 256;
        char *grown = realloc(b->data, capacity);
        if (!grown)
            return status_no_memory(st, capacity, "a text");
        b->data = grown;
        b->capacity = capacity;
    }
    if (n)
        memcpy(b->data + b->length, data, n);
    b->length += n;
    return PLM_OK;
}

/* A string, or a number as text. */
static int field_text(const json_t *row, const char *name, const char **text, size_t *length, char number[64],
                      struct plm_status *st)
{
    const json_t *v = json_object_get(row, name);
    if (json_is_number(v)) {
        *text = number;
        *length = (size_t)(json_is_integer(v) ? snprintf(number, 64, "%lld", (long long)json_integer_value(v))
                                              : snprintf(number, 64, "%.15g", json_real_value(v)));
        return PLM_OK;
    }
    if (!json_is_string(v))
        return status_set(st, PLM_EFORMAT, v ? "\"%s\" is neither a string nor a number" : "the field \"%s\" is missing", name);
    *text = json_string_value(v);
    *length = json_string_length(v);
    return PLM_OK;
}

/* "{name}" becomes the field of that name; any other brace stands for itself. */
static int expand(struct run *r, const char *template, const json_t *row, struct plm_status *st)
{
    r->prompt.length = 0;
    for (const char *p = template; *p;) {
        const char *end = p + 1;
        while (*p == '{' && (isalnum((unsigned char)*end) || *end == '_'))
            end++;
        char name[64], number[64];
        const char *text = p;
        size_t length = 1, taken = 1;
        if (*p == '{' && *end == '}' && end - p - 1 > 0 && (size_t)(end - p) < sizeof name) {
            memcpy(name, p + 1, (size_t)(end - p - 1));
            name[end - p - 1] = 0;
            taken = (size_t)(end - p) + 1;
            const int code = field_text(row, name, &text, &length, number, st);
            if (code)
                return code;
        }
        const int code = add_bytes(&r->prompt, text, length, st);
        if (code)
            return code;
        p += taken;
    }
    return PLM_OK;
}

static int make_prompt(struct run *r, const json_t *row, struct plm_status *st)
{
    const char *template = r->o->prompt_template;
    if (!template)
        template = !json_object_get(row, "prompt") && json_object_get(row, "question") ? QUESTION_TEMPLATE : "{prompt}";
    const int code = expand(r, template, row, st);
    return code ? code
                : eval_encode(r->e, r->prompt.data ? r->prompt.data : "", r->prompt.length, r->o->parse_special, &r->ids, st);
}

static int get_answer(const struct run *r, const json_t *row, char **answer, struct plm_status *st)
{
    const char *text;
    char number[64];
    size_t length;
    int code = field_text(row, "answer", &text, &length, number, st);
    if (code)
        return code;
    enum answer_rule rule = (enum answer_rule)r->o->extract;
    if (rule == ANSWER_LAST_NUMBER && memmem(text, length, "####", 4)) /* the solutions of GSM8K */
        rule = ANSWER_GSM8K;
    code = answer_extract(rule, text, length, answer, st);
    if (!code && !*answer)
        code = status_set(st, PLM_EFORMAT, "\"answer\" holds no answer by the rule %s: '%.60s'", answer_rule_name(rule), text);
    return code;
}

/* Cut the text at the first stop string that ends in its last n bytes. */
static bool stopped(struct run *r, size_t n)
{
    size_t at = SIZE_MAX;
    for (int i = 0; i < r->o->n_stops; i++) {
        const size_t length = strlen(r->o->stops[i]),
                     from = r->text.length - n >= length - 1 ? r->text.length - n - (length - 1) : 0;
        const char *hit = memmem(r->text.data + from, r->text.length - from, r->o->stops[i], length);
        if (hit && (size_t)(hit - r->text.data) < at)
            at = (size_t)(hit - r->text.data);
    }
    if (at == SIZE_MAX)
        return false;
    r->text.length = at;
    return true;
}

static int generate(struct run *r, struct plm_status *st)
{
    int code = eval_feed(r->e, r->ids.data, r->ids.length, st);
    const double start = seconds_now();
    r->text.length = 0;
    r->finish = "length";
    for (int i = 0; i < r->o->max_tokens && !code; i++) {
        int32_t token;
        const char *bytes;
        code = eval_greedy(r->e, &token, st);
        if (code)
            break;
        r->generated++;
        if (token == r->e->start) {
            r->finish = "eos";
            break;
        }
        const size_t n = plm_token_bytes(r->e->model, token, true, &bytes);
        code = add_bytes(&r->text, bytes, n, st);
        if (!code && n && stopped(r, n)) {
            r->finish = "stop";
            break;
        }
        if (plm_session_length(r->e->session) == r->e->context) {
            r->finish = "context";
            break;
        }
        if (!code && i + 1 < r->o->max_tokens)
            code = eval_append(r->e, token, st);
    }
    r->generate_s += seconds_now() - start;
    return code;
}

static int write_item(const struct run *r, int64_t line, const char *expected, const char *found, struct plm_status *st)
{
    char *clean = malloc(3 * r->text.length + 1);
    if (!clean)
        return status_no_memory(st, 3 * r->text.length + 1, "a text");
    int64_t replaced;
    const size_t n = utf8_repair(r->text.data ? r->text.data : "", r->text.length, clean, &replaced);
    json_t *answer = found ? json_stringn(found, strlen(found)) : NULL; /* also null for half a character */
    json_t *item = json_pack("{s:I, s:s, s:o, s:b, s:s, s:s%}", "line", (json_int_t)line, "expected", expected, "answer",
                             answer ? answer : json_null(), "correct", found && !strcmp(expected, found), "finish", r->finish,
                             "text", clean, n);
    free(clean);
    return eval_write_item(r->o->items, item, st);
}

static int one_row(struct run *r, const json_t *json, int64_t line, struct plm_status *st)
{
    char *expected = NULL, *found = NULL;
    int code = make_prompt(r, json, st);
    if (!code)
        code = get_answer(r, json, &expected, st);
    if (!code) {
        r->rows++;
        if (r->ids.length > r->e->context) {
            r->skipped++;
            free(expected);
            return PLM_OK;
        }
        code = generate(r, st);
    }
    if (!code)
        code = answer_extract((enum answer_rule)r->o->extract, r->text.data ? r->text.data : "", r->text.length, &found, st);
    if (!code) {
        r->correct += found && !strcmp(expected, found);
        r->without_answer += !found;
        r->cut_by_length += !strcmp(r->finish, "length");
        r->cut_by_context += !strcmp(r->finish, "context");
    }
    if (!code && r->o->items)
        code = write_item(r, line, expected, found, st);
    free(expected);
    free(found);
    return code;
}

static int make_result(const struct run *r, const char *path, json_t **result, struct plm_status *st)
{
    *result = json_pack("{s:s, s:s, s:s, s:I, s:s, s:I, s:I}", "evaluation", "exact", "model", r->e->path, "file", path, "context",
                        (json_int_t)r->e->context, "extract", answer_rule_name((enum answer_rule)r->o->extract), "scored",
                        (json_int_t)(r->rows - r->skipped), "skipped_too_long", (json_int_t)r->skipped);
    if (!*result)
        return result_failed(st);
    int code = result_add_accuracy(*result, r->correct, r->rows - r->skipped, st);
    if (!code &&
        (json_object_set_new(*result, "without_answer", json_integer(r->without_answer)) ||
         json_object_set_new(*result, "cut_by_max_tokens", json_integer(r->cut_by_length)) ||
         json_object_set_new(*result, "cut_by_context", json_integer(r->cut_by_context)) ||
         json_object_set_new(*result, "generated_tokens", json_integer(r->generated)) ||
         json_object_set_new(*result, "generated_per_s", json_real(r->generate_s > 0 ? (double)r->generated / r->generate_s : 0))))
        code = result_failed(st);
    return code ? code : eval_add_speed(r->e, *result, st);
}

int eval_exact(struct eval_model *e, const char *path, const struct eval_exact_options *o, json_t **result, struct plm_status *st)
{
    struct run r = {.e = e, .o = o};
    struct eval_rows *rows = NULL;
    json_t *json = NULL;
    int64_t line = 0;
    *result = NULL;
    int code = eval_rows_open(&rows, path, st);
    while (!code && (o->limit == 0 || r.rows < o->limit)) {
        code = eval_rows_next(rows, &json, &line, st);
        if (code || !json)
            break;
        if ((code = one_row(&r, json, line, st)))
            status_prefix(st, "%s:%lld", path, (long long)line);
    }
    if (!code && r.rows == 0)
        code = status_set(st, PLM_EINVAL, "'%s' has no rows; expected lines such as {\"prompt\": \"1 + 1 =\", \"answer\": \"2\"}",
                          path);
    if (!code)
        code = make_result(&r, path, result, st);
    eval_rows_close(rows);
    free(r.prompt.data);
    free(r.text.data);
    free(r.ids.data);
    return code;
}
