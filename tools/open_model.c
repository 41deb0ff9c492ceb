#include "tools/open_model.h"

#include "train/checkpoint.h"

int open_model(struct plm_model **out, const char *model, char path[PATH_MAX], struct plm_status *st)
{
    char resolved[PATH_MAX];
    *out = NULL;
    int code = checkpoint_resolve(model, path ? path : resolved, st);
    return code ? code : plm_model_open(out, path ? path : resolved, st);
}
