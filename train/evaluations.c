#include "train/evaluations.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/model/model.h"
#include "train/files.h"

#define FILE_LIMIT ((size_t)256 << 20)

/* The held-out loss over all targets, or the score of the last turn; NaN when the record has none. */
static double record_value(const json_t *record, enum sft_metric metric)
{
    const json_t *answers = json_object_get(record, "answers");
    if (metric == METRIC_SCORE) {
        const json_t *last = json_array_get(answers, json_array_size(answers) - (json_array_size(answers) > 0));
        const json_t *score = json_object_get(last, "score");
        return score ? json_number_value(score) : NAN;
    }
    double loss = 0, tokens = 0;
    const char *name;
    json_t *source;
    json_object_foreach(json_object_get(record, "held_out"), name, source) {
        const json_t *count = json_object_get(source, "tokens");
        const double n = json_number_value(count ? count : json_object_get(source, "pairs"));
        loss += n * json_number_value(json_object_get(source, "loss"));
        tokens += n;
    }
    return tokens > 0 ? loss / tokens : NAN;
}

static int64_t record_step(const json_t *record) { return json_integer_value(json_object_get(record, "step")); }

/* The newest record, already in the list: is it the best? */
static bool judge(struct evaluations *e, const json_t *record)
{
    const double value = record_value(record, e->metric);
    if (record_step(record) == 0)
        return false;
    const bool better = isfinite(value) && (e->best_step < 0 || (e->metric == METRIC_LOSS ? value < e->best : value > e->best));
    if (better) {
        e->best_step = record_step(record);
        e->best = value;
    }
    e->since = better ? 0 : e->since + 1;
    return better;
}

int evaluations_open(struct evaluations *e, const char *run_dir, enum sft_metric metric, int64_t step, struct plm_status *st)
{
    *e = (struct evaluations){.metric = metric, .best_step = -1, .list = json_array()};
    if (!e->list)
        return status_no_memory(st, 0, "the evaluations");
    if (snprintf(e->path, sizeof e->path, "%s/evaluation.json", run_dir) >= (int)sizeof e->path)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", run_dir);
    if (step == 0 || access(e->path, F_OK) != 0)
        return PLM_OK;
    char *text = NULL;
    size_t length = 0;
    json_error_t error;
    int code = file_read_text(&text, &length, e->path, FILE_LIMIT, st);
    json_t *root = code ? NULL : json_loadb(text, length, 0, &error);
    free(text);
    if (!code && !root)
        code = status_set(st, PLM_EFORMAT, "%s:%d:%d: %s", e->path, error.line, error.column, error.text);
    size_t i;
    json_t *record;
    json_array_foreach(json_object_get(root, "evaluations"), i, record) {
        if (record_step(record) <= step && !json_array_append(e->list, record))
            judge(e, record);
    }
    json_decref(root);
    return code;
}

void evaluations_close(struct evaluations *e)
{
    json_decref(e->list);
    *e = (struct evaluations){0};
}

bool evaluations_has(const struct evaluations *e, int64_t step)
{
    size_t i;
    json_t *record;
    json_array_foreach(e->list, i, record)
        if (record_step(record) == step)
            return true;
    return false;
}

int evaluations_add(struct evaluations *e, int64_t step, json_t *record, bool *improved, struct plm_status *st)
{
    *improved = false;
    if (!record || json_object_set_new(record, "step", json_integer(step)) || json_array_append(e->list, record)) {
        json_decref(record);
        return status_no_memory(st, 0, "an evaluation");
    }
    *improved = judge(e, record);
    json_decref(record);
    json_t *root = json_pack("{s:s}", "metric", e->metric == METRIC_LOSS ? "loss" : "score");
    if (e->best_step >= 0)
        json_object_set_new(root, "best", json_pack("{s:I, s:f}", "step", (json_int_t)e->best_step, "value", e->best));
    json_object_set(root, "evaluations", e->list);
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_PRESERVE_ORDER) : NULL;
    int code = text ? file_replace(e->path, text, strlen(text), st) : status_no_memory(st, 0, "the evaluations as text");
    free(text);
    json_decref(root);
    return code;
}
