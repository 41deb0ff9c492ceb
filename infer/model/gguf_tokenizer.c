/* The tokenizer inside a GGUF file: tokenizer.ggml.tokens, token_type and merges, all in the printable byte-level form. */
#include <stdlib.h>
#include <string.h>

#include "infer/model/model.h"
#include "infer/text/tokenizer_internal.h"

enum { TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5 }; /* llama.cpp's numbering */

struct vocabulary {
    uint64_t n;
    const char **token;  /* (n) raw bytes, NULL where the id has no ordinary token */
    size_t *length;      /* (n) */
    char *bytes;         /* what token points into */
    struct special_token *specials; /* (n_specials) texts owned, in `bytes` */
    int n_specials;
    int32_t *slots;      /* ordinary tokens by their bytes, -1: free */
    size_t mask;
    int32_t (*merges)[2];
    uint64_t n_merges;
};

static void vocabulary_free(struct vocabulary *v)
{
    free(v->token);
    free(v->length);
    free(v->bytes);
    free(v->specials);
    free(v->slots);
    free(v->merges);
}

static int32_t *find_slot(const struct vocabulary *v, const char *bytes, size_t n)
{
    for (size_t i = hash_bytes(bytes, n) & v->mask;; i = (i + 1) & v->mask) {
        int32_t id = v->slots[i];
        if (id < 0 || (v->length[id] == n && !memcmp(v->token[id], bytes, n)))
            return &v->slots[i];
    }
}

static int read_tokens(struct vocabulary *v, const struct gguf *g, struct plm_status *st)
{
    uint64_t n_types;
    int code = gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &v->n, st);
    if (!code)
        code = gguf_get_array(g, "tokenizer.ggml.token_type", GGUF_I32, &n_types, st);
    if (code)
        return code;
    if (v->n != n_types || v->n > TOKENIZER_MAX_VOCAB)
        return status_set(st, PLM_EFORMAT, "tokenizer.ggml.tokens has %llu entries, token_type %llu; expected the same number, at most %d",
                          (unsigned long long)v->n, (unsigned long long)n_types, TOKENIZER_MAX_VOCAB);
    size_t total = 0, used = 0, slots = 16;
    const char *text;
    size_t length;
    for (uint64_t i = 0; i < v->n; i++) {
        gguf_array_string(g, "tokenizer.ggml.tokens", i, &text, &length);
        total += length + 1;
    }
    while (slots < 2 * v->n)
        slots *= 2;
    v->mask = slots - 1;
    v->token = calloc(v->n + 1, sizeof *v->token);
    v->length = calloc(v->n + 1, sizeof *v->length);
    v->specials = calloc(v->n + 1, sizeof *v->specials);
    v->bytes = malloc(total + 1);
    v->slots = malloc(slots * sizeof *v->slots);
    if (!v->token || !v->length || !v->specials || !v->bytes || !v->slots)
        return status_no_memory(st, total + 40 * v->n, "a vocabulary");
    memset(v->slots, 0xff, slots * sizeof *v->slots);
    for (uint64_t i = 0; i < v->n; i++) {
        const int32_t type = gguf_array_i32(g, "tokenizer.ggml.token_type", i);
        char *at = v->bytes + used;
        gguf_array_string(g, "tokenizer.ggml.tokens", i, &text, &length);
        if (type == TYPE_UNUSED)
            continue; /* a row of the embedding without a token */
        if (type == TYPE_CONTROL || type == TYPE_USER_DEFINED) {
            memcpy(at, text, length);
            at[length] = 0;
            if (length == 0 || strlen(at) != length)
                return status_set(st, PLM_EFORMAT, "tokenizer.ggml.tokens[%llu]: a special token is not a text", (unsigned long long)i);
            v->specials[v->n_specials++] = (struct special_token){at, (int32_t)i};
            used += length + 1;
            continue;
        }
        const ptrdiff_t n = tokenizer_unprintable(text, length, at, total - used);
        if (n <= 0)
            return status_set(st, PLM_EFORMAT, "tokenizer.ggml.tokens[%llu]: '%.*s' is not in the byte-level alphabet", (unsigned long long)i,
                              (int)(length < 80 ? length : 80), text);
        v->token[i] = at;
        v->length[i] = (size_t)n;
        used += (size_t)n;
        *find_slot(v, at, (size_t)n) = (int32_t)i;
    }
    return PLM_OK;
}

static int read_merges(struct vocabulary *v, const struct gguf *g, struct plm_status *st)
{
    int code = gguf_get_array(g, "tokenizer.ggml.merges", GGUF_STRING, &v->n_merges, st);
    if (code)
        return code;
    if (v->n_merges > TOKENIZER_MAX_VOCAB)
        return status_set(st, PLM_ELIMIT, "tokenizer.ggml.merges has %llu entries, at most %d are expected", (unsigned long long)v->n_merges, TOKENIZER_MAX_VOCAB);
    v->merges = calloc(v->n_merges + 1, sizeof *v->merges);
    if (!v->merges)
        return status_no_memory(st, v->n_merges * sizeof *v->merges, "merges");
    for (uint64_t i = 0; i < v->n_merges && !code; i++) {
        const char *text;
        size_t length;
        gguf_array_string(g, "tokenizer.ggml.merges", i, &text, &length);
        const char *space = memchr(text, ' ', length);
        char *scratch = malloc(length + 1);
        if (!scratch)
            return status_no_memory(st, length, "a merge");
        for (int side = 0; side < 2 && space; side++) {
            const char *part = side ? space + 1 : text;
            const size_t n = side ? (size_t)(text + length - part) : (size_t)(space - text);
            const ptrdiff_t raw = tokenizer_unprintable(part, n, scratch, length);
            v->merges[i][side] = raw > 0 ? *find_slot(v, scratch, (size_t)raw) : -1;
        }
        free(scratch);
        if (!space || v->merges[i][0] < 0 || v->merges[i][1] < 0)
            code = status_set(st, PLM_EFORMAT, "tokenizer.ggml.merges[%llu]: '%.*s' is not two tokens of the vocabulary", (unsigned long long)i,
                              (int)(length < 80 ? length : 80), text);
    }
    return code;
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
    int code = read_tokens(&v, g, st);
    if (!code)
        code = read_merges(&v, g, st);
    if (!code)
        code = tokenizer_create(out, v.token, v.length, (int32_t)v.n, (const int32_t(*)[2])v.merges, (int32_t)v.n_merges, v.specials, v.n_specials, st);
    vocabulary_free(&v);
    return code;
}
