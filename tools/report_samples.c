#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/utf8.h"
#include "tools/report.h"

enum { STEPS = 24, ROWS = 12, TEXT_BYTES = 6000, ANSWERS = 16 };

/* Where each row is, and its step. */
struct row_list {
    struct place { size_t at; int64_t line; json_int_t step; } *places;
    size_t n, capacity;
};

static int find_rows(struct report_lines *l, struct row_list *rows, struct plm_status *st)
{
    json_t *row;
    int code;
    while (!(code = report_lines_next(l, &row, st)) && row) {
        const json_t *step = json_object_get(row, "step");
        if (!json_is_integer(step)) {
            code = status_set(st, PLM_EFORMAT, "%s:%lld: a sample without \"step\", expected a whole number", l->path, (long long)l->line);
        } else if (rows->n == rows->capacity) {
            const size_t capacity = rows->capacity ? 2 * rows->capacity : 256;
            struct place *places = realloc(rows->places, capacity * sizeof *places);
            if (places) {
                rows->places = places;
                rows->capacity = capacity;
            } else {
                code = status_no_memory(st, capacity * sizeof *places, "the list of samples");
            }
        }
        if (!code)
            rows->places[rows->n++] = (struct place){l->begin, l->line, json_integer_value(step)};
        json_decref(row);
        if (code)
            break;
    }
    return code;
}

/* "prompt" and the like are texts, or a conversation: [{"role", "content"}]. */
static json_t *shown_text(const json_t *v, int64_t *cut)
{
    char *joined = NULL;
    size_t size = 0;
    if (json_is_array(v)) {
        FILE *f = open_memstream(&joined, &size);
        size_t i;
        const json_t *message;
        json_array_foreach(v, i, message) {
            const char *role = json_string_value(json_object_get(message, "role")), *content = json_string_value(json_object_get(message, "content"));
            if (f && content)
                fprintf(f, "%s%s%s%s", i ? "\n\n" : "", role ? role : "", role ? ": " : "", content);
        }
        if (!f || fclose(f) != 0) {
            free(joined);
            return NULL;
        }
    } else if (!json_is_string(v)) {
        return NULL;
    }
    const char *text = joined ? joined : json_string_value(v);
    const size_t whole = strlen(text), n = whole <= TEXT_BYTES ? whole : utf8_valid_prefix(text, TEXT_BYTES);
    if (n < whole)
        *cut = (int64_t)(whole - n);
    json_t *shown = json_stringn(text, n);
    free(joined);
    return shown;
}

static void put_shown(json_t *out, const char *key, const char *cut_key, const json_t *v)
{
    int64_t cut = 0;
    json_t *shown = shown_text(v, &cut);
    if (shown)
        json_object_set_new(out, key, shown);
    if (cut)
        json_object_set_new(out, cut_key, json_integer(cut));
}

/* What the page shows of a row: its texts, cut, and its numbers. */
static json_t *shown_row(const json_t *row)
{
    json_t *out = json_object(), *answers = json_array(), *answer;
    size_t i;
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)row, key, v)
        if (json_is_number(v))
            json_object_set(out, key, v);
    put_shown(out, "eval", "eval_cut", json_object_get(row, "eval"));
    put_shown(out, "prompt", "prompt_cut", json_object_get(row, "prompt"));
    put_shown(out, "reference", "reference_cut", json_object_get(row, "reference"));
    json_array_foreach(json_object_get(row, "answers"), i, answer) {
        if (i == ANSWERS)
            break;
        json_t *a = json_object();
        json_object_foreach(answer, key, v)
            if (json_is_number(v) || json_is_boolean(v))
                json_object_set(a, key, v);
        put_shown(a, "text", "cut", json_is_string(answer) ? answer : json_object_get(answer, "text"));
        json_array_append_new(answers, a);
    }
    json_object_set_new(out, "answers", answers);
    return out;
}

/* The steps that have samples, in order and each once: of `n`, those to show are 0, ..., n - 1, spread evenly. */
static bool step_is_shown(size_t index, size_t n)
{
    if (n <= STEPS)
        return true;
    for (size_t k = 0; k < STEPS; k++)
        if (index == k * (n - 1) / (STEPS - 1))
            return true;
    return false;
}

static size_t steps_of(const struct row_list *rows)
{
    size_t n = 0;
    for (size_t i = 0; i < rows->n; i++)
        n += i == 0 || rows->places[i].step != rows->places[i - 1].step;
    return n;
}

static int choose_rows(struct report_lines *l, const struct row_list *rows, json_t *out, struct plm_status *st)
{
    const size_t n_steps = steps_of(rows);
    size_t step = 0;
    int of_step = 0;
    for (size_t i = 0; i < rows->n; i++) {
        if (i > 0 && rows->places[i].step != rows->places[i - 1].step) {
            step++;
            of_step = 0;
        }
        if (!step_is_shown(step, n_steps) || of_step++ >= ROWS)
            continue;
        l->at = rows->places[i].at;
        l->line = rows->places[i].line - 1;
        json_t *row;
        int code = report_lines_next(l, &row, st);
        if (code)
            return code;
        code = json_array_append_new(out, shown_row(row)) ? status_no_memory(st, 0, "a sample") : PLM_OK;
        json_decref(row);
        if (code)
            return code;
    }
    return PLM_OK;
}

int report_samples_read(const char *run_dir, json_t **samples, struct plm_status *st)
{
    *samples = NULL;
    char path[PATH_MAX];
    struct report_lines l = {0};
    struct row_list rows = {0};
    json_t *shown = json_array();
    int code = PLM_OK;
    if (snprintf(path, sizeof path, "%s/samples.jsonl", run_dir) >= (int)sizeof path)
        code = status_set(st, PLM_ELIMIT, "the path '%.100s...' is too long", run_dir);
    if (!code && access(path, F_OK) == 0) {
        code = report_lines_open(&l, path, st);
        if (!code)
            code = find_rows(&l, &rows, st);
        if (!code)
            code = choose_rows(&l, &rows, shown, st);
        report_lines_close(&l);
    }
    if (!code && !(*samples = json_pack("{s:I, s:O}", "total", (json_int_t)rows.n, "rows", shown)))
        code = status_no_memory(st, 0, "the samples");
    json_decref(shown);
    free(rows.places);
    return code;
}
