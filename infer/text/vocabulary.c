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

int vocabulary_put_added(struct vocabulary *v, int32_t id, const char *text, size_t n, struct plm_status *st)
{
    for (size_t i = 0; i < n; i++)
        if (text[i] < 33 || text[i] > 126)
            return PLM_OK;
    return v->token[id] || *find_slot(v, text, n) >= 0 ? PLM_OK : vocabulary_put(v, id, text, n, st);
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

bool *vocabulary_merged(const struct vocabulary *v)
{
    bool *merged = calloc((size_t)v->n + 1, sizeof *merged);
    for (int32_t i = 0; merged && i < v->n_merges; i++) {
        const int32_t left = v->merges[i][0], right = v->merges[i][1];
        const size_t n = v->length[left] + v->length[right];
        merged[left] = merged[right] = true;
        if (n > v->capacity)
            continue; /* longer than all tokens together: there is no such token */
        memcpy(v->scratch, v->token[left], v->length[left]);
        memcpy(v->scratch + v->length[left], v->token[right], v->length[right]);
        const int32_t result = *find_slot(v, v->scratch, n);
        if (result >= 0)
            merged[result] = true;
    }
    return merged;
}

/* Whether the pair is new to the set, to which it is added. Slots hold the index of a merge and are at most half full.
 */
static bool is_new(const struct vocabulary *v, int32_t *slots, size_t mask, int32_t merge)
{
    const int32_t *pair = v->merges[merge];
    size_t i = hash_u64(pair_key(pair[0], pair[1])) & mask;
    for (; slots[i] >= 0; i = (i + 1) & mask)
        if (!memcmp(v->merges[slots[i]], pair, sizeof *v->merges))
            return false;
    slots[i] = merge;
    return true;
}

int32_t vocabulary_drop_merges(struct vocabulary *v, bool keep_last)
{
    const int32_t n = v->n_merges;
    size_t size = 16;
    while (size < (size_t)n * 2)
        size *= 2;
    int32_t *slots = malloc(size * sizeof *slots);
    bool *keep = malloc((size_t)n + 1);
    int32_t kept = 0;
    if (slots && keep) {
        memset(slots, 0xff, size * sizeof *slots);
        for (int32_t i = 0; i < n; i++) {
            const int32_t merge = keep_last ? n - 1 - i : i;
            keep[merge] = is_new(v, slots, size - 1, merge);
        }
        for (int32_t i = 0; i < n; i++)
            if (keep[i])
                memmove(v->merges[kept++], v->merges[i], sizeof *v->merges);
        v->n_merges = kept;
    } else {
        kept = n + 1;
    }
    free(slots);
    free(keep);
    return n - kept;
}
