#include "infer/model/templates.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "infer/base/log.h"

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
    return code ? code : brought_template_read(&m->brought, path, m->gguf, st);
}

bool model_has_chat_template(const struct plm_model *m)
{
    return m->chat_template || m->brought.text || m->brought.problem;
}

void model_chat_template_note(const struct plm_model *m)
{
    if (m->chat_template)
        return;
    if (m->brought.text)
        log_info("the model is spoken to in the chat template that it brought (%s), not in plm's ChatML", m->brought.where);
    else
        log_info("the model came without a chat template: ChatML is used; --template FILE gives another");
}

/* Say what is wrong with a template that was brought, show its beginning, and say what to do. */
static int refuse(const struct brought_template *b, const char *problem, enum plm_code code, struct plm_status *st)
{
    char begin[100] = "";
    size_t n = 0;
    for (; b->text && n < sizeof begin - 1 && b->text[n]; n++)
        begin[n] = (unsigned char)b->text[n] < ' ' ? ' ' : b->text[n];
    while (n > 0 && n == sizeof begin - 1 && (begin[n - 1] & 0x80))
        n--; /* not half a character */
    return status_set(st, code, "the chat template that the model brought cannot be used: %.500s%s%.*s%s; give another one in its place, Jinja or JSON: --template "
                      "FILE, or \"template\" in the configuration of a training job", problem, n ? "; it begins \"" : "", (int)n, begin, n ? "...\"" : "");
}

static int open_brought(struct chat_template **out, const struct brought_template *b, const struct tokenizer *tokenizer, struct plm_status *st)
{
    struct plm_status inner = {0};
    *out = NULL;
    if (b->problem)
        return refuse(b, b->problem, PLM_EUNSUPPORTED, st);
    int code = chat_template_from_jinja(out, b->text, b->bytes, tokenizer, b->where, &inner);
    return code ? refuse(b, inner.message, (enum plm_code)code, st) : PLM_OK;
}

static int open_own(struct chat_template **out, const char *own, const struct brought_template *b, const struct tokenizer *tokenizer, struct plm_status *st)
{
    if (own)
        return chat_template_from_json(out, own, strlen(own), "the model's chat template", st);
    return b->text || b->problem ? open_brought(out, b, tokenizer, st) : chat_template_open(out, NULL, NULL, st);
}

int model_chat_template(struct chat_template **out, const struct plm_model *m, const char *asked, struct plm_status *st)
{
    return asked ? chat_template_open(out, asked, m->tokenizer, st) : open_own(out, m->chat_template, &m->brought, m->tokenizer, st);
}

int directory_chat_template(struct chat_template **out, const char *dir, const struct tokenizer *tokenizer, struct plm_status *st)
{
    struct brought_template b = {0};
    char *own = NULL;
    *out = NULL;
    int code = read_file(&own, dir, CHAT_TEMPLATE_FILE, st);
    if (!code && !own)
        code = brought_template_read(&b, dir, NULL, st);
    if (!code)
        code = open_own(out, own, &b, tokenizer, st);
    free(own);
    brought_template_free(&b);
    return code;
}

int model_refine_template(struct refine_template **out, const struct plm_model *m, const char *asked, struct plm_status *st)
{
    return asked || !m->refine_template ? refine_template_open(out, asked, st)
                                        : refine_template_from_text(out, m->refine_template, strlen(m->refine_template), "the model's refinement template", st);
}
