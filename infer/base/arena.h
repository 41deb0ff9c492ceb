/* One arena per role (weights, gradients, optimizer state, activations): a single allocation laid out by a measuring
 * pass. Run the same layout code twice: on a zeroed arena, where arena_alloc only counts and returns NULL, then after
 * arena_commit, where it hands out memory. */
#ifndef INFER_BASE_ARENA_H
#define INFER_BASE_ARENA_H

#include <stddef.h>

#include "infer/base/status.h"

#define ARENA_ALIGN 64 /* bytes: a cache line and an AVX-512 register */

struct arena {
    unsigned char *base; /* NULL while measuring */
    size_t size;         /* bytes at base */
    size_t used;         /* bytes handed out (or counted) so far */
};

/* The next `count` elements of `size` bytes, ARENA_ALIGN-aligned and zero after arena_commit; NULL while measuring.
 * Asking a committed arena for more than was measured is a programming error and returns NULL too. */
void *arena_alloc(struct arena *a, size_t count, size_t size);

/* Allocate what was measured, rounded up to `multiple` bytes (0 or 1: no rounding), zeroed, and restart at 0. PLM_ENOMEM also for more
 * than the machine has left. */
int arena_commit(struct arena *a, size_t multiple, const char *role, struct plm_status *st);

/* Free the memory and return to the measuring state. */
void arena_free(struct arena *a);

#endif
