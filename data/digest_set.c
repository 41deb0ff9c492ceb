#include "data/digest_set.h"

#include <stdlib.h>

#include <xxhash.h>

struct digest digest_of(const void *data, size_t length)
{
    XXH128_hash_t h = XXH3_128bits(data, length);
    return (struct digest){h.low64 | (h.low64 == 0 && h.high64 == 0), h.high64};
}

static struct digest *find(struct digest *slots, uint64_t capacity, struct digest d)
{
    uint64_t i = d.low & (capacity - 1);
    while ((slots[i].low || slots[i].high) && (slots[i].low != d.low || slots[i].high != d.high))
        i = (i + 1) & (capacity - 1);
    return &slots[i];
}

static int grow(struct digest_set *s, struct plm_status *st)
{
    uint64_t capacity = s->capacity ? 2 * s->capacity : 1024;
    struct digest *slots = calloc(capacity, sizeof *slots);
    if (!slots)
        return status_no_memory(st, capacity * sizeof *slots, "the digests of the documents");
    for (uint64_t i = 0; i < s->capacity; i++)
        if (s->slots[i].low || s->slots[i].high)
            *find(slots, capacity, s->slots[i]) = s->slots[i];
    free(s->slots);
    s->slots = slots;
    s->capacity = capacity;
    return PLM_OK;
}

int digest_set_add(struct digest_set *s, struct digest d, bool *added, struct plm_status *st)
{
    if (4 * (s->n + 1) > 3 * s->capacity) {
        int code = grow(s, st);
        if (code)
            return code;
    }
    struct digest *slot = find(s->slots, s->capacity, d);
    *added = !slot->low && !slot->high;
    if (*added) {
        *slot = d;
        s->n++;
    }
    return PLM_OK;
}

void digest_set_free(struct digest_set *s)
{
    free(s->slots);
    *s = (struct digest_set){0};
}
