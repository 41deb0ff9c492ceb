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

/* Of a directory, or of an open GGUF file (path is not used then). */
static int read_all(char **chat, char **refine, struct brought_template *brought, const char *path, const struct gguf *g,
                    struct plm_status *st)
{
    int code = g ? read_key(chat, g, CHAT_TEMPLATE_KEY, st) : read_file(chat, path, CHAT_TEMPLATE_FILE, st);
    if (!code)
        code = g ? read_key(refine, g, REFINE_TEMPLATE_KEY, st) : read_file(refine, path, REFINE_TEMPLATE_FILE, st);
    return code ? code : brought_template_read(brought, path, g, st);
}

int model_read_templates(struct plm_model *m, const char *path, struct plm_status *st)
{
    return read_all(&m->chat_template, &m->refine_template, &m->brought, path, m->gguf, st);
}

int model_templates_read(struct model_templates *t, const char *dir, struct plm_status *st)
{
    *t = (struct model_templates){0};
    return read_all(&t->chat, &t->refine, &t->brought, dir, NULL, st);
}

void model_templates_free(struct model_templates *t)
{
    free(t->chat);
    free(t->refine);
    brought_template_free(&t->brought);
    *t = (struct model_templates){0};
}

bool model_has_chat_template(const struct plm_model *m)
{
    return m->chat_template || m->brought.text || m->brought.problem;
}

/* Whether two templates make the same of a conversation. */
static bool render_alike(const struct chat_template *a, const struct chat_template *b,
                         const struct tokenizer *tokenizer)
{
    const struct chat_message m[] = {{"user", "x", 1, false}, {"assistant", "y", 1, false}, {"user", "z", 1, false}};
    struct token_list x = {0}, y = {0};
    struct encoder *e = NULL;
    const bool same = encoder_create(&e, tokenizer, NULL) == PLM_OK &&
                      chat_template_render(a, e, m, 3, CHAT_BEGINS, true, &x, NULL, NULL) == PLM_OK &&
                      chat_template_render(b, e, m, 3, CHAT_BEGINS, true, &y, NULL, NULL) == PLM_OK &&
                      x.length == y.length && !memcmp(x.data, y.data, x.length * sizeof *x.data);
    encoder_free(e);
    free(x.data);
    free(y.data);
    return same;
}

static void log_missing(void *ctx, const char *text, size_t bytes)
{
    (void)ctx;
    log_info("the chat template writes %.*s, which the tokenizer does not have as a token: it is written as plain text",
             (int)bytes, text);
}

void model_chat_template_note(const struct plm_model *m, const struct chat_template *t)
{
    struct chat_template *other = NULL;
    if (!m->chat_template && !m->brought.text)
        log_info("the model came without a chat template: ChatML is used; --template FILE gives another");
    else if (!m->chat_template)
        log_info("chat template: the model's own, of %s, in place of plm's ChatML", m->brought.where);
    else if (m->brought.text && (chat_template_from_jinja(&other, m->brought.text, m->brought.bytes, m->tokenizer,
                                                          m->brought.where, NULL) ||
                                 !render_alike(t, other, m->tokenizer)))
        log_warn("chat template: the one the model was trained with (plm_chat_template.json, plm.chat_template); %s "
                 "has another one, which is not used",
                 m->brought.where);
    chat_template_free(other);
    if (m->tokenizer)
        chat_template_missing(t, m->tokenizer, log_missing, NULL);
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
    return status_set(st, code,
                      "the chat template that the model brought cannot be used: %.500s%s%.*s%s; give another one in "
                      "its place, Jinja or JSON: --template "
                      "FILE, or \"template\" in the configuration of a training job",
                      problem, n ? "; it begins \"" : "", (int)n, begin, n ? "...\"" : "");
}

static int open_brought(struct chat_template **out, const struct brought_template *b, const struct tokenizer *tokenizer,
                        struct plm_status *st)
{
    struct plm_status inner = {0};
    *out = NULL;
    if (b->problem)
        return refuse(b, b->problem, PLM_EUNSUPPORTED, st);
    int code = chat_template_from_jinja(out, b->text, b->bytes, tokenizer, b->where, &inner);
    return code ? refuse(b, inner.message, (enum plm_code)code, st) : PLM_OK;
}

static int open_own(struct chat_template **out, const char *own, const struct brought_template *b,
                    const struct tokenizer *tokenizer, struct plm_status *st)
{
    if (own)
        return chat_template_from_json(out, own, strlen(own), "the model's chat template", st);
    return b->text || b->problem ? open_brought(out, b, tokenizer, st) : chat_template_open(out, NULL, NULL, st);
}

int model_chat_template(struct chat_template **out, const struct plm_model *m, const char *asked, struct plm_status *st)
{
    return asked ? chat_template_open(out, asked, m->tokenizer, st)
                 : open_own(out, m->chat_template, &m->brought, m->tokenizer, st);
}

int directory_chat_template(struct chat_template **out, const char *dir, const struct tokenizer *tokenizer,
                            struct plm_status *st)
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
