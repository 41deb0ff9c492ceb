#include "infer/model/end_tokens.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "infer/format/json.h"
#include "infer/model/model.h"

#define CONFIG_LIMIT ((size_t)1 << 20)

bool end_tokens_has(const struct end_tokens *e, int32_t id)
{
    for (int i = 0; i < e->n; i++)
        if (e->ids[i] == id)
            return true;
    return false;
}

int end_tokens_add(struct end_tokens *e, int32_t id, struct plm_status *st)
{
    if (id < 0 || end_tokens_has(e, id))
        return PLM_OK;
    int32_t *ids = realloc(e->ids, ((size_t)e->n + 1) * sizeof *ids);
    if (!ids)
        return status_no_memory(st, ((size_t)e->n + 1) * sizeof *ids, "end tokens");
    e->ids = ids;
    ids[e->n++] = id;
    return PLM_OK;
}

int end_tokens_with(struct end_tokens *out, const struct end_tokens *e, int32_t turn_end, struct plm_status *st)
{
    *out = (struct end_tokens){0};
    int code = end_tokens_add(out, turn_end, st);
    for (int i = 0; i < e->n && !code; i++)
        code = end_tokens_add(out, e->ids[i], st);
    return code;
}

/* Special tokens that llama.cpp ends a text with when a file has them. */
static int add_by_spelling(struct end_tokens *e, const struct tokenizer *t, struct plm_status *st)
{
    static const char *const spellings[] = {"<|endoftext|>",
                                            "<|im_end|>",
                                            "<|eot_id|>",
                                            "<|eom_id|>",
                                            "<|end_of_text|>",
                                            "<end_of_turn>",
                                            "<|end|>",
                                            "<|return|>",
                                            "<|call|>",
                                            "<EOT>",
                                            "_<EOT>",
                                            "</s>",
                                            "<eos>",
                                            "<\uFF5Cend\u2581of\u2581sentence\uFF5C>",
                                            "<end_of_utterance>"};
    int code = PLM_OK;
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings && t && !code; i++)
        code = end_tokens_add(e, tokenizer_special_id(t, spellings[i]), st);
    return code;
}

/* Tell the tokenizer which of the declared tokens ends a document: the usual spelling if it is among them, else the
 * first. */
static int mark_eos(struct tokenizer *t, const struct end_tokens *e, const char *where, struct plm_status *st)
{
    size_t length;
    if (!t || e->n == 0 || tokenizer_marks(t)->eos >= 0)
        return PLM_OK;
    struct tokenizer_marks m = *tokenizer_marks(t);
    m.eos = end_tokens_has(e, tokenizer_eos(t)) ? tokenizer_eos(t) : e->ids[0];
    if (!tokenizer_token(t, m.eos, &length, NULL))
        return PLM_OK; /* a row of the embedding without a token */
    return tokenizer_set_marks(t, &m, where, st);
}

/* --- directories --- */

static int check_id(int64_t id, int vocab_size, const char *where, const char *key, struct plm_status *st)
{
    if (id >= 0 && id < vocab_size)
        return PLM_OK;
    return status_set(st, PLM_EFORMAT, "%s: %s is %lld, expected an id from 0 to %d (vocab_size is %d)", where, key,
                      (long long)id, vocab_size - 1, vocab_size);
}

static int add_json_id(struct end_tokens *e, const struct json_value *v, int vocab_size, const char *where,
                       struct plm_status *st)
{
    int64_t id;
    if (!json_as_integer(v, &id))
        return status_set(st, PLM_EFORMAT, "%s: eos_token_id is neither an integer nor a list of integers", where);
    int code = check_id(id, vocab_size, where, "eos_token_id", st);
    return code ? code : end_tokens_add(e, (int32_t)id, st);
}

static int read_ids(struct end_tokens *e, struct tokenizer *t, const struct json_value *root, int vocab_size,
                    const char *where, struct plm_status *st)
{
    const struct json_value *eos = json_get(root, "eos_token_id"), *bos = json_get(root, "bos_token_id");
    int code = PLM_OK;
    if (json_typeof(eos) == JSON_ARRAY)
        for (const struct json_value *v = json_first(eos); v && !code; v = json_next(v))
            code = add_json_id(e, v, vocab_size, where, st);
    else if (json_typeof(eos) != JSON_NULL)
        code = add_json_id(e, eos, vocab_size, where, st);
    if (code || json_typeof(bos) == JSON_NULL)
        return code;
    int64_t id;
    size_t length;
    if (!json_as_integer(bos, &id))
        return status_set(st, PLM_EFORMAT, "%s: bos_token_id is not an integer", where);
    code = check_id(id, vocab_size, where, "bos_token_id", st);
    if (code || !t || tokenizer_marks(t)->bos >= 0 || !tokenizer_token(t, (int32_t)id, &length, NULL))
        return code;
    struct tokenizer_marks m = *tokenizer_marks(t);
    m.bos = (int32_t)id;
    return tokenizer_set_marks(t, &m, where, st);
}

static int read_file(struct end_tokens *e, struct tokenizer *t, int vocab_size, const char *dir, const char *name,
                     struct plm_status *st)
{
    char path[4096], *text;
    struct stat info;
    struct json_doc *doc;
    size_t length;
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return status_set(st, PLM_EINVAL, "path too long: '%s/%s'", dir, name);
    if (stat(path, &info) != 0 && errno == ENOENT)
        return PLM_OK;
    int code = file_read_text(&text, &length, path, CONFIG_LIMIT, st);
    if (!code)
        code = json_parse(&doc, text, length, path, st);
    free(text);
    if (code)
        return code;
    code = json_typeof(json_root(doc)) == JSON_OBJECT ? read_ids(e, t, json_root(doc), vocab_size, path, st)
                                                      : status_set(st, PLM_EFORMAT, "%s: expected an object", path);
    json_free(doc);
    return code;
}

int end_tokens_read_directory(struct end_tokens *e, struct tokenizer *t, int vocab_size, const char *dir,
                              struct plm_status *st)
{
    *e = (struct end_tokens){0};
    int code = dir ? read_file(e, t, vocab_size, dir, "generation_config.json", st) : PLM_OK;
    if (dir && !code)
        code = read_file(e, t, vocab_size, dir, "config.json", st);
    if (!code)
        code = mark_eos(t, e, dir ? dir : "the tokenizer", st);
    if (!code && e->n == 0 && t && tokenizer_marks(t)->eos >= 0)
        code = end_tokens_add(e, tokenizer_marks(t)->eos, st);
    if (!code && e->n == 0)
        code = add_by_spelling(e, t, st);
    return code;
}

/* --- GGUF --- */

static int get_id(const struct gguf *g, const char *key, int vocab_size, int32_t *id, struct plm_status *st)
{
    uint64_t v;
    *id = -1;
    if (!gguf_has(g, key))
        return PLM_OK;
    int code = gguf_get_u64(g, key, &v, st);
    if (!code && v >= (uint64_t)vocab_size)
        code = status_set(st, PLM_EFORMAT, "%s is %llu, expected an id from 0 to %d (the vocabulary has %d)", key,
                          (unsigned long long)v, vocab_size - 1, vocab_size);
    if (!code)
        *id = (int32_t)v;
    return code;
}

static int get_switch(const struct gguf *g, const char *key, bool *out, struct plm_status *st)
{
    uint64_t v = 0;
    int code = gguf_has(g, key) ? gguf_get_u64(g, key, &v, st) : PLM_OK;
    if (!code && v > 1)
        code = status_set(st, PLM_EFORMAT, "%s is %llu, expected true or false", key, (unsigned long long)v);
    *out = v == 1;
    return code;
}

static int read_marks(struct tokenizer *t, int vocab_size, const struct gguf *g, struct plm_status *st)
{
    struct tokenizer_marks m = {-1, -1, false, false};
    int code = get_id(g, "tokenizer.ggml.bos_token_id", vocab_size, &m.bos, st);
    if (!code)
        code = get_id(g, "tokenizer.ggml.eos_token_id", vocab_size, &m.eos, st);
    if (!code)
        code = get_switch(g, "tokenizer.ggml.add_bos_token", &m.add_bos, st);
    if (!code)
        code = get_switch(g, "tokenizer.ggml.add_eos_token", &m.add_eos, st);
    if (code || !t)
        return code;
    size_t length;
    if (!tokenizer_token(t, m.eos, &length, NULL))
        m.eos = -1; /* a row of the embedding without a token: it ends a text, but nobody can write it */
    return tokenizer_set_marks(t, &m, "tokenizer.ggml", st);
}

static int read_exact(struct end_tokens *e, int vocab_size, const struct gguf *g, struct plm_status *st)
{
    uint64_t n = 0;
    int code = gguf_get_array(g, END_TOKENS_KEY, GGUF_I32, &n, st);
    for (uint64_t i = 0; i < n && !code; i++) {
        const int32_t id = gguf_array_i32(g, END_TOKENS_KEY, i);
        code = check_id(id, vocab_size, "GGUF metadata", END_TOKENS_KEY, st);
        if (!code)
            code = end_tokens_add(e, id, st);
    }
    return code;
}

int end_tokens_read_gguf(struct end_tokens *e, struct tokenizer *t, int vocab_size, const struct gguf *g,
                         struct plm_status *st)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    *e = (struct end_tokens){0};
    int code = read_marks(t, vocab_size, g, st);
    if (!code && gguf_has(g, END_TOKENS_KEY))
        return read_exact(e, vocab_size, g, st);
    for (size_t i = 0; i < sizeof keys / sizeof *keys && !code; i++) {
        int32_t id;
        code = get_id(g, keys[i], vocab_size, &id, st);
        if (!code)
            code = end_tokens_add(e, id, st);
    }
    return code ? code : add_by_spelling(e, t, st);
}

/* --- writing --- */

char *end_tokens_generation_config(const struct end_tokens *e, const struct tokenizer *t)
{
    struct json_buffer b = {0};
    json_printf(&b, "{\n");
    if (t && tokenizer_marks(t)->bos >= 0)
        json_printf(&b, "  \"bos_token_id\": %d,\n", tokenizer_marks(t)->bos);
    json_printf(&b, "  \"eos_token_id\": [");
    for (int i = 0; i < e->n; i++)
        json_printf(&b, "%s%d", i ? ", " : "", e->ids[i]);
    json_printf(&b, "]\n}\n");
    if (!b.failed)
        return b.data;
    free(b.data);
    return NULL;
}

static void put_token(struct json_buffer *b, const struct tokenizer *t, const char *key, int32_t id)
{
    size_t n;
    const char *text = tokenizer_token(t, id, &n, NULL);
    json_printf(b, "  \"%s\": ", key);
    if (text)
        json_put_string(b, text, n);
    else
        json_printf(b, "null");
    json_printf(b, ",\n");
}

char *end_tokens_tokenizer_config(const struct tokenizer *t)
{
    struct json_buffer b = {0};
    const struct tokenizer_marks *m = tokenizer_marks(t);
    json_printf(&b, "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n");
    put_token(&b, t, "bos_token", m->bos);
    put_token(&b, t, "eos_token", m->eos);
    json_printf(&b, "  \"add_bos_token\": %s,\n  \"add_eos_token\": %s\n}\n", m->add_bos ? "true" : "false",
                m->add_eos ? "true" : "false");
    if (!b.failed)
        return b.data;
    free(b.data);
    return NULL;
}
