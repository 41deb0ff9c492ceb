#include "train/metrics.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/log.h"
#include "infer/base/mapped.h"
#include "infer/base/output.h"
#include "train/files.h"

struct metrics {
    FILE *file;
    char *path;
    json_t *evaluated; /* {"eval": true} of the lines of the step that the session goes on from */
};

/* Should a line of an earlier session stay? Only whole lines of steps that this session does not repeat. Evaluations after `step`
 * are noted in m. */
static bool line_stays(const struct metrics *m, const char *line, size_t length, int64_t step)
{
    json_t *v = json_loadb(line, length, 0, NULL);
    const json_t *s = json_object_get(v, "step");
    const char *eval = json_string_value(json_object_get(v, "eval"));
    bool stays = json_is_integer(s) && json_integer_value(s) <= step;
    if (stays && eval && json_integer_value(s) == step)
        json_object_set_new(m->evaluated, eval, json_true());
    json_decref(v);
    return stays;
}

/* Rewrite the file with the lines that stay, by way of a temporary one, unless all do. */
static int cut_back(const struct metrics *m, int64_t step, struct plm_status *st)
{
    const char *path = m->path;
    if (access(path, F_OK) != 0)
        return PLM_OK;
    struct mapped_file old;
    int code = mapped_open(&old, path, st);
    if (code)
        return code;
    char *kept = malloc(old.size + 1);
    if (!kept)
        code = status_no_memory(st, old.size + 1, "the metrics of earlier sessions");
    size_t length = 0;
    int64_t dropped = 0;
    for (size_t at = 0; !code && at < old.size;) {
        const char *line = (const char *)old.data + at, *end = memchr(line, '\n', old.size - at);
        size_t n = end ? (size_t)(end - line) + 1 : old.size - at;
        if (end && line_stays(m, line, n, step)) {
            memcpy(kept + length, line, n);
            length += n;
        } else {
            dropped++;
        }
        at += n;
    }
    mapped_close(&old);
    char temporary[PATH_MAX];
    if (!code && dropped && snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary)
        code = status_set(st, PLM_ELIMIT, "the path '%.100s...' is too long", path);
    if (!code && dropped)
        code = file_write_synced(temporary, kept, length, st);
    if (!code && dropped && rename(temporary, path) != 0)
        code = status_set(st, PLM_EIO, "cannot rename '%s' to '%s': %s", temporary, path, strerror(errno));
    if (code && dropped)
        unlink(temporary);
    else if (dropped && step > 0)
        log_info("%s: %lld lines written after step %lld by an earlier session removed", path, (long long)dropped,
                 (long long)step);
    free(kept);
    return code;
}

int metrics_open(struct metrics **out, const char *path, int64_t step, struct plm_status *st)
{
    *out = NULL;
    struct metrics *m = calloc(1, sizeof *m);
    if (m) {
        m->path = strdup(path);
        m->evaluated = json_object();
    }
    if (!m || !m->path || !m->evaluated) {
        metrics_close(m);
        return status_no_memory(st, sizeof *m, "the metrics file");
    }
    int code = step > 0 ? cut_back(m, step, st) : PLM_OK;
    if (!code)
        code = step > 0 ? output_append_stream(&m->file, path, st) : output_create_stream(&m->file, path, st);
    if (code) {
        metrics_close(m);
        return code;
    }
    *out = m;
    return PLM_OK;
}

bool metrics_evaluated(const struct metrics *m, const char *name)
{
    return json_object_get(m->evaluated, name) != NULL;
}

/* The fewest digits that read back as the same number. */
static void put_number(FILE *f, double x)
{
    char text[40];
    if (!isfinite(x)) {
        fputs("null", f);
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x)
            break;
    }
    fputs(text, f);
}

static void put_text(FILE *f, const char *text)
{
    json_t *v = json_stringn(text, strlen(text));
    char *quoted = v ? json_dumps(v, JSON_ENCODE_ANY) : NULL;
    fputs(quoted ? quoted : "null", f); /* null for text that is not UTF-8 */
    free(quoted);
    json_decref(v);
}

int metrics_write(struct metrics *m, int64_t step, const struct metric *metrics, int n, struct plm_status *st)
{
    errno = 0;
    fprintf(m->file, "{\"step\": %lld", (long long)step);
    for (int i = 0; i < n; i++) {
        fputs(", ", m->file);
        put_text(m->file, metrics[i].name);
        fputs(": ", m->file);
        if (metrics[i].text)
            put_text(m->file, metrics[i].text);
        else
            put_number(m->file, metrics[i].value);
    }
    fputs("}\n", m->file);
    if (fflush(m->file) != 0 || ferror(m->file))
        return status_set(st, PLM_EIO, "cannot write '%s': %s", m->path, strerror(errno));
    return PLM_OK;
}

void metrics_close(struct metrics *m)
{
    if (!m)
        return;
    if (m->file)
        fclose(m->file);
    json_decref(m->evaluated);
    free(m->path);
    free(m);
}
