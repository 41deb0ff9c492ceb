#include "infer/model/templates.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TEMPLATE_LIMIT ((size_t)1 << 20)

static int read_file(char **out, const char *dir, const char *name, struct plm_status *st)
{
    char path[4096];
    struct stat info;
    size_t length;
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return status_set(st, PLM_EINVAL, "path too long: '%s/%s'", dir, name);
    if (stat(path, &info) != 0 && errno == ENOENT)
        return PLM_OK;
    return file_read_text(out, &length, path, TEMPLATE_LIMIT, st);
}

static int read_key(char **out, const struct gguf *g, const char *key, struct plm_status *st)
{
    const char *text;
    size_t length;
    if (!gguf_has(g, key))
        return PLM_OK;
    int code = gguf_get_string(g, key, &text, &length, st);
    if (!code && length > TEMPLATE_LIMIT)
        return status_set(st, PLM_EFORMAT, "%s has %zu bytes; at most %zu are a template", key, length, TEMPLATE_LIMIT);
    if (!code && !(*out = strndup(text, length)))
        code = status_no_memory(st, length, "a template");
    return code;
}

int model_read_templates(struct plm_model *m, const char *path, struct plm_status *st)
{
    int code = m->gguf ? read_key(&m->chat_template, m->gguf, CHAT_TEMPLATE_KEY, st) : read_file(&m->chat_template, path, CHAT_TEMPLATE_FILE, st);
    if (!code)
        code = m->gguf ? read_key(&m->refine_template, m->gguf, REFINE_TEMPLATE_KEY, st) : read_file(&m->refine_template, path, REFINE_TEMPLATE_FILE, st);
    return code;
}

int model_chat_template(struct chat_template **out, const struct plm_model *m, const char *asked, struct plm_status *st)
{
    return asked || !m->chat_template ? chat_template_open(out, asked, st)
                                      : chat_template_from_json(out, m->chat_template, strlen(m->chat_template), "the model's chat template", st);
}

int model_refine_template(struct refine_template **out, const struct plm_model *m, const char *asked, struct plm_status *st)
{
    return asked || !m->refine_template ? refine_template_open(out, asked, st)
                                        : refine_template_from_text(out, m->refine_template, strlen(m->refine_template), "the model's refinement template", st);
}
