/* plm report: run directories read into JSON, and JSON put into a page. The page draws; what is computed here is what must not depend on the size of a run.
 *
 * A run is an object
 *     name, path, rows, steps, half_line, sessions, parameters (null when unknown)
 *     config, evaluation      run.json and evaluation.json, or null
 *     phases, rounds          [{"name", "first", "last"}]: steps of which the rows say so, in order
 *     x, curves               see report_curves_json
 *     samples                 {"total", "rows"}: see report_samples_read
 */
#ifndef TOOLS_REPORT_H
#define TOOLS_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "infer/base/mapped.h"
#include "infer/base/status.h"

/* --- curves --- */

enum { REPORT_POINTS = 2000, REPORT_CURVES = 4096 }; /* of one curve; of one run */

/* What a curve is of: values `key` of rows with this "eval" (NULL: none) and "turn" (-1: none); of_round: rows that close a round, beside those of its steps, which may
 * have the same key. */
struct report_curve_id {
    const char *eval, *key;
    int64_t turn;
    bool of_round;
};

struct report_curves;

/* NULL when out of memory. */
struct report_curves *report_curves_create(void);
void report_curves_free(struct report_curves *c); /* NULL allowed */

/* Append a point to a curve, which begins with its first one; round: -1 when the row has none. A value that is not finite is a gap. The memory of a curve is bounded: neighbouring points are
 * merged in pairs when there are REPORT_POINTS, and keep mean, least and greatest. *full is set when there are REPORT_CURVES already and this is another. */
int report_curves_add(struct report_curves *c, const struct report_curve_id *id, int64_t step, int64_t round, double value, bool *full, struct plm_status *st);

/* Put "x": [[step, ...], ...] and "curves": [{"key", "eval", "turn", "of_round", "x", "round", "y": [...], "low", "high", "width", "gaps", "last"}] into the run. x and round (not there when
 * the rows have none) are indices into the lists of "x". y is the mean of `width` points and null for a gap; low and high are there when width > 1; a step is the middle of
 * the merged ones. */
int report_curves_json(const struct report_curves *c, json_t *run, struct plm_status *st);

/* --- lines of a JSONL file that may be growing --- */

struct report_lines {
    const char *path;
    struct mapped_file file;
    size_t at, begin; /* begin: of the current line */
    int64_t line;     /* its number from 1 */
    bool half;        /* the last line has no end and is not JSON: a writer was stopped, or is at work */
};

int report_lines_open(struct report_lines *l, const char *path, struct plm_status *st);
void report_lines_close(struct report_lines *l);

/* The next row, an object that the caller releases; NULL at the end. Blank lines are passed over. PLM_EFORMAT with "FILE:LINE: ..." for anything else. */
int report_lines_next(struct report_lines *l, json_t **row, struct plm_status *st);

/* --- runs --- */

/* RUN/samples.jsonl: of up to 24 steps, spread evenly and with the last, up to 12 rows each, long texts cut. {"total": 0, "rows": []} when there is no such
 * file. A cut text ends where its "cut" says how many bytes are missing. */
int report_samples_read(const char *run_dir, json_t **samples, struct plm_status *st);

/* Everything of a run directory, under a name for the legends. */
int report_run_read(const char *run_dir, const char *name, json_t **run, struct plm_status *st);

/* --- the page --- */

/* One HTML file with everything in it: {"title", "runs": [...]} as data, style and script. `*bytes` receives its size. */
int report_page_write(const char *path, const char *title, json_t *runs, size_t *bytes, struct plm_status *st);

#endif
