/* A stream of bytes from a plain, gzip or zstd file, told by its first bytes; what is named .gz or .zst must be it. xz, bzip2, zip,
 * Parquet and UTF-16 are refused by name. Memory is bounded by the
 * buffers and zstd's window limit whatever the file claims: a decompression bomb is read piece by piece like any file. */
#ifndef DATA_BYTE_SOURCE_H
#define DATA_BYTE_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "infer/base/status.h"

struct byte_source;

/* Length of a file name without .gz or .zst, whatever their case: what is left says what the unpacked file is. */
size_t byte_source_stem(const char *path);

int byte_source_open(struct byte_source **out, const char *path, struct plm_status *st);
void byte_source_close(struct byte_source *s);

/* Up to `capacity` bytes into `to`; *n is 0 only at the end. A stream that ends in the middle, or whose checksum does not
 * match, is PLM_EFORMAT and names the file and the position in it. */
int byte_source_read(struct byte_source *s, void *to, size_t capacity, size_t *n, struct plm_status *st);

/* Bytes taken from the file so far (compressed). */
int64_t byte_source_position(const struct byte_source *s);

#endif
