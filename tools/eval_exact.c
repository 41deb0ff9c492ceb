#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "tools/activity.h"
#include "tools/eval.h"
#include "tools/eval_answer.h"
#include "tools/eval_rows.h"
#include "tools/generation.h"
#include "tools/result.h"

#define QUESTION_TEMPLATE "Question: {question}\nAnswer:" /* of GSM8K's rows */

struct bytes {
    char *data;
    size_t length, capacity;
};

struct run {
    struct eval_model *e;
    const struct eval_exact_options *o;
    struct generation_options options;
    struct generation generation;
    struct bytes prompt;
    struct token_list *ids;  /* (batch): start token, prompt */
    char **expected;         /* (batch) */
    int64_t *line;           /* (batch) */
    int waiting;             /* rows with prompts that are not generated yet */
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

static int make_prompt(struct run *r, const json_t *row, struct token_list *ids, struct plm_status *st)
{
    const char *template = r->o->prompt_template;
    if (!template)
        template = !json_object_get(row, "prompt") && json_object_get(row, "question") ? QUESTION_TEMPLATE : "{prompt}";
    const int code = expand(r, template, row, st);
    return code ? code
                : eval_encode(r->e, r->prompt.data ? r->prompt.data : "", r->prompt.length, r->o->parse_special, ids, st);
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

static int write_item(const struct run *r, int64_t line, const struct sample *s, const char *expected, const char *found, struct plm_status *st)
{
    char *clean = malloc(3 * s->text.length + 1);
    if (!clean)
        return status_no_memory(st, 3 * s->text.length + 1, "a text");
    int64_t replaced;
    const size_t n = utf8_repair(s->text.data ? s->text.data : "", s->text.length, clean, &replaced);
    json_t *answer = found ? json_stringn(found, strlen(found)) : NULL; /* also null for half a character */
    json_t *item = json_pack("{s:I, s:s, s:o, s:b, s:s, s:s%}", "line", (json_int_t)line, "expected", expected, "answer",
                             answer ? answer : json_null(), "correct", found && !strcmp(expected, found), "finish", s->finish,
                             "text", clean, n);
    free(clean);
    return eval_write_item(r->o->items, item, st);
}

static int judge(struct run *r, int i, struct plm_status *st)
{
    const struct sample *s = &r->generation.samples[i];
    char *found = NULL;
    int code = answer_extract((enum answer_rule)r->o->extract, s->text.data ? s->text.data : "", s->text.length, &found, st);
    if (!code) {
        r->correct += found && !strcmp(r->expected[i], found);
        r->without_answer += !found;
        r->cut_by_length += !strcmp(s->finish, "length");
        r->cut_by_context += !strcmp(s->finish, "context");
    }
    if (!code && r->o->items)
        code = write_item(r, r->line[i], s, r->expected[i], found, st);
    free(found);
    return code;
}

/* Generate and judge the rows that wait. */
static int finish_batch(struct run *r, struct plm_status *st)
{
    struct generation *g = &r->generation;
    int code = PLM_OK;
    if (r->waiting && !g->engine)
        code = generation_open(g, r->e->model, &r->options, st);
    if (r->waiting && !code) {
        code = generation_run_each(g, r->ids, r->waiting, st);
        r->generated += (int64_t)g->generated;
        r->generate_s += g->decode_s;
        r->e->fed += (int64_t)(g->n_prompt - g->reused + g->generated);
        r->e->reused += (int64_t)g->reused;
        r->e->seconds += g->prefill_s + g->decode_s;
    }
    for (int i = 0; i < r->waiting; i++) {
        if (!code)
            code = judge(r, i, st);
        free(r->expected[i]);
    }
    r->waiting = 0;
    return code;
}

static int one_row(struct run *r, const json_t *json, int64_t line, struct plm_status *st)
{
    const int i = r->waiting;
    int code = make_prompt(r, json, &r->ids[i], st);
    if (!code)
        code = get_answer(r, json, &r->expected[i], st);
    if (code)
        return code;
    r->rows++;
    if (r->ids[i].length > r->e->context) {
        r->skipped++;
        free(r->expected[i]);
        return PLM_OK;
    }
    r->line[i] = line;
    r->waiting++;
    return PLM_OK;
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
    if (!code && r->generation.engine)
        activity_add(*result, r->generation.engine);
    return code ? code : eval_add_speed(r->e, *result, st);
}

int eval_exact(struct eval_model *e, const char *path, const struct eval_exact_options *o, json_t **result, struct plm_status *st)
{
    static const volatile sig_atomic_t never = 0;
    const size_t batch = (size_t)o->batch;
    struct run r = {.e = e, .o = o, .ids = calloc(batch, sizeof *r.ids), .expected = calloc(batch, sizeof *r.expected),
                    .line = calloc(batch, sizeof *r.line)};
    struct json_rows *rows = NULL;
    json_t *json = NULL;
    int64_t line = 0;
    r.options = (struct generation_options){.sampling = {.top_p = 1, .repetition_penalty = 1}, .n_threads = e->threads,
        .context = (int64_t)e->context, .sequence = {.type = DTYPE_F32, .policy = policy_options_default(POLICY_FULL)},
        .max_tokens = o->max_tokens, .samples = o->batch, .logprobs = -1, .stops = o->stops, .n_stops = o->n_stops, .special = true,
        .keep = true, .interrupted = &never};
    r.generation.o = &r.options;
    *result = NULL;
    int code = r.ids && r.expected && r.line ? json_rows_open(&rows, path, st) : status_no_memory(st, batch * 32, "a batch of rows");
    while (!code && (o->limit == 0 || r.rows < o->limit)) {
        code = json_rows_next(rows, &json, &line, st);
        if (code || !json)
            break;
        if ((code = one_row(&r, json, line, st)))
            status_prefix(st, "%s:%lld", path, (long long)line);
        else if (r.waiting == o->batch)
            code = finish_batch(&r, st);
    }
    if (!code)
        code = finish_batch(&r, st);
    for (int i = 0; i < r.waiting; i++)
        free(r.expected[i]);
    if (!code && r.rows == 0)
        code = status_set(st, PLM_EINVAL, "'%s' has no rows; expected lines such as {\"prompt\": \"1 + 1 =\", \"answer\": \"2\"}",
                          path);
    if (!code)
        code = make_result(&r, path, result, st);
    json_rows_close(rows);
    generation_close(&r.generation);
    for (size_t i = 0; i < batch && r.ids; i++)
        free(r.ids[i].data);
    free(r.ids);
    free(r.expected);
    free(r.line);
    free(r.prompt.data);
    return code;
}
