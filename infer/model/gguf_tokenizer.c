/* The tokenizer inside a GGUF file: tokenizer.ggml.tokens, token_type and merges, all in the printable byte-level form. */
#include <stdlib.h>
#include <string.h>

#include "infer/model/model.h"
#include "infer/text/tokenizer_internal.h"
#include "infer/text/vocabulary.h"

enum { TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5 }; /* llama.cpp's numbering */

/* Special tokens of a file: texts with NULs, in one buffer. */
struct specials {
    struct special_token *list;
    int n;
    char *text;
};

static int read_sizes(const struct gguf *g, uint64_t *n_tokens, uint64_t *n_merges, size_t *bytes, struct plm_status *st)
{
    uint64_t n_types;
    int code = gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING, n_tokens, st);
    if (!code)
        code = gguf_get_array(g, "tokenizer.ggml.token_type", GGUF_I32, &n_types, st);
    if (!code)
        code = gguf_get_array(g, "tokenizer.ggml.merges", GGUF_STRING, n_merges, st);
    if (code)
        return code;
    if (*n_tokens != n_types || *n_tokens > TOKENIZER_MAX_VOCAB || *n_merges > TOKENIZER_MAX_VOCAB)
        return status_set(st, PLM_EFORMAT, "tokenizer.ggml: %llu tokens, %llu token_type, %llu merges; expected as many types as tokens, at most %d",
                          (unsigned long long)*n_tokens, (unsigned long long)n_types, (unsigned long long)*n_merges, TOKENIZER_MAX_VOCAB);
    *bytes = 0;
    for (uint64_t i = 0; i < *n_tokens; i++) {
        const char *text;
        size_t length;
        gguf_array_string(g, "tokenizer.ggml.tokens", i, &text, &length);
        *bytes += length + 1;
    }
    return PLM_OK;
}

static int read_tokens(struct vocabulary *v, struct specials *specials, const struct gguf *g, struct plm_status *st)
{
    char *at = specials->text;
    int code = PLM_OK;
    for (int32_t i = 0; i < v->n && !code; i++) {
        const int32_t type = gguf_array_i32(g, "tokenizer.ggml.token_type", (uint64_t)i);
        const char *text;
        size_t length;
        gguf_array_string(g, "tokenizer.ggml.tokens", (uint64_t)i, &text, &length);
        if (type == TYPE_UNUSED)
            continue; /* a row of the embedding without a token */
        if (type != TYPE_CONTROL && type != TYPE_USER_DEFINED) {
            code = vocabulary_put(v, i, text, length, st);
            continue;
        }
        if (length == 0 || memchr(text, 0, length))
            return status_set(st, PLM_EFORMAT, "tokenizer.ggml.tokens[%d]: a special token is not a text", (int)i);
        memcpy(at, text, length);
        at[length] = 0;
        specials->list[specials->n++] = (struct special_token){at, i};
        at += length + 1;
    }
    return code;
}

static int read_merges(struct vocabulary *v, const struct gguf *g, uint64_t n, struct plm_status *st)
{
    for (uint64_t i = 0; i < n; i++) {
        const char *text;
        size_t length;
        gguf_array_string(g, "tokenizer.ggml.merges", i, &text, &length);
        if (vocabulary_merge_text(v, text, length, st))
            return status_prefix(st, "tokenizer.ggml.merges[%llu]", (unsigned long long)i);
    }
    return PLM_OK;
}

int gguf_read_tokenizer(struct tokenizer **out, const struct gguf *g, struct plm_status *st)
{
    *out = NULL;
    if (!gguf_has(g, "tokenizer.ggml.tokens"))
        return PLM_OK; /* such a model takes and gives token ids */
    const char *name;
    size_t length;
    static const struct { const char *key, *want; } kinds[] = {{"tokenizer.ggml.model", "gpt2"}, {"tokenizer.ggml.pre", "qwen2"}};
    for (int i = 0; i < 2; i++) {
        int code = gguf_get_string(g, kinds[i].key, &name, &length, st);
        if (!code && (length != strlen(kinds[i].want) || memcmp(name, kinds[i].want, length) != 0))
            code = status_set(st, PLM_EUNSUPPORTED, "%s is '%.*s', this tokenizer implements '%s'", kinds[i].key, (int)(length < 64 ? length : 64), name, kinds[i].want);
        if (code)
            return code;
    }
    struct vocabulary v = {0};
    uint64_t n_tokens = 0, n_merges = 0;
    size_t bytes = 0;
    int code = read_sizes(g, &n_tokens, &n_merges, &bytes, st);
    if (code)
        return code;
    struct specials specials = {calloc(n_tokens + 1, sizeof *specials.list), 0, malloc(bytes + 1)};
    code = specials.list && specials.text ? vocabulary_create(&v, (int32_t)n_tokens, n_tokens, bytes, (int32_t)n_merges, st)
                                          : status_no_memory(st, bytes + n_tokens * sizeof *specials.list, "special tokens");
    if (!code)
        code = read_tokens(&v, &specials, g, st);
    if (!code)
        code = read_merges(&v, g, n_merges, st);
    if (!code)
        code = tokenizer_create(out, v.token, v.length, v.n, (const int32_t(*)[2])v.merges, v.n_merges, specials.list, specials.n, st);
    vocabulary_free(&v);
    free(specials.list);
    free(specials.text);
    return code;
}
