#include "infer/base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static size_t round_up(size_t n, size_t multiple)
{
    return multiple > 1 ? (n + multiple - 1) / multiple * multiple : n;
}

void *arena_alloc(struct arena *a, size_t count, size_t size)
{
    if (size && count > (SIZE_MAX / 2 - a->used) / size) {
        a->used = SIZE_MAX / 2; /* saturates: arena_commit reports it as out of memory */
        return NULL;
    }
    size_t bytes = round_up(count * size, ARENA_ALIGN);
    size_t at = a->used;
    if (a->base && (bytes > a->size - at))
        return NULL;
    a->used += bytes;
    return a->base ? a->base + at : NULL;
}

int arena_commit(struct arena *a, size_t multiple, const char *role, struct plm_status *st)
{
    size_t bytes = round_up(round_up(a->used ? a->used : 1, multiple), ARENA_ALIGN);
    a->base = a->used >= SIZE_MAX / 2 ? NULL : aligned_alloc(ARENA_ALIGN, bytes);
    if (!a->base)
        return status_no_memory(st, bytes, role);
    memset(a->base, 0, bytes);
    a->size = bytes;
    a->used = 0;
    return PLM_OK;
}

void arena_free(struct arena *a)
{
    free(a->base);
    *a = (struct arena){0};
}
