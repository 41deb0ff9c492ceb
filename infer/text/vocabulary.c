#include "infer/text/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#include "infer/text/tokenizer_internal.h"

int vocabulary_create(struct vocabulary *v, int32_t n, size_t n_tokens, size_t printable_bytes, int32_t n_merges, struct plm_status *st)
{
    size_t slots = 16;
    while (slots < n_tokens * 2)
        slots *= 2;
    *v = (struct vocabulary){.n = n, .mask = slots - 1, .capacity = printable_bytes, .merge_capacity = n_merges};
    v->slots = malloc(slots * sizeof *v->slots);
    v->token = calloc((size_t)n + 1, sizeof *v->token);
    v->length = calloc((size_t)n + 1, sizeof *v->length);
    v->bytes = malloc(printable_bytes + 1);
    v->scratch = malloc(printable_bytes + 1); /* no token is longer than all of them together */
    v->merges = calloc((size_t)n_merges + 1, sizeof *v->merges);
    if (!v->slots || !v->token || !v->length || !v->bytes || !v->scratch || !v->merges)
        return status_no_memory(st, 2 * printable_bytes + (size_t)n * 20 + (size_t)n_merges * 8, "a vocabulary");
    memset(v->slots, 0xff, slots * sizeof *v->slots);
    return PLM_OK;
}

void vocabulary_free(struct vocabulary *v)
{
    free(v->token);
    free(v->length);
    free(v->merges);
    free(v->bytes);
    free(v->scratch);
    free(v->slots);
    *v = (struct vocabulary){0};
}

static int32_t *find_slot(const struct vocabulary *v, const char *bytes, size_t n)
{
    for (size_t i = hash_bytes(bytes, n) & v->mask;; i = (i + 1) & v->mask) {
        int32_t id = v->slots[i];
        if (id < 0 || (v->length[id] == n && !memcmp(v->token[id], bytes, n)))
            return &v->slots[i];
    }
}

int vocabulary_put(struct vocabulary *v, int32_t id, const char *printable, size_t n, struct plm_status *st)
{
    char *at = v->bytes + v->used;
    ptrdiff_t length = n <= v->capacity - v->used ? tokenizer_unprintable(printable, n, at, v->capacity - v->used) : -1;
    if (length < 0)
        return status_set(st, PLM_EFORMAT, "'%.*s' (id %d) has a character outside the byte-level alphabet", (int)(n < 80 ? n : 80), printable,
                          (int)id);
    v->token[id] = at;
    v->length[id] = (size_t)length;
    v->used += (size_t)length;
    *find_slot(v, at, (size_t)length) = id;
    return PLM_OK;
}

static int merge_side(const struct vocabulary *v, const char *text, size_t n, int32_t *id, struct plm_status *st)
{
    ptrdiff_t length = n <= v->capacity ? tokenizer_unprintable(text, n, v->scratch, v->capacity) : -1;
    *id = length > 0 ? *find_slot(v, v->scratch, (size_t)length) : -1;
    if (*id >= 0)
        return PLM_OK;
    return status_set(st, PLM_EFORMAT, "'%.*s' is not in the vocabulary", (int)(n < 80 ? n : 80), text);
}

int vocabulary_merge(struct vocabulary *v, const char *left, size_t n_left, const char *right, size_t n_right, struct plm_status *st)
{
    if (v->n_merges == v->merge_capacity)
        return status_set(st, PLM_EINTERNAL, "more merges than announced");
    int32_t *pair = v->merges[v->n_merges];
    int code = merge_side(v, left, n_left, &pair[0], st);
    if (!code)
        code = merge_side(v, right, n_right, &pair[1], st);
    v->n_merges += code == PLM_OK;
    return code;
}

int vocabulary_merge_text(struct vocabulary *v, const char *text, size_t n, struct plm_status *st)
{
    const char *space = memchr(text, ' ', n);
    if (!space)
        return status_set(st, PLM_EFORMAT, "'%.*s' is not two tokens with a space between them", (int)(n < 80 ? n : 80), text);
    return vocabulary_merge(v, text, (size_t)(space - text), space + 1, n - (size_t)(space - text) - 1, st);
}
