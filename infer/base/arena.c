#include "infer/base/arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CHECK_FROM ((size_t)64 << 20) /* bytes */

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

/* Linux grants more memory than there is and ends the process when it is used: ask what is left. SIZE_MAX where nobody says. */
static size_t memory_available(void)
{
    unsigned long long kib, left = 0;
    bool said = false;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1 || sscanf(line, "SwapFree: %llu", &kib) == 1) {
            said |= *line == 'M';
            left += kib;
        }
    if (f)
        fclose(f);
    return said && left < SIZE_MAX / 1024 ? (size_t)left * 1024 : SIZE_MAX;
}

#define LARGE ((size_t)8 << 20)  /* bytes from which larger pages pay */
#define LARGE_PAGE ((size_t)2 << 20)

/* Ask for large pages, before the memory is touched: caches and copies of weights are read in strides that a table of small ones does
 * not cover. When there are none, nothing changes. */
static void ask_for_large_pages(unsigned char *base, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    const size_t skip = (LARGE_PAGE - (uintptr_t)base % LARGE_PAGE) % LARGE_PAGE;
    if (bytes >= LARGE)
        madvise(base + skip, (bytes - skip) / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE);
#else
    (void)base, (void)bytes;
#endif
}

int arena_commit(struct arena *a, size_t multiple, const char *role, struct plm_status *st)
{
    size_t bytes = round_up(round_up(a->used ? a->used : 1, multiple), ARENA_ALIGN);
    const bool hopeless = a->used >= SIZE_MAX / 2 || (bytes >= CHECK_FROM && bytes > memory_available());
    a->base = hopeless ? NULL : aligned_alloc(ARENA_ALIGN, bytes);
    if (!a->base)
        return status_no_memory(st, bytes, role);
    ask_for_large_pages(a->base, bytes);
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
