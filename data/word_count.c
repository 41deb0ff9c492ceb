#include "data/word_count.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#define FIRST_SLOTS 4096
#define MAX_RARE 65536 /* counts below this are told apart when pruning */

static struct word *find(const struct word_table *t, const char *word, uint32_t length, uint32_t hash)
{
    for (size_t i = hash & (t->n_slots - 1);; i = (i + 1) & (t->n_slots - 1)) {
        struct word *w = &t->slots[i];
        if (w->count == 0 || (w->hash == hash && w->length == length && !memcmp(t->bytes + w->offset, word, length)))
            return w;
    }
}

static int grow_slots(struct word_table *t, struct plm_status *st)
{
    size_t n = t->n_slots ? t->n_slots * 2 : FIRST_SLOTS;
    struct word *slots = calloc(n, sizeof *slots);
    if (!slots)
        return status_no_memory(st, n * sizeof *slots, "the table of words");
    for (size_t k = 0; k < t->n_slots; k++) {
        if (t->slots[k].count == 0)
            continue;
        size_t i = t->slots[k].hash & (n - 1);
        while (slots[i].count)
            i = (i + 1) & (n - 1);
        slots[i] = t->slots[k];
    }
    free(t->slots);
    t->slots = slots;
    t->n_slots = n;
    return PLM_OK;
}

static int insert(struct word_table *t, const struct word *w, const char *bytes, struct plm_status *st)
{
    if (t->n_words * 2 >= t->n_slots) {
        int code = grow_slots(t, st);
        if (code)
            return code;
    }
    struct word *slot = find(t, bytes, w->length, w->hash);
    if (slot->count) {
        slot->count += w->count;
        return PLM_OK;
    }
    if (t->capacity - t->used < w->length) {
        size_t capacity = t->capacity * 2 + w->length + 65536;
        char *grown = realloc(t->bytes, capacity);
        if (!grown)
            return status_no_memory(st, capacity, "the table of words");
        t->bytes = grown;
        t->capacity = capacity;
    }
    memcpy(t->bytes + t->used, bytes, w->length);
    *slot = (struct word){w->count, t->used, w->length, w->hash};
    t->used += w->length;
    t->n_words++;
    return PLM_OK;
}

int word_table_add(struct word_table *t, const char *word, uint32_t length, int64_t count, struct plm_status *st)
{
    struct word w = {.count = count, .length = length, .hash = (uint32_t)XXH3_64bits(word, length)};
    return insert(t, &w, word, st);
}

int word_table_merge(struct word_table *t, const struct word_table *from, struct plm_status *st)
{
    for (size_t i = 0; i < from->n_slots; i++) {
        const struct word *w = &from->slots[i];
        int code = w->count ? insert(t, w, from->bytes + w->offset, st) : PLM_OK;
        if (code)
            return code;
    }
    return PLM_OK;
}

static size_t word_cost(const struct word *w)
{
    return 2 * sizeof *w + w->length; /* half the slots are free */
}

size_t word_table_cost(const struct word_table *t)
{
    return t->n_words * 2 * sizeof(struct word) + t->used;
}

int word_table_prune(struct word_table *t, size_t cost, int64_t *words, int64_t *count, struct plm_status *st)
{
    size_t *cost_of = calloc(MAX_RARE, sizeof *cost_of);
    struct word_table kept = {0};
    size_t rest = word_table_cost(t);
    int64_t rarest = 0;
    int code = cost_of ? PLM_OK : status_no_memory(st, MAX_RARE * sizeof *cost_of, "pruning the table of words");
    for (size_t i = 0; i < t->n_slots && !code; i++)
        if (t->slots[i].count && t->slots[i].count < MAX_RARE)
            cost_of[t->slots[i].count] += word_cost(&t->slots[i]);
    while (!code && rest > cost && rarest + 1 < MAX_RARE)
        rest -= cost_of[++rarest];
    for (size_t i = 0; i < t->n_slots && !code; i++) {
        const struct word *w = &t->slots[i];
        if (w->count > rarest) {
            code = insert(&kept, w, t->bytes + w->offset, st);
        } else if (w->count) {
            *words += 1;
            *count += w->count;
        }
    }
    free(cost_of);
    word_table_free(code ? &kept : t);
    if (!code)
        *t = kept;
    return code;
}

void word_table_clear(struct word_table *t)
{
    if (t->slots)
        memset(t->slots, 0, t->n_slots * sizeof *t->slots);
    t->n_words = t->used = 0;
}

void word_table_free(struct word_table *t)
{
    free(t->slots);
    free(t->bytes);
    *t = (struct word_table){0};
}
