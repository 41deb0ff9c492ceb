#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/conversation.h"

/* A place for one more row. */
static int reserve(struct row_set *set, struct plm_status *st)
{
    if (set->n < set->capacity)
        return PLM_OK;
    const int64_t capacity = 2 * set->capacity + 256;
    struct row *grown = realloc(set->rows, (size_t)capacity * sizeof *grown);
    if (!grown)
        return status_no_memory(st, (size_t)capacity * sizeof *grown, "rows");
    set->rows = grown;
    set->capacity = capacity;
    return PLM_OK;
}

/* Read what is in a row, or say where it is. */
static int add_row(struct row_set *set, const json_t *object, const char *path, int64_t line, const struct row_options *o, struct plm_status *st)
{
    int code = reserve(set, st);
    if (code)
        return code;
    code = row_read(&set->rows[set->n], object, o, st);
    if (code == PLM_EFORMAT)
        status_prefix(st, "%s:%lld", path, (long long)line);
    if (!code)
        set->rows[set->n++].line = line;
    return code;
}

int row_set_read(struct row_set *set, const char *path, const struct row_options *o, bool skip_bad, struct plm_status *st)
{
    struct plm_status own = {0};
    struct json_rows *rows;
    json_t *object = NULL;
    int64_t line = 0;
    const int64_t before = set->n, bad_before = set->bad;
    st = st ? st : &own;
    int code = json_rows_open(&rows, path, st);
    if (code)
        return code;
    do {
        code = json_rows_next(rows, &object, &line, st);
        if (!code && object)
            code = add_row(set, object, path, line, o, st);
        if (code == PLM_EFORMAT && line > 0 && skip_bad) {
            if (set->bad++ == 0)
                snprintf(set->first_bad, sizeof set->first_bad, "%s", st->message);
            code = PLM_OK;
            continue;
        }
        if (!code && !object)
            break;
    } while (!code);
    json_rows_close(rows);
    if (!code && set->n == before && set->bad > bad_before)
        code = status_set(st, PLM_EFORMAT, "all %lld rows of '%s' are malformed, the first: %s", (long long)(set->bad - bad_before), path, set->first_bad);
    else if (!code && set->n == before)
        code = status_set(st, PLM_EFORMAT, "'%s' has no rows", path);
    return code;
}

void row_set_free(struct row_set *set)
{
    for (int64_t i = 0; i < set->n; i++)
        row_free(&set->rows[i]);
    free(set->rows);
    *set = (struct row_set){0};
}
