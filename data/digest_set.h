/* A set of 128-bit digests of documents, to find exact duplicates: 32 bytes or less per document. */
#ifndef DATA_DIGEST_SET_H
#define DATA_DIGEST_SET_H

#include <stdbool.h>
#include <stdint.h>

#include "infer/base/status.h"

struct digest {
    uint64_t low, high;
};

struct digest_set {
    struct digest *slots; /* (capacity), {0, 0}: free */
    uint64_t capacity, n;
};

/* XXH3-128 of the bytes; never {0, 0}. */
struct digest digest_of(const void *data, size_t length);

/* Start with {0}. *added tells whether the digest was new. */
int digest_set_add(struct digest_set *s, struct digest d, bool *added, struct plm_status *st);
void digest_set_free(struct digest_set *s);

#endif
