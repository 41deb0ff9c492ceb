#include "tools/result.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"

enum { CELL = 512 };

int result_failed(struct plm_status *st)
{
    return status_set(st, PLM_ENOMEM, "out of memory for the result, or a file name that is not UTF-8, which JSON cannot hold");
}

json_t *result_text(const char *text, size_t n)
{
    char *clean = malloc(3 * n + 1);
    int64_t replaced;
    json_t *v = clean ? json_stringn(clean, utf8_repair(text ? text : "", n, clean, &replaced)) : NULL;
    free(clean);
    return v;
}

void wilson_interval(int64_t k, int64_t n, double *low, double *high)
{
    const double z = 1.959963984540054, p = (double)k / (double)n, zz = z * z / (double)n;
    const double centre = (p + zz / 2) / (1 + zz), half = z / (1 + zz) * sqrt(p * (1 - p) / (double)n + zz / (4 * (double)n));
    *low = fmax(0, centre - half);
    *high = fmin(1, centre + half);
}

int result_add_accuracy(json_t *row, int64_t k, int64_t n, struct plm_status *st)
{
    double low = 0, high = 0;
    if (n)
        wilson_interval(k, n, &low, &high);
    json_t *interval = n ? json_pack("[f, f]", low, high) : json_null();
    if (json_object_set_new(row, "correct", json_integer(k)) ||
        json_object_set_new(row, "accuracy", n ? json_real((double)k / (double)n) : json_null()) ||
        json_object_set_new(row, "interval_95", interval))
        return result_failed(st);
    return PLM_OK;
}

/* A scalar, or an array of scalars: two are an interval. */
static void format_value(const json_t *v, char cell[CELL])
{
    size_t n = 0;
    if (json_is_string(v)) {
        const char *text = json_string_value(v);
        const size_t most = CELL - sizeof "...", whole = strlen(text);
        const size_t shown = whole <= most ? whole : utf8_valid_prefix(text, most); /* characters are not cut */
        snprintf(cell, CELL, "%.*s%s", (int)shown, text, shown < whole ? "..." : "");
    } else if (json_is_integer(v)) {
        snprintf(cell, CELL, "%lld", (long long)json_integer_value(v));
    } else if (json_is_real(v)) {
        snprintf(cell, CELL, "%.*f", fabs(json_real_value(v)) < 1000 ? 4 : 1, json_real_value(v));
    } else if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v) && n < CELL - 32; i++) {
            char item[CELL];
            format_value(json_array_get(v, i), item);
            n += (size_t)snprintf(cell + n, CELL - n, "%s%s", !i ? "" : json_array_size(v) == 2 ? " to " : ", ", item);
        }
    } else {
        snprintf(cell, CELL, "%s", json_is_boolean(v) ? (json_is_true(v) ? "yes" : "no") : "-");
    }
}

static void print_name(FILE *out, const char *name, int width)
{
    char spaced[CELL];
    snprintf(spaced, sizeof spaced, "%s", name);
    for (char *p = spaced; (p = strchr(p, '_'));)
        *p = ' ';
    fprintf(out, "%*s", width, spaced);
}

/* Text columns are aligned to the left, the rest to the right. */
static void print_table(FILE *out, const json_t *rows)
{
    const char *key;
    json_t *value, *row, *first = json_array_get(rows, 0);
    size_t i;
    char cell[CELL];
    for (long line = -1; line < (long)json_array_size(rows); line++) {
        json_object_foreach(first, key, value) {
            int width = (int)strlen(key);
            json_array_foreach(rows, i, row) {
                format_value(json_object_get(row, key), cell);
                width = (int)strlen(cell) > width ? (int)strlen(cell) : width;
            }
            const int aligned = json_is_string(value) ? -width : width;
            fputs("  ", out);
            if (line < 0) {
                print_name(out, key, aligned);
            } else {
                format_value(json_object_get(json_array_get(rows, (size_t)line), key), cell);
                fprintf(out, "%*s", aligned, cell);
            }
        }
        fputc('\n', out);
    }
}

static bool is_table(const json_t *v)
{
    return json_is_array(v) && json_is_object(json_array_get(v, 0));
}

int result_print(FILE *out, const json_t *result, bool as_json, struct plm_status *st)
{
    if (as_json) {
        if (json_dumpf(result, out, JSON_INDENT(2) | JSON_REAL_PRECISION(12)))
            return status_set(st, PLM_EIO, "cannot write the result");
        fputc('\n', out);
    } else {
        const char *key;
        json_t *value;
        char cell[CELL];
        int width = 0;
        json_object_foreach((json_t *)result, key, value)
            if (!is_table(value) && (int)strlen(key) > width)
                width = (int)strlen(key);
        json_object_foreach((json_t *)result, key, value) {
            if (is_table(value)) {
                print_table(out, value);
            } else {
                print_name(out, key, -width);
                format_value(value, cell);
                fprintf(out, "  %s\n", cell);
            }
        }
    }
    if (fflush(out) || ferror(out))
        return status_set(st, PLM_EIO, "cannot write the result: %s", strerror(errno));
    return PLM_OK;
}
