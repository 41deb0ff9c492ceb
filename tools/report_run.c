#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "infer/base/log.h"
#include "infer/model/tensor_table.h"
#include "tools/report.h"
#include "train/checkpoint.h"

enum { SPANS = 1000 }; /* phases or rounds that are listed */

/* Steps in a row that belong to one phase or round. */
struct spans {
    json_t *list;
    char name[256];
    bool any;
};

struct reading {
    struct report_curves *curves;
    struct spans phases, rounds;
    int64_t rows, last_step;
    double elapsed, tokens; /* seconds of the steps so far; tokens of the row before */
    bool full;              /* there are more curves than are kept */
};

static int join(char path[PATH_MAX], const char *dir, const char *name, struct plm_status *st)
{
    return snprintf(path, PATH_MAX, "%s/%s", dir, name) < PATH_MAX ? PLM_OK : status_set(st, PLM_ELIMIT, "the path '%.100s...' is too long", dir);
}

/* A JSON file of the run directory; null when it is not there. */
static int read_json(const char *dir, const char *name, json_t **out, struct plm_status *st)
{
    char path[PATH_MAX];
    json_error_t e;
    int code = join(path, dir, name, st);
    if (!code && access(path, F_OK) != 0) {
        *out = json_null();
    } else if (!code && !(*out = json_load_file(path, 0, &e))) {
        code = status_set(st, PLM_EFORMAT, "%s:%d:%d: %s", path, e.line, e.column, e.text);
    }
    return code;
}

static int spans_add(struct spans *s, const char *name, int64_t step, struct plm_status *st)
{
    json_t *last = json_array_get(s->list, json_array_size(s->list) - 1);
    if (s->any && !strncmp(s->name, name, sizeof s->name - 1)) {
        json_object_set_new(last, "last", json_integer(step));
        return PLM_OK;
    }
    if (json_array_size(s->list) >= SPANS)
        return PLM_OK;
    s->any = true;
    snprintf(s->name, sizeof s->name, "%s", name);
    json_t *span = json_pack("{s:s, s:I, s:I}", "name", name, "first", (json_int_t)step, "last", (json_int_t)step);
    return json_array_append_new(s->list, span) ? status_no_memory(st, 0, "the phases of a run") : PLM_OK;
}

/* Time is what the steps took, without evaluations and checkpoints between them, so that it compares runs that differ in those. */
static int add_elapsed(struct reading *r, const json_t *row, int64_t step, struct plm_status *st)
{
    const json_t *seconds = json_object_get(row, "step_s"), *tokens = json_object_get(row, "tokens"), *rate = json_object_get(row, "tokens_per_s");
    double s = NAN;
    if (json_is_number(seconds))
        s = json_number_value(seconds);
    else if (json_is_number(tokens) && json_is_number(rate) && json_number_value(rate) > 0)
        s = (json_number_value(tokens) - r->tokens) / json_number_value(rate);
    if (json_is_number(tokens))
        r->tokens = json_number_value(tokens);
    if (!(s >= 0) || !isfinite(s) || json_object_get(row, "elapsed_s"))
        return PLM_OK;
    r->elapsed += s;
    return report_curves_add(r->curves, &(struct report_curve_id){NULL, "elapsed_s", -1, false}, step, -1, r->elapsed, &r->full, st);
}

static int add_row(struct reading *r, const struct report_lines *l, json_t *row, struct plm_status *st)
{
    const json_t *step_value = json_object_get(row, "step"), *turn = json_object_get(row, "turn"), *round = json_object_get(row, "round");
    if (!json_is_integer(step_value))
        return status_set(st, PLM_EFORMAT, "%s:%lld: a row without \"step\", expected a whole number", l->path, (long long)l->line);
    const int64_t step = json_integer_value(step_value), in_round = json_is_integer(round) && json_integer_value(round) >= 0 ? json_integer_value(round) : -1;
    const char *eval = json_string_value(json_object_get(row, "eval")), *phase = json_string_value(json_object_get(row, "phase"));
    struct report_curve_id id = {.eval = eval, .turn = json_is_integer(turn) && json_integer_value(turn) >= 0 ? json_integer_value(turn) : -1};
    id.of_round = in_round >= 0 && !eval && id.turn < 0 && !json_object_get(row, "loss");
    int code = PLM_OK;
    r->rows++;
    if (step > r->last_step)
        r->last_step = step;
    if (!eval && id.turn < 0 && !id.of_round) {
        char name[64];
        if (phase)
            code = spans_add(&r->phases, phase, step, st);
        snprintf(name, sizeof name, "%lld", (long long)in_round);
        if (!code && in_round >= 0)
            code = spans_add(&r->rounds, name, step, st);
        if (!code)
            code = add_elapsed(r, row, step, st);
    }
    json_t *v;
    json_object_foreach(row, id.key, v) {
        if (code || !strcmp(id.key, "step") || (!strcmp(id.key, "turn") && id.turn >= 0) || (!strcmp(id.key, "round") && in_round >= 0))
            continue;
        if (json_is_number(v) || json_is_null(v) || json_is_boolean(v)) /* null: it was not finite */
            code = report_curves_add(r->curves, &id, step, in_round, json_is_null(v) ? NAN : json_is_boolean(v) ? json_is_true(v) : json_number_value(v), &r->full, st);
    }
    return code;
}

static int read_metrics(const char *dir, struct reading *r, bool *half, struct plm_status *st)
{
    char path[PATH_MAX];
    struct report_lines l = {0};
    struct stat info;
    int code = join(path, dir, "metrics.jsonl", st);
    if (!code && stat(dir, &info) != 0)
        return status_set(st, PLM_EIO, "cannot open run directory '%s': %s", dir, strerror(errno));
    if (!code && !S_ISDIR(info.st_mode))
        return status_set(st, PLM_EINVAL, "'%s' is not a directory, expected the run_dir of plm pretrain, sft or align", dir);
    if (!code && access(path, F_OK) != 0)
        return status_set(st, PLM_EINVAL, "'%s' has no metrics.jsonl: it is not a run directory, or the run has not begun", dir);
    if (!code)
        code = report_lines_open(&l, path, st);
    json_t *row;
    while (!code && !(code = report_lines_next(&l, &row, st)) && row) {
        code = add_row(r, &l, row, st);
        json_decref(row);
    }
    if (!code && r->rows == 0)
        code = status_set(st, PLM_EFORMAT, "%s:1: no row yet, expected one per step: the run has not finished its first", path);
    if (!code && l.half)
        log_warn("%s:%lld: the last line is only half there, it is left out (the run is going on, or was killed)", path, (long long)l.line);
    *half = l.half;
    report_lines_close(&l);
    return code;
}

/* What lies in the run directory: the newest checkpoint's name and the number of event files, which every session begins one of. */
static void scan(const char *dir, char newest[64], int64_t *sessions)
{
    long long last = -1;
    struct dirent *e;
    DIR *d = opendir(dir);
    newest[0] = 0;
    *sessions = 0;
    while (d && (e = readdir(d))) {
        if (!strncmp(e->d_name, "events.out.tfevents.", 20))
            ++*sessions;
        if (!strncmp(e->d_name, "step-", 5) && isdigit((unsigned char)e->d_name[5]) && strlen(e->d_name) < 64 && atoll(e->d_name + 5) > last) {
            last = atoll(e->d_name + 5);
            strcpy(newest, e->d_name);
        }
    }
    if (d)
        closedir(d);
}

/* The hyper-parameters in the "model" section of run.json. */
static bool configured_model(const json_t *config, struct model_config *model)
{
    const json_t *section = json_object_get(config, "model");
    *model = model_config_default();
    for (int i = 0; i < model_config_n_fields; i++) {
        const struct model_config_field *f = &model_config_fields[i];
        const json_t *v = json_object_get(section, f->name);
        char *at = (char *)model + f->offset;
        if (json_is_number(v) && f->is_float)
            *(float *)at = (float)json_number_value(v);
        else if (json_is_integer(v) && json_integer_value(v) > 0 && json_integer_value(v) < INT_MAX)
            *(int *)at = (int)json_integer_value(v);
        else if (f->required)
            return false;
    }
    return model_config_check(model, "run.json", NULL) == PLM_OK;
}

/* Weights of the model: of the newest checkpoint's, of the configuration's, or of the one it started from; null when none of them is there. */
static json_t *parameters(const char *dir, const char *newest, const json_t *config)
{
    char path[PATH_MAX];
    struct model_config model;
    struct tensor_table table;
    const char *start = json_string_value(json_object_get(json_object_get(config, "model"), "path"));
    const bool known = (*newest && !join(path, dir, newest, NULL) && !checkpoint_config(path, &model, NULL)) || configured_model(config, &model) ||
                       (start && !checkpoint_config(start, &model, NULL));
    if (!known || tensor_table_build(&table, &model, 1, NULL))
        return json_null();
    json_t *n = json_integer(table.parameters);
    tensor_table_free(&table);
    return n;
}

int report_run_read(const char *run_dir, const char *name, json_t **run, struct plm_status *st)
{
    *run = NULL;
    struct reading r = {.curves = report_curves_create(), .phases.list = json_array(), .rounds.list = json_array()};
    json_t *config = NULL, *evaluation = NULL, *samples = NULL;
    bool half = false;
    int64_t sessions;
    char newest[64];
    int code = r.curves ? read_metrics(run_dir, &r, &half, st) : status_no_memory(st, 0, "the curves of a run");
    if (!code)
        code = read_json(run_dir, "run.json", &config, st);
    if (!code)
        code = read_json(run_dir, "evaluation.json", &evaluation, st);
    if (!code)
        code = report_samples_read(run_dir, &samples, st);
    if (!code) {
        scan(run_dir, newest, &sessions);
        *run = json_pack("{s:s, s:s, s:I, s:I, s:b, s:I, s:o, s:O, s:O, s:O, s:O, s:O}", "name", name, "path", run_dir, "rows", (json_int_t)r.rows, "steps", (json_int_t)r.last_step, "half_line", half,
                         "sessions", (json_int_t)sessions, "parameters", parameters(run_dir, newest, config), "config", config, "evaluation", evaluation,
                         "phases", r.phases.list, "rounds", r.rounds.list, "samples", samples);
        code = *run ? report_curves_json(r.curves, *run, st) : status_set(st, PLM_EINVAL, "'%s': the name of the run or its directory is not UTF-8", run_dir);
    }
    if (!code && r.full)
        log_warn("%s/metrics.jsonl: more than %d different values, the ones after those are left out", run_dir, REPORT_CURVES);
    if (code) {
        json_decref(*run);
        *run = NULL;
    }
    json_decref(config);
    json_decref(evaluation);
    json_decref(samples);
    json_decref(r.phases.list);
    json_decref(r.rounds.list);
    report_curves_free(r.curves);
    return code;
}
