#include "train/run_log.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/utf8.h"
#include "infer/base/output.h"
#include "train/tensorboard.h"

enum { TAG_BYTES = 512 };

struct run_log {
    struct metrics *metrics;
    struct tensorboard *tensorboard;      /* opened by the first event: a complete run gets no empty file */
    char *run_dir;
    int64_t first_step;                   /* of this session: TensorBoard hides what an earlier one wrote from there */
    char *samples_path;
    FILE *samples;                        /* opened by the first sample */
    int64_t sample_step, samples_of_step; /* to number the texts in TensorBoard */
};

/* samples.jsonl is made of lines with a "step", as metrics.jsonl is, and is cut back by the same function. */
static int cut_samples(const struct run_log *log, int64_t step, struct plm_status *st)
{
    if (step == 0) {
        if (unlink(log->samples_path) != 0 && errno != ENOENT)
            return status_set(st, PLM_EIO, "cannot remove '%s' of an earlier run: %s", log->samples_path, strerror(errno));
        return PLM_OK;
    }
    if (access(log->samples_path, F_OK) != 0)
        return PLM_OK;
    struct metrics *lines;
    int code = metrics_open(&lines, log->samples_path, step, st);
    metrics_close(lines);
    return code;
}

static int open_tensorboard(struct run_log *log, struct plm_status *st)
{
    if (log->tensorboard)
        return PLM_OK;
    const int code = tensorboard_open(&log->tensorboard, log->run_dir, st);
    return code ? code : tensorboard_restart(log->tensorboard, log->first_step, st);
}

int run_log_open(struct run_log **out, const char *run_dir, int64_t step, struct plm_status *st)
{
    *out = NULL;
    struct run_log *log = calloc(1, sizeof *log);
    if (!log)
        return status_no_memory(st, sizeof *log, "the log of the run");
    log->sample_step = -1;
    log->first_step = step > 0 ? step + 1 : 0;
    char path[PATH_MAX];
    int code = PLM_OK;
    if (snprintf(path, sizeof path, "%s/samples.jsonl", run_dir) >= (int)sizeof path)
        code = status_set(st, PLM_ELIMIT, "the path '%.100s...' is too long", run_dir);
    if (!code && (!(log->samples_path = strdup(path)) || !(log->run_dir = strdup(run_dir))))
        code = status_no_memory(st, strlen(path), "a path");
    if (!code)
        code = cut_samples(log, step, st);
    snprintf(path, sizeof path, "%s/metrics.jsonl", run_dir);
    if (!code)
        code = metrics_open(&log->metrics, path, step, st);
    if (code) {
        run_log_close(log);
        return code;
    }
    *out = log;
    return PLM_OK;
}

bool run_log_evaluated(const struct run_log *log, const char *name)
{
    return log && metrics_evaluated(log->metrics, name);
}

/* What goes before the names of a row's curves: "eval/<name>/", "turn<k>/", both, or nothing. */
static void tag_prefix(char prefix[TAG_BYTES], const struct metric *values, int n)
{
    char turn[32] = "";
    prefix[0] = 0;
    for (int i = 0; i < n; i++) {
        if (!strcmp(values[i].name, "eval") && values[i].text)
            snprintf(prefix, TAG_BYTES - sizeof turn, "eval/%s/", values[i].text);
        if (!strcmp(values[i].name, "turn") && !values[i].text && isfinite(values[i].value))
            snprintf(turn, sizeof turn, "turn%.0f/", values[i].value);
    }
    strcat(prefix, turn);
}

int run_log_write(struct run_log *log, int64_t step, const struct metric *values, int n, struct plm_status *st)
{
    if (!log)
        return PLM_OK;
    int code = metrics_write(log->metrics, step, values, n, st);
    code = code ? code : open_tensorboard(log, st);
    char prefix[TAG_BYTES], tag[2 * TAG_BYTES];
    tag_prefix(prefix, values, n);
    for (int i = 0; i < n && !code; i++) {
        if (values[i].text || !strcmp(values[i].name, "turn") || !strcmp(values[i].name, "round"))
            continue;
        snprintf(tag, sizeof tag, "%s%s", prefix, values[i].name);
        tag[utf8_valid_prefix(tag, strlen(tag))] = 0; /* a name that was cut, or is not UTF-8, must not end the run */
        code = tensorboard_scalar(log->tensorboard, tag, step, values[i].value, st);
    }
    return code ? code : tensorboard_flush(log->tensorboard, st);
}

/* A text as a quotation in Markdown, so that nothing in it is markup of ours: every line begins with "    ", a block of code. */
static void put_block(FILE *f, const char *heading, const char *text)
{
    fprintf(f, "**%s**\n\n    ", heading);
    for (; *text; text++) {
        fputc(*text, f);
        if (*text == '\n')
            fputs("    ", f);
    }
    fputs("\n\n", f);
}

/* The row as a page for TensorBoard; malloc'ed, NULL when out of memory. */
static char *sample_markdown(const json_t *row)
{
    char *page = NULL, heading[96];
    size_t size;
    FILE *f = open_memstream(&page, &size);
    if (!f)
        return NULL;
    const char *prompt = json_string_value(json_object_get(row, "prompt")), *reference = json_string_value(json_object_get(row, "reference"));
    if (prompt)
        put_block(f, "prompt", prompt);
    size_t i;
    const json_t *answer;
    json_array_foreach(json_object_get(row, "answers"), i, answer) {
        const json_t *turn = json_object_get(answer, "turn"), *score = json_object_get(answer, "score");
        const char *text = json_string_value(json_object_get(answer, "text"));
        int at = snprintf(heading, sizeof heading, "answer %lld", json_is_integer(turn) ? (long long)json_integer_value(turn) : (long long)i);
        if (json_is_number(score))
            snprintf(heading + at, sizeof heading - (size_t)at, ", score %.4g", json_number_value(score));
        put_block(f, heading, text ? text : "");
    }
    if (reference)
        put_block(f, "reference", reference);
    const bool failed = ferror(f);
    if (fclose(f) != 0 || failed) {
        free(page);
        return NULL;
    }
    return page;
}

static int append_line(struct run_log *log, const char *line, struct plm_status *st)
{
    const int code = log->samples ? PLM_OK : output_append_stream(&log->samples, log->samples_path, st);
    if (code)
        return code;
    errno = 0;
    if (fprintf(log->samples, "%s\n", line) < 0 || fflush(log->samples) != 0)
        return status_set(st, PLM_EIO, "cannot write '%s': %s", log->samples_path, strerror(errno));
    return PLM_OK;
}

int run_log_sample(struct run_log *log, int64_t step, const char *json_row, struct plm_status *st)
{
    if (!log)
        return PLM_OK;
    json_error_t e;
    json_t *row = json_loads(json_row, JSON_REJECT_DUPLICATES, &e), *line = json_pack("{s:I}", "step", (json_int_t)step);
    if (!json_is_object(row)) {
        json_decref(line);
        json_decref(row);
        return status_set(st, PLM_EINVAL, "a sample of step %lld is not a JSON object%s%s", (long long)step, row ? "" : ": ", row ? "" : e.text);
    }
    json_object_del(row, "step");
    char *text = json_object_update(line, row) == 0 ? json_dumps(line, JSON_PRESERVE_ORDER | JSON_COMPACT) : NULL;
    char *page = text ? sample_markdown(row) : NULL;
    int code = page ? append_line(log, text, st) : status_no_memory(st, 0, "a sample");
    code = code ? code : open_tensorboard(log, st);
    if (!code) {
        char tag[64];
        if (log->sample_step != step)
            log->samples_of_step = 0;
        log->sample_step = step;
        snprintf(tag, sizeof tag, "samples/%lld", (long long)log->samples_of_step++);
        code = tensorboard_text(log->tensorboard, tag, step, page, st);
    }
    if (!code)
        code = tensorboard_flush(log->tensorboard, st);
    free(page);
    free(text);
    json_decref(line);
    json_decref(row);
    return code;
}

void run_log_close(struct run_log *log)
{
    if (!log)
        return;
    metrics_close(log->metrics);
    tensorboard_close(log->tensorboard);
    if (log->samples)
        fclose(log->samples);
    free(log->samples_path);
    free(log->run_dir);
    free(log);
}
