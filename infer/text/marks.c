/* The tokens at the two ends of a text: what files declare about them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "infer/base/log.h"
#include "infer/base/mapped.h"
#include "infer/format/json.h"
#include "infer/text/tokenizer_internal.h"

#define CONFIG_LIMIT \
    ((size_t)16 << 20) /* bytes of a tokenizer_config.json: added tokens once more, and a chat template */

const struct tokenizer_marks *tokenizer_marks(const struct tokenizer *t)
{
    return &t->marks;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    static const char *const spellings[] = {
        "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<\uFF5Cend\u2581of\u2581sentence\uFF5C>"};
    int32_t id = t->marks.eos;
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings && id < 0; i++)
        id = tokenizer_special_id(t, spellings[i]);
    return id;
}

static int check_mark(const struct tokenizer *t, const char *name, int32_t id, bool add, const char *where,
                      struct plm_status *st)
{
    if (id < -1 || id >= t->n_vocab || (id >= 0 && !t->flags[id]))
        return status_set(st, PLM_EFORMAT,
                          "%s: the %s token has the id %d, which the vocabulary of %d tokens does not have", where,
                          name, (int)id, (int)t->n_vocab);
    if (add && id < 0)
        return status_set(st, PLM_EFORMAT,
                          "%s: every text is to get a %s token, but it is not said which: give its id, or set "
                          "add_%s_token to false",
                          where, name, name[0] == 'B' ? "bos" : "eos");
    return PLM_OK;
}

int tokenizer_set_marks(struct tokenizer *t, const struct tokenizer_marks *marks, const char *where,
                        struct plm_status *st)
{
    struct tokenizer_marks m = *marks;
    int code = check_mark(t, "BOS", m.bos, m.add_bos, where, st);
    if (!code && m.add_eos && m.eos < 0)
        m.eos = tokenizer_eos(t);
    if (!code)
        code = check_mark(t, "EOS", m.eos, m.add_eos, where, st);
    if (!code)
        t->marks = m;
    return code;
}

/* "bos_token": a text, or an object with its "content". */
static int read_token(const struct tokenizer *t, const struct json_value *root, const char *key, const char *where,
                      int32_t *id, struct plm_status *st)
{
    const struct json_value *v = json_get(root, key);
    size_t n;
    if (json_typeof(v) == JSON_OBJECT)
        v = json_get(v, "content");
    if (json_typeof(v) == JSON_NULL)
        return PLM_OK;
    const char *text = json_as_string(v, &n);
    if (!text)
        return status_set(st, PLM_EFORMAT, "%s: %s is neither a text nor an object with \"content\"", where, key);
    const int32_t found = tokenizer_find(t, text, n);
    if (found < 0)
        log_warn("%s: %s is '%.80s', which is no token of tokenizer.json; it is not used", where, key, text);
    else
        *id = found;
    return PLM_OK;
}

static int read_switch(const struct json_value *root, const char *key, const char *where, bool *out,
                       struct plm_status *st)
{
    const struct json_value *v = json_get(root, key);
    bool value;
    if (json_typeof(v) == JSON_NULL)
        return PLM_OK;
    if (!json_as_bool(v, &value))
        return status_set(st, PLM_EFORMAT, "%s: %s is neither true nor false", where, key);
    if (*out && !value)
        log_info("%s: %s is false, although tokenizer.json adds the token; it is not added", where, key);
    *out = value;
    return PLM_OK;
}

/* "plm_token_kinds": {"7": 6} and "plm_unused_tokens": {"9": "<unused>"}: what GGUF files say and tokenizer.json
 * cannot. */
static int read_kinds(struct tokenizer *t, const struct json_value *root, const char *where, struct plm_status *st)
{
    const struct json_value *kinds = json_get(root, "plm_token_kinds"), *unused = json_get(root, "plm_unused_tokens");
    int code = PLM_OK;
    for (const struct json_value *v = json_first(kinds); v; v = json_next(v)) {
        size_t n;
        int64_t kind = 0;
        const char *key = json_key(v, &n);
        if (!key || !json_as_integer(v, &kind) || (kind != TOKEN_UNKNOWN && kind != TOKEN_BYTE))
            return status_set(st, PLM_EFORMAT, "%s: plm_token_kinds is no object of ids with %d or %d", where,
                              TOKEN_UNKNOWN, TOKEN_BYTE);
        tokenizer_set_kind(t, (int32_t)strtol(key, NULL, 10), (enum tokenizer_kind)kind);
    }
    int32_t last = -1;
    for (const struct json_value *v = json_first(unused); v && !code; v = json_next(v)) {
        size_t n, length;
        const char *key = json_key(v, &n), *text = json_as_string(v, &length);
        const long id = key ? strtol(key, NULL, 10) : -1;
        if (!text || id <= last || id >= TOKENIZER_MAX_VOCAB || tokenizer_kind(t, (int32_t)id) != TOKEN_NONE)
            return status_set(st, PLM_EFORMAT,
                              "%s: plm_unused_tokens is no object of ascending ids without a token, each with a text",
                              where);
        last = (int32_t)id;
        code = tokenizer_set_unused(t, last, text, length, st);
    }
    return code;
}

static int read_config(struct tokenizer *t, const struct json_value *root, const char *where, struct plm_status *st)
{
    struct tokenizer_marks m = t->marks;
    if (json_typeof(root) != JSON_OBJECT)
        return status_set(st, PLM_EFORMAT, "%s: expected an object", where);
    int code = read_token(t, root, "bos_token", where, &m.bos, st);
    if (!code)
        code = read_token(t, root, "eos_token", where, &m.eos, st);
    if (!code)
        code = read_switch(root, "add_bos_token", where, &m.add_bos, st);
    if (!code)
        code = read_switch(root, "add_eos_token", where, &m.add_eos, st);
    if (!code)
        code = tokenizer_set_marks(t, &m, where, st);
    return code ? code : read_kinds(t, root, where, st);
}

static int read_config_file(struct tokenizer *t, const char *path, struct plm_status *st)
{
    struct stat info;
    struct mapped_file file;
    struct json_doc *doc = NULL;
    if (stat(path, &info) != 0 && errno == ENOENT)
        return PLM_OK;
    int code = mapped_open(&file, path, st);
    if (code)
        return code;
    if (file.size > CONFIG_LIMIT)
        code =
            status_set(st, PLM_ELIMIT, "'%s' has %zu bytes, at most %zu are expected", path, file.size, CONFIG_LIMIT);
    if (!code)
        code = json_parse(&doc, (const char *)file.data, file.size, path, st);
    mapped_close(&file);
    if (code)
        return code;
    code = read_config(t, json_root(doc), path, st);
    json_free(doc);
    return code;
}

int tokenizer_read_config(struct tokenizer *t, const char *path, struct plm_status *st)
{
    const char *slash = strrchr(path, '/');
    char *config;
    if (asprintf(&config, "%.*stokenizer_config.json", slash ? (int)(slash - path) + 1 : 0, path) < 0)
        return status_no_memory(st, strlen(path) + 32, "a path");
    const int code = read_config_file(t, config, st);
    free(config);
    return code;
}
