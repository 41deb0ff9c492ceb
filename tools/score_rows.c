#include "tools/score_rows.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void score_input_free(struct score_input *in)
{
    row_set_free(&in->tasks);
    answer_set_free(&in->answers);
}

/* A field as text: a string, a number, or the entries of a list, one per line. */
static bool put_field(FILE *f, const json_t *v)
{
    size_t i;
    json_t *entry;
    if (json_is_string(v))
        return fwrite(json_string_value(v), 1, json_string_length(v), f) == json_string_length(v);
    if (json_is_integer(v))
        return fprintf(f, "%lld", (long long)json_integer_value(v)) > 0;
    if (json_is_real(v))
        return fprintf(f, "%.15g", json_real_value(v)) > 0;
    if (!json_is_array(v))
        return false;
    json_array_foreach((json_t *)v, i, entry) {
        if (!json_is_string(entry))
            return false;
        fprintf(f, "%s%s", i ? "\n" : "", json_string_value(entry));
    }
    return true;
}

int score_expand(const char *template, const json_t *row, char **text, struct plm_status *st)
{
    size_t bytes;
    int code = PLM_OK;
    FILE *f = open_memstream(text, &bytes);
    if (!f)
        return status_no_memory(st, 0, "a text");
    for (const char *p = template; *p && !code;) {
        const char *end = p + 1;
        while (*p == '{' && (isalnum((unsigned char)*end) || *end == '_'))
            end++;
        char name[64];
        const size_t length = (size_t)(end - p - 1);
        if (*p != '{' || *end != '}' || length == 0 || length >= sizeof name) {
            fputc(*p++, f);
            continue;
        }
        memcpy(name, p + 1, length);
        name[length] = 0;
        const json_t *v = json_object_get(row, name);
        if (!put_field(f, v))
            code = status_set(st, PLM_EFORMAT, v ? "the field \"%s\" is no text, number or list of texts" : "the field \"%s\" is missing", name);
        p = end + 1;
    }
    if ((ferror(f) | fclose(f)) && !code)
        code = status_no_memory(st, bytes, "a text");
    if (code) {
        free(*text);
        *text = NULL;
    }
    return code;
}

/* What the row says in answer to its prompt. */
static int answer_text(const struct row *row, const json_t *object, const struct score_rows_options *o, char **text, struct plm_status *st)
{
    static const char *const names[] = {"completion", "response", "output"};
    if (o->text)
        return score_expand(o->text, object, text, st);
    const char *found = row->answer;
    for (size_t i = sizeof names / sizeof *names; i-- > 0;) {
        const json_t *v = json_object_get(object, names[i]);
        found = json_is_string(v) ? json_string_value(v) : found;
    }
    if (!found)
        return status_set(st, PLM_EFORMAT, "the row has no answer (completion, response, output or answer); say where it is with --text '{field}'");
    *text = strdup(found);
    return *text ? PLM_OK : status_no_memory(st, strlen(found), "an answer");
}

static int add_row(struct score_input *in, const json_t *object, int64_t line, const struct score_rows_options *o, struct plm_status *st)
{
    const struct row_options options = {.wanted = ROW_TASK, .fields = o->fields};
    struct row_set *tasks = &in->tasks;
    if (tasks->n == tasks->capacity) {
        const int64_t capacity = 2 * tasks->capacity + 64;
        struct row *grown = realloc(tasks->rows, (size_t)capacity * sizeof *grown);
        if (!grown)
            return status_no_memory(st, (size_t)capacity * sizeof *grown, "rows");
        tasks->rows = grown;
        tasks->capacity = capacity;
    }
    struct row *row = &tasks->rows[tasks->n];
    int code = row_read(row, object, &options, st);
    if (code)
        return code;
    row->line = line;
    struct answer a = {.task = tasks->n++, .ended = true};
    code = answer_text(row, object, o, &a.text, st);
    if (!code && (code = answer_set_add(&in->answers, &a, st)))
        free(a.text);
    return code;
}

static int read_rows(struct score_input *in, const char *path, const struct score_rows_options *o, struct plm_status *st)
{
    struct json_rows *rows;
    json_t *object;
    int64_t line;
    int code = json_rows_open(&rows, path, st);
    if (code)
        return code;
    while (!(code = json_rows_next(rows, &object, &line, st)) && object && (o->limit == 0 || in->answers.n < o->limit))
        if ((code = add_row(in, object, line, o, st))) {
            if (code == PLM_EFORMAT)
                status_prefix(st, "%s:%lld", path, (long long)line);
            break;
        }
    json_rows_close(rows);
    return code;
}

int score_rows_read(struct score_input *in, const char *path, const struct score_rows_options *o, struct plm_status *st)
{
    int code;
    if (o->tasks) {
        const struct row_options options = {.wanted = ROW_TASK, .fields = o->fields};
        code = row_set_read(&in->tasks, o->tasks, &options, false, st);
        if (!code)
            code = answer_set_read(&in->answers, path, in->tasks.n, st);
    } else {
        code = read_rows(in, path, o, st);
    }
    if (!code && in->answers.n == 0)
        code = status_set(st, PLM_EINVAL, "'%s' has no answers", path);
    return code;
}
