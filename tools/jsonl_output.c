#include "tools/jsonl_output.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "infer/base/output.h"

static int failed(const struct jsonl_output *o, struct plm_status *st)
{
    return status_set(st, PLM_EIO, "cannot write '%s': %s", o->path, strerror(errno));
}

int jsonl_output_open(struct jsonl_output *o, const char *path, struct plm_status *st)
{
    struct stat there;
    o->file = NULL;
    o->path = path;
    if (snprintf(o->temporary, sizeof o->temporary, "%s.tmp", path) >= (int)sizeof o->temporary)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", path);
    if (stat(path, &there) == 0 && !S_ISREG(there.st_mode))
        return status_set(st, PLM_EINVAL, "'%s' is there and not a regular file; give a new file's name", path);
    return output_create_stream(&o->file, o->temporary, st);
}

int jsonl_output_add(struct jsonl_output *o, json_t *row, struct plm_status *st)
{
    if (!row)
        return status_set(st, PLM_ENOMEM, "out of memory for a row of '%s'", o->path);
    const bool written = !json_dumpf(row, o->file, JSON_COMPACT) && fputc('\n', o->file) != EOF;
    const int code = written ? PLM_OK : failed(o, st);
    json_decref(row);
    return code;
}

int jsonl_output_close(struct jsonl_output *o, int code, struct plm_status *st)
{
    if (!o->file)
        return code;
    if (((ferror(o->file) | fclose(o->file)) || (!code && rename(o->temporary, o->path))) && !code)
        code = failed(o, st);
    if (code)
        remove(o->temporary);
    return code;
}
