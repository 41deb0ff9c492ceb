#include "train/align/task.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"
#include "train/files.h"

#define MAX_TURN (1 << 20)

/* Text that is not UTF-8 (an answer cut inside a character) gets U+FFFD for what is broken: what is written is then what is read. */
static int make_utf8(char **text, struct plm_status *st)
{
    const size_t n = strlen(*text);
    if (utf8_valid_prefix(*text, n) == n)
        return PLM_OK;
    char *out = n < SIZE_MAX / 3 ? malloc(3 * n + 1) : NULL;
    if (!out)
        return status_no_memory(st, n, "an answer");
    int64_t replaced = 0;
    out[utf8_repair(*text, n, out, &replaced)] = 0;
    free(*text);
    *text = out;
    return PLM_OK;
}

int answer_set_add(struct answer_set *set, const struct answer *a, struct plm_status *st)
{
    struct answer added = *a;
    if (set->n == set->capacity) {
        const int64_t capacity = set->capacity ? 2 * set->capacity : 64;
        struct answer *grown = realloc(set->answers, (size_t)capacity * sizeof *grown);
        if (!grown)
            return status_no_memory(st, (size_t)capacity * sizeof *grown, "answers");
        set->answers = grown;
        set->capacity = capacity;
    }
    int code = make_utf8(&added.text, st);
    if (!code)
        set->answers[set->n++] = added;
    return code;
}

void answer_set_free(struct answer_set *set)
{
    for (int64_t i = 0; i < set->n; i++) {
        free(set->answers[i].text);
        free(set->answers[i].tokens);
        free(set->answers[i].log_probs);
    }
    free(set->answers);
    *set = (struct answer_set){0};
}

/* ---- writing ---- */

static bool write_text(FILE *f, const char *text)
{
    json_t *s = json_string(text);
    const bool ok = s && json_dumpf(s, f, JSON_ENCODE_ANY) == 0;
    json_decref(s);
    return ok;
}

/* Nine digits bring a float back bit for bit, seventeen a double. */
static int write_answer(FILE *f, const struct answer *a, struct plm_status *st)
{
    fprintf(f, "{\"task\": %lld, \"chain\": %d, \"turn\": %d, \"text\": ", (long long)a->task, a->chain, a->turn);
    if (!write_text(f, a->text))
        return status_set(st, PLM_EINVAL, "the answer to task %lld (chain %d, turn %d) is not UTF-8", (long long)a->task, a->chain, a->turn);
    fprintf(f, ", \"tokens\": [");
    for (int i = 0; i < a->n; i++)
        fprintf(f, "%s%d", i ? ", " : "", a->tokens[i]);
    fprintf(f, "], \"log_probs\": [");
    for (int i = 0; i < a->n; i++) {
        if (!isfinite(a->log_probs[i]))
            return status_set(st, PLM_EINVAL, "the log-probability of token %d of the answer to task %lld (chain %d, turn %d) is %g", i,
                              (long long)a->task, a->chain, a->turn, (double)a->log_probs[i]);
        fprintf(f, "%s%.9g", i ? ", " : "", (double)a->log_probs[i]);
    }
    fprintf(f, "], \"ended\": %s", a->ended ? "true" : "false");
    if (a->scored && !isfinite(a->score))
        return status_set(st, PLM_EINVAL, "the score of the answer to task %lld (chain %d, turn %d) is %g", (long long)a->task, a->chain,
                          a->turn, a->score);
    if (a->scored)
        fprintf(f, ", \"score\": %.17g", a->score);
    fprintf(f, "}\n");
    return PLM_OK;
}

int answer_set_write(const struct answer_set *set, int64_t first, int64_t n, const char *path, struct plm_status *st)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    if (!f)
        return status_no_memory(st, 0, "answers as text");
    int code = PLM_OK;
    for (int64_t i = first; i < first + n && !code; i++)
        code = write_answer(f, &set->answers[i], st);
    if ((ferror(f) | fclose(f)) && !code)
        code = status_no_memory(st, bytes, "answers as text");
    if (!code)
        code = file_replace(path, text, bytes, st);
    free(text);
    return code;
}

/* ---- reading ---- */

static int bad_field(struct plm_status *st, const char *field, const char *expected, const json_t *found)
{
    char *text = found ? json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    int code = status_set(st, PLM_EFORMAT, "\"%s\" is %.60s, expected %s", field, found ? text ? text : "not printable" : "missing", expected);
    free(text);
    return code;
}

static int read_int(const json_t *row, const char *field, int64_t end, const char *expected, int64_t *value, struct plm_status *st)
{
    const json_t *v = json_object_get(row, field);
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= end)
        return bad_field(st, field, expected, v);
    *value = json_integer_value(v);
    return PLM_OK;
}

static int read_tokens(const json_t *row, struct answer *a, struct plm_status *st)
{
    const json_t *tokens = json_object_get(row, "tokens"), *log_probs = json_object_get(row, "log_probs");
    if (!json_is_array(tokens) || json_array_size(tokens) > INT_MAX)
        return bad_field(st, "tokens", "an array of token ids", tokens);
    if (!json_is_array(log_probs) || json_array_size(log_probs) != json_array_size(tokens))
        return bad_field(st, "log_probs", "an array as long as \"tokens\"", log_probs);
    const size_t n = json_array_size(tokens);
    a->n = (int)n;
    a->tokens = malloc((n ? n : 1) * sizeof *a->tokens);
    a->log_probs = malloc((n ? n : 1) * sizeof *a->log_probs);
    if (!a->tokens || !a->log_probs)
        return status_no_memory(st, n * sizeof *a->tokens, "the tokens of an answer");
    for (size_t i = 0; i < n; i++) {
        const json_t *token = json_array_get(tokens, i), *log_prob = json_array_get(log_probs, i);
        if (!json_is_integer(token) || json_integer_value(token) < 0 || json_integer_value(token) > INT32_MAX)
            return bad_field(st, "tokens", "token ids in it", token);
        if (!json_is_number(log_prob) || !isfinite((float)json_number_value(log_prob)))
            return bad_field(st, "log_probs", "numbers in it", log_prob);
        a->tokens[i] = (int32_t)json_integer_value(token);
        a->log_probs[i] = (float)json_number_value(log_prob);
    }
    return PLM_OK;
}

static int read_answer(const json_t *row, int64_t n_tasks, struct answer *a, struct plm_status *st)
{
    char expected[64];
    int64_t chain = 0, turn = 0;
    snprintf(expected, sizeof expected, "a task from 0 to %lld", (long long)n_tasks - 1);
    int code = read_int(row, "task", n_tasks, expected, &a->task, st);
    if (!code)
        code = read_int(row, "chain", MAX_TURN, "a whole number from 0", &chain, st);
    if (!code)
        code = read_int(row, "turn", MAX_TURN, "a whole number from 0", &turn, st);
    if (code)
        return code;
    a->chain = (int)chain;
    a->turn = (int)turn;
    const json_t *text = json_object_get(row, "text"), *ended = json_object_get(row, "ended"), *score = json_object_get(row, "score");
    if (!json_is_string(text) || strlen(json_string_value(text)) != json_string_length(text))
        return bad_field(st, "text", "a text without NUL", text);
    if (!json_is_boolean(ended))
        return bad_field(st, "ended", "true or false", ended);
    if (score && !json_is_number(score))
        return bad_field(st, "score", "a number", score);
    a->ended = json_is_true(ended);
    a->scored = score != NULL;
    a->score = score ? json_number_value(score) : 0;
    a->text = strdup(json_string_value(text));
    if (!a->text)
        return status_no_memory(st, json_string_length(text), "an answer");
    return read_tokens(row, a, st);
}

int answer_set_read(struct answer_set *set, const char *path, int64_t n_tasks, struct plm_status *st)
{
    struct json_rows *rows;
    int code = json_rows_open(&rows, path, st);
    if (code)
        return code;
    json_t *row;
    int64_t line;
    while (!(code = json_rows_next(rows, &row, &line, st)) && row) {
        struct answer a = {0};
        code = read_answer(row, n_tasks, &a, st);
        if (code)
            status_prefix(st, "%s:%lld", path, (long long)line);
        else
            code = answer_set_add(set, &a, st);
        if (code) {
            free(a.text);
            free(a.tokens);
            free(a.log_probs);
            break;
        }
    }
    json_rows_close(rows);
    return code;
}
