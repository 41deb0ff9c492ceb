/* What the writer and the reader of shards have to agree on. */
#ifndef DATA_SHARD_LAYOUT_H
#define DATA_SHARD_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "data/shard.h"

#define SHARD_FORMAT "plm-shard"
#define SHARD_FORMAT_VERSION 1
#define SHARD_MAX_CHUNK_TOKENS (16 << 20) /* 64 MiB of u32: what a reader is ready to allocate for one chunk */
#define SHARD_MAX_ATTRIBUTES 64           /* stored in the object header, which is checksummed, not in a heap */

/* The integer attributes, all of them i64, with their places in struct shard_info. */
struct shard_field {
    const char *name;
    size_t offset;
    int64_t low, high; /* accepted when read */
};
extern const struct shard_field shard_fields[]; /* ends with a NULL name */

#endif
