/* The tokenizer inside a GGUF file: tokenizer.ggml.tokens, token_type and merges, all in the printable byte-level form.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/model/model.h"
#include "infer/text/tokenizer_internal.h"
#include "infer/text/vocabulary.h"

/* Special tokens of a file: texts with NULs, in one buffer. */
struct specials {
    struct special_token *list;
    int n;
    char *text;
};

static int read_sizes(const struct gguf *g, uint64_t *n_tokens, uint64_t *n_merges, size_t *bytes,
                      struct plm_status *st)
{
    uint64_t n_types = 0;
    int code = gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING, n_tokens, st);
    if (!code && !gguf_has(g, "tokenizer.ggml.token_type"))
        n_types = *n_tokens;
    else if (!code)
        code = gguf_get_array(g, "tokenizer.ggml.token_type", GGUF_I32, &n_types, st);
    if (!code && gguf_has(g, "tokenizer.ggml.merges"))
        code = gguf_get_array(g, "tokenizer.ggml.merges", GGUF_STRING, n_merges, st);
    if (code)
        return code;
    if (*n_tokens != n_types || *n_tokens > TOKENIZER_MAX_VOCAB || *n_merges > TOKENIZER_MAX_VOCAB)
        return status_set(
            st, PLM_EFORMAT,
            "tokenizer.ggml: %llu tokens, %llu token_type, %llu merges; expected as many types as tokens, at most %d",
            (unsigned long long)*n_tokens, (unsigned long long)n_types, (unsigned long long)*n_merges,
            TOKENIZER_MAX_VOCAB);
    *bytes = 0;
    for (uint64_t i = 0; i < *n_tokens; i++) {
        const char *text;
        size_t length;
        gguf_array_string(g, "tokenizer.ggml.tokens", i, &text, &length);
        *bytes += length + 1;
    }
    return PLM_OK;
}

static bool looks_special(const char *text, size_t n)
{
    return n > 4 && !memcmp(text, "<|", 2) && !memcmp(text + n - 2, "|>", 2);
}

static int kind_of(const struct gguf *g, int32_t i, const char *text, size_t n, enum tokenizer_kind *kind,
                   struct plm_status *st)
{
    const bool typed = gguf_has(g, "tokenizer.ggml.token_type");
    const int32_t type = typed                    ? gguf_array_i32(g, "tokenizer.ggml.token_type", (uint64_t)i)
                         : looks_special(text, n) ? TOKEN_CONTROL
                                                  : TOKEN_NORMAL;
    if (type < 0 || type > TOKEN_BYTE)
        return status_set(st, PLM_EFORMAT, "tokenizer.ggml.token_type[%d] is %d, expected 1 (normal) to 6 (byte)",
                          (int)i, (int)type);
    *kind = type == 0 ? TOKEN_NORMAL : n == 0 ? TOKEN_UNUSED : (enum tokenizer_kind)type; /* 0: not said */
    return PLM_OK;
}

static bool is_added(enum tokenizer_kind kind)
{
    return kind == TOKEN_CONTROL || kind == TOKEN_USER_DEFINED || kind == TOKEN_UNKNOWN;
}

/* Ordinary tokens in a first pass, added ones in a second. */
static int read_tokens(struct vocabulary *v, struct specials *specials, bool added, const struct gguf *g,
                       struct plm_status *st)
{
    char *at = specials->text;
    int code = PLM_OK;
    for (int32_t i = 0; i < v->n && !code; i++) {
        enum tokenizer_kind kind;
        const char *text;
        size_t length;
        gguf_array_string(g, "tokenizer.ggml.tokens", (uint64_t)i, &text, &length);
        code = kind_of(g, i, text, length, &kind, st);
        if (code || kind == TOKEN_UNUSED || is_added(kind) != added)
            continue; /* unused: a row of the embedding without a token */
        if (!added) {
            code = vocabulary_put(v, i, text, length, st);
            continue;
        }
        if (memchr(text, 0, length))
            return status_set(st, PLM_EFORMAT, "tokenizer.ggml.tokens[%d]: an added token is not a text", (int)i);
        memcpy(at, text, length);
        at[length] = 0;
        specials->list[specials->n++] = (struct special_token){at, i, kind == TOKEN_USER_DEFINED ? ADDED_PLAIN : 0};
        at += length + 1;
        code = vocabulary_put_added(v, i, text, length, st);
    }
    return code;
}

/* Added tokens that no merge knows of are no words. */
static int drop_words(struct vocabulary *v, const struct specials *specials, struct plm_status *st)
{
    bool *merged = vocabulary_merged(v);
    for (int k = 0; merged && k < specials->n; k++)
        if (!merged[specials->list[k].id])
            v->token[specials->list[k].id] = NULL;
    free(merged);
    return merged ? PLM_OK : status_no_memory(st, (size_t)v->n, "merges");
}

/* Lay the traits that llama.cpp has no key for on the added tokens: both lists are in the order of ids. */
static int read_traits(struct specials *specials, const struct gguf *g, struct plm_status *st)
{
    uint64_t n = 0;
    int code = gguf_has(g, ADDED_TRAITS_KEY) ? gguf_get_array(g, ADDED_TRAITS_KEY, GGUF_I32, &n, st) : PLM_OK;
    for (uint64_t i = 0, k = 0; i + 1 < n && !code; i += 2) {
        const int32_t id = gguf_array_i32(g, ADDED_TRAITS_KEY, i), traits = gguf_array_i32(g, ADDED_TRAITS_KEY, i + 1);
        while (k < (uint64_t)specials->n && specials->list[k].id < id)
            k++;
        const bool known = k < (uint64_t)specials->n && specials->list[k].id == id;
        if (!known || traits < 0 || traits >= 2 * ADDED_SINGLE_WORD ||
            (specials->list[k].traits ^ (unsigned)traits) & ADDED_PLAIN)
            return status_set(st, PLM_EFORMAT,
                              ADDED_TRAITS_KEY ": token %d has the traits %d, which do not fit its token_type", (int)id,
                              (int)traits);
        specials->list[k].traits = (unsigned)traits;
    }
    return code;
}

static int read_switch(const struct gguf *g, const char *key, bool *on, struct plm_status *st)
{
    uint64_t value = 0;
    const int code = gguf_has(g, key) ? gguf_get_u64(g, key, &value, st) : PLM_OK;
    *on = value != 0;
    return code;
}

/* What only other files say, and kinds that make no difference here. */
static int finish(struct tokenizer *t, const struct gguf *g, int32_t n, struct plm_status *st)
{
    struct tokenizer_pipeline p;
    int code = read_switch(g, NO_NFC_KEY, &p.no_nfc, st);
    if (!code)
        code = read_switch(g, IGNORE_MERGES_KEY, &p.ignore_merges, st);
    if (!code && (p.no_nfc || p.ignore_merges))
        code = tokenizer_set_pipeline(t, &p, st);
    for (int32_t i = 0; i < n && !code; i++) {
        enum tokenizer_kind kind;
        const char *text;
        size_t length;
        char padding[24];
        gguf_array_string(g, "tokenizer.ggml.tokens", (uint64_t)i, &text, &length);
        code = kind_of(g, i, text, length, &kind, st);
        const int m = snprintf(padding, sizeof padding, "[PAD%d]", (int)i);
        if (!code && kind != TOKEN_UNUSED)
            tokenizer_set_kind(t, i, kind);
        else if (!code && length && (length != (size_t)m || memcmp(text, padding, length) != 0))
            code = tokenizer_set_unused(t, i, text, length, st);
    }
    return code;
}

/* Bytes alone need no merges, and some writers leave out a list that is empty. */
static int check_merges(const struct vocabulary *v, const struct gguf *g, struct plm_status *st)
{
    for (int32_t i = 0; i < v->n && !gguf_has(g, "tokenizer.ggml.merges"); i++)
        if (v->token[i] && v->length[i] > 1)
            return status_set(st, PLM_EFORMAT,
                              "tokenizer.ggml.merges is missing, but there are tokens of several bytes (%d is one)",
                              (int)i);
    return PLM_OK;
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

/* The kinds of tokenizer whose text is split as here; llama.cpp has several names for it. */
static int check_kind(const struct gguf *g, struct plm_status *st)
{
    static const char *const splits[] = {"qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2", "hunyuan"};
    const char *name;
    size_t length;
    int code = gguf_get_string(g, "tokenizer.ggml.model", &name, &length, st);
    if (!code && (length != 4 || memcmp(name, "gpt2", 4) != 0))
        code = status_set(st, PLM_EUNSUPPORTED, "tokenizer.ggml.model is '%.*s', this tokenizer implements 'gpt2'",
                          (int)(length < 64 ? length : 64), name);
    if (!code && !gguf_has(g, "tokenizer.ggml.pre")) {
        log_warn("no tokenizer.ggml.pre: text is split as every PLM was trained, 'qwen2'");
        return PLM_OK;
    }
    if (!code)
        code = gguf_get_string(g, "tokenizer.ggml.pre", &name, &length, st);
    if (code)
        return code;
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++)
        if (length == strlen(splits[i]) && !memcmp(name, splits[i], length))
            return PLM_OK;
    return status_set(st, PLM_EUNSUPPORTED, "tokenizer.ggml.pre is '%.*s', this tokenizer implements 'qwen2'",
                      (int)(length < 64 ? length : 64), name);
}

int gguf_read_tokenizer(struct tokenizer **out, const struct gguf *g, struct plm_status *st)
{
    *out = NULL;
    if (!gguf_has(g, "tokenizer.ggml.tokens"))
        return PLM_OK; /* such a model takes and gives token ids */
    int code = check_kind(g, st);
    if (code)
        return code;
    struct vocabulary v = {0};
    uint64_t n_tokens = 0, n_merges = 0;
    size_t bytes = 0;
    code = read_sizes(g, &n_tokens, &n_merges, &bytes, st);
    if (code)
        return code;
    struct specials specials = {calloc(n_tokens + 1, sizeof *specials.list), 0, malloc(bytes + 1)};
    code = specials.list && specials.text
               ? vocabulary_create(&v, (int32_t)n_tokens, n_tokens, bytes, (int32_t)n_merges, st)
               : status_no_memory(st, bytes + n_tokens * sizeof *specials.list, "special tokens");
    if (!code)
        code = read_tokens(&v, &specials, false, g, st);
    if (!code)
        code = check_merges(&v, g, st);
    if (!code)
        code = read_tokens(&v, &specials, true, g, st);
    if (!code)
        code = read_traits(&specials, g, st);
    if (!code)
        code = read_merges(&v, g, n_merges, st);
    if (!code)
        code = drop_words(&v, &specials, st);
    if (!code && vocabulary_drop_merges(&v, false) < 0) /* of equal ones the first counts, as in llama.cpp */
        code = status_no_memory(st, n_merges * 16, "merges");
    if (!code)
        code = tokenizer_create(out, v.token, v.length, v.n, (const int32_t(*)[2])v.merges, v.n_merges, specials.list,
                                specials.n, st);
    if (!code)
        code = finish(*out, g, v.n, st);
    if (!code && !gguf_has(g, "tokenizer.ggml.token_type"))
        log_warn("no tokenizer.ggml.token_type: %d tokens that look like <|...|> are taken for special ones",
                 specials.n);
    if (code) {
        tokenizer_free(*out);
        *out = NULL;
    }
    vocabulary_free(&v);
    free(specials.list);
    free(specials.text);
    return code;
}
