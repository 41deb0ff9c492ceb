/* Scores from a file: {"task", "chain", "turn", "score"} rows, made by any other program from the answers' file. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/align/scorer_kinds.h"

struct key {
    int64_t task, chain, turn;
    int64_t at; /* index of the answer */
    bool seen;
};

static int key_order(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    if (x->task != y->task)
        return x->task < y->task ? -1 : 1;
    if (x->chain != y->chain)
        return x->chain < y->chain ? -1 : 1;
    return (x->turn > y->turn) - (x->turn < y->turn);
}

/* A field that is a whole number; chain and turn may be left out: 0. */
static bool whole(const json_t *row, const char *name, bool optional, int64_t *value)
{
    const json_t *v = json_object_get(row, name);
    *value = json_is_integer(v) ? json_integer_value(v) : 0;
    return json_is_integer(v) || (!v && optional);
}

struct reading {
    struct key *keys; /* (n), ordered */
    struct answer *answers;
    int64_t n, rows, matched, malformed;
    char first[512];
};

static int read_row(struct reading *r, const json_t *row, const char *path, int64_t line, struct plm_status *st)
{
    struct key want;
    const json_t *score = json_object_get(row, "score");
    if (!whole(row, "task", false, &want.task) || !whole(row, "chain", true, &want.chain) || !whole(row, "turn", true, &want.turn) ||
        !json_is_number(score)) {
        if (r->malformed++ == 0)
            snprintf(r->first, sizeof r->first, "%s:%lld: expected {\"task\": N, \"chain\": N, \"turn\": N, \"score\": x}", path, (long long)line);
        return PLM_OK;
    }
    r->rows++;
    struct key *k = bsearch(&want, r->keys, (size_t)r->n, sizeof *r->keys, key_order);
    if (!k)
        return PLM_OK; /* of other answers: one file may score all rounds' */
    struct answer *a = &r->answers[k->at];
    const double value = json_number_value(score);
    if (k->seen && value != a->score)
        return status_set(st, PLM_EFORMAT, "%s:%lld: task %lld, chain %lld, turn %lld has score %g here and %g in an earlier line", path,
                          (long long)line, (long long)want.task, (long long)want.chain, (long long)want.turn, value, a->score);
    r->matched += !k->seen;
    k->seen = a->scored = true;
    a->score = value;
    return PLM_OK;
}

int scorer_file_score(const struct scorer *s, struct answer *answers, int64_t n, struct scorer_stats *stats, struct plm_status *st)
{
    struct reading r = {.answers = answers, .n = n};
    r.keys = malloc((size_t)(n ? n : 1) * sizeof *r.keys);
    if (!r.keys)
        return status_no_memory(st, (size_t)n * sizeof *r.keys, "the keys of answers");
    for (int64_t i = 0; i < n; i++) {
        r.keys[i] = (struct key){answers[i].task, answers[i].chain, answers[i].turn, i, false};
        answers[i].scored = false;
    }
    qsort(r.keys, (size_t)n, sizeof *r.keys, key_order);
    struct json_rows *rows;
    int code = json_rows_open(&rows, s->path, st);
    while (!code) {
        json_t *row;
        int64_t line;
        struct plm_status bad = {0};
        code = json_rows_next(rows, &row, &line, &bad);
        if (code == PLM_EFORMAT && !strncmp(s->path, bad.message, strlen(s->path)) && r.malformed < 1000000) {
            if (r.malformed++ == 0)
                snprintf(r.first, sizeof r.first, "%.*s", (int)sizeof r.first - 1, bad.message);
            code = PLM_OK;
            continue;
        }
        if (code)
            code = status_set(st, code, "%s", bad.message);
        else if (!row)
            break;
        else
            code = read_row(&r, row, s->path, line, st);
    }
    json_rows_close(rows);
    if (!code && r.matched == 0 && n > 0)
        code = status_set(st, PLM_EINVAL, "%s: none of its %lld scores is of one of the %lld answers (tasks %lld to %lld)%s%s", s->path,
                          (long long)r.rows, (long long)n, (long long)r.keys[0].task, (long long)r.keys[n - 1].task,
                          r.malformed ? "; its first malformed row: " : "", r.first);
    if (!code) {
        stats->scored += r.matched;
        stats->malformed += r.malformed;
        if (r.malformed && !*stats->first_failure)
            snprintf(stats->first_failure, sizeof stats->first_failure, "%s", r.first);
        for (int64_t i = 0; i < n; i++)
            if (!answers[i].scored)
                scorer_failed(stats, OUTCOME_MISSING, &answers[i], "the scores' file does not have it");
    }
    free(r.keys);
    return code;
}
