#include "tools/open_model.h"

#include <stdio.h>
#include <sys/stat.h>

#include "train/checkpoint.h"

/* A directory without config.json can only be a run. */
static int resolve(const char *model, char path[PATH_MAX], struct plm_status *st)
{
    struct stat info;
    snprintf(path, PATH_MAX, "%s/config.json", model);
    const bool is_run = stat(model, &info) == 0 && S_ISDIR(info.st_mode) && stat(path, &info) != 0;
    if (!is_run) {
        if (snprintf(path, PATH_MAX, "%s", model) >= PATH_MAX)
            return status_set(st, PLM_EINVAL, "path too long: '%s'", model);
        return PLM_OK;
    }
    int code = checkpoint_latest(model, path, st);
    if (!code && !*path)
        code = status_set(st, PLM_EINVAL, "'%s' holds neither a model (config.json) nor a complete checkpoint (step-*)", model);
    return code;
}

int open_model(struct plm_model **out, const char *model, char path[PATH_MAX], struct plm_status *st)
{
    char resolved[PATH_MAX];
    *out = NULL;
    int code = resolve(model, path ? path : resolved, st);
    return code ? code : plm_model_open(out, path ? path : resolved, st);
}
