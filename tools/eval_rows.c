#include "tools/eval_rows.h"

int eval_row_string(const json_t *row, const char *const *names, const char **text, size_t *length, struct plm_status *st)
{
    for (const char *const *name = names; *name; name++) {
        const json_t *v = json_object_get(row, *name);
        if (!v)
            continue;
        if (!json_is_string(v))
            return status_set(st, PLM_EFORMAT, "\"%s\" is not a string", *name);
        *text = json_string_value(v);
        *length = json_string_length(v);
        return PLM_OK;
    }
    return status_set(st, PLM_EFORMAT, "the field \"%s\" is missing", names[0]);
}
