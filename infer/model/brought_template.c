#include "infer/model/brought_template.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "infer/format/json.h"
#include "infer/model/model.h"

#define CONFIG_LIMIT ((size_t)16 << 20) /* a tokenizer_config.json has the added tokens once more */
#define TEMPLATE_LIMIT ((size_t)1 << 20)

static const char several[] = "has several chat templates, and none of them is called \"default\"";

static int format(char **out, struct plm_status *st, const char *fmt, ...) PLM_PRINTF(3, 4);
static int format(char **out, struct plm_status *st, const char *fmt, ...)
{
    char text[4200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    free(*out);
    *out = strdup(text);
    return *out ? PLM_OK : status_no_memory(st, sizeof text, "the name of a template");
}

/* A template of nothing but white space is none. */
static int take(struct brought_template *b, const char *text, size_t bytes, const char *where, const char *variant,
                struct plm_status *st)
{
    if (strspn(text, " \t\r\n") == bytes)
        return PLM_OK;
    int code = format(&b->where, st, "%s%s%s", where, *variant ? ", template " : "", variant);
    if (!code && bytes > TEMPLATE_LIMIT)
        return format(&b->problem, st, "%s has %zu bytes; at most %zu are a template", b->where, bytes, TEMPLATE_LIMIT);
    if (!code && !(b->text = malloc(bytes + 1)))
        return status_no_memory(st, bytes + 1, "a chat template");
    if (!code) {
        memcpy(b->text, text, bytes);
        b->text[bytes] = 0;
        b->bytes = bytes;
    }
    return code;
}

/* [{"name": "default", "template": "..."}, ...] */
static int take_variant(struct brought_template *b, const struct json_value *list, const char *where,
                        struct plm_status *st)
{
    const struct json_value *best = NULL;
    size_t n = 0, used = 0;
    bool found = false;
    char names[200] = "";
    for (const struct json_value *v = json_first(list); v && !found; v = json_next(v), n++) {
        const char *name = json_as_string(json_get(v, "name"), &(size_t){0});
        if (!name || !json_as_string(json_get(v, "template"), &(size_t){0}))
            return format(&b->problem, st, "%s: an element of chat_template is not {\"name\": ..., \"template\": ...}",
                          where);
        found = !strcmp(name, "default");
        if (used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", n ? ", " : "", name);
        best = v;
    }
    if (!best)
        return PLM_OK;
    if (n > 1 && !found)
        return format(&b->problem, st, "%s %s: %s", where, several, names);
    size_t bytes;
    const char *text = json_as_string(json_get(best, "template"), &bytes);
    return take(b, text, bytes, where, json_as_string(json_get(best, "name"), &(size_t){0}), st);
}

static int take_json(struct brought_template *b, const char *text, size_t bytes, const char *where,
                     struct plm_status *st)
{
    struct json_doc *doc;
    int code = json_parse(&doc, text, bytes, where, st);
    if (code)
        return code;
    const struct json_value *v = json_get(json_root(doc), "chat_template");
    size_t length;
    const char *string = json_as_string(v, &length);
    if (string)
        code = take(b, string, length, where, "", st);
    else if (json_typeof(v) == JSON_ARRAY)
        code = take_variant(b, v, where, st);
    else if (json_typeof(v) != JSON_NULL)
        code = format(&b->problem, st, "%s: chat_template is neither a text nor a list of them", where);
    json_free(doc);
    return code;
}

static int read_directory(struct brought_template *b, const char *dir, struct plm_status *st)
{
    static const char *const files[] = {"chat_template.jinja", "tokenizer_config.json", "chat_template.json"};
    int code = PLM_OK;
    for (int i = 0; i < 3 && !code && !b->text && !b->problem; i++) {
        char path[4096], *text = NULL;
        struct stat info;
        size_t bytes = 0;
        if (snprintf(path, sizeof path, "%s/%s", dir, files[i]) >= (int)sizeof path)
            return status_set(st, PLM_EINVAL, "path too long: '%s/%s'", dir, files[i]);
        if (stat(path, &info) != 0 && errno == ENOENT)
            continue;
        code = file_read_text(&text, &bytes, path, CONFIG_LIMIT, st);
        if (!code)
            code = i ? take_json(b, text, bytes, path, st) : take(b, text, bytes, path, "", st);
        free(text);
    }
    return code;
}

static int take_key(struct brought_template *b, const struct gguf *g, const char *key, struct plm_status *st)
{
    const char *text;
    size_t bytes;
    int code = gguf_get_string(g, key, &text, &bytes, st);
    char *copy = code ? NULL : strndup(text, bytes);
    if (!code)
        code = copy ? take(b, copy, strlen(copy), key, "", st) : status_no_memory(st, bytes, "a chat template");
    free(copy);
    return code;
}

static int read_gguf(struct brought_template *b, const struct gguf *g, struct plm_status *st)
{
    static const char key[] = "tokenizer.chat_template", names[] = "tokenizer.chat_templates";
    uint64_t n = 0;
    if (gguf_has(g, key))
        return take_key(b, g, key, st);
    int code = gguf_has(g, names) ? gguf_get_array(g, names, GGUF_STRING, &n, st) : PLM_OK;
    if (code || n == 0)
        return code;
    uint64_t chosen = n > 1 ? n : 0;
    char path[160];
    const char *name;
    size_t bytes;
    for (uint64_t i = 0; i < n && chosen == n; i++) {
        gguf_array_string(g, names, i, &name, &bytes);
        chosen = bytes == 7 && !memcmp(name, "default", 7) ? i : n;
    }
    if (chosen == n)
        return format(&b->problem, st, "%s %s", names, several);
    gguf_array_string(g, names, chosen, &name, &bytes);
    snprintf(path, sizeof path, "%s.%.*s", key, (int)(bytes < 100 ? bytes : 100), name);
    return gguf_has(g, path) ? take_key(b, g, path, st) : PLM_OK;
}

int brought_template_read(struct brought_template *b, const char *dir, const struct gguf *g, struct plm_status *st)
{
    *b = (struct brought_template){0};
    return g ? read_gguf(b, g, st) : read_directory(b, dir, st);
}

void brought_template_free(struct brought_template *b)
{
    free(b->text);
    free(b->where);
    free(b->problem);
    *b = (struct brought_template){0};
}
