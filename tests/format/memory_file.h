/* Linked into a program, memory_file.c stands in for infer/base/mapped.c: mapped_open returns a heap copy of the bytes set
 * last, so that the address sanitizer sees any byte touched beyond the end of a "file", which the page granularity of a real
 * mapping hides. */
#ifndef TESTS_FORMAT_MEMORY_FILE_H
#define TESTS_FORMAT_MEMORY_FILE_H

#include <stddef.h>

/* Bytes of the next file; not copied until mapped_open, whatever the path. */
void memory_file_set(const void *data, size_t size);

/* Bytes of files whose path contains "-00002-of-", where a split file's second part is wanted; without them those of the others. */
void memory_file_set_second(const void *data, size_t size);

#endif
