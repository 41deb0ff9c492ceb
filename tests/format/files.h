/* Files for the tests of infer/format, in a temporary directory that is removed at exit. */
#ifndef TESTS_FORMAT_FILES_H
#define TESTS_FORMAT_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "infer/base/status.h"

/* The path of `name` in the temporary directory, in one of eight buffers used in turn. */
const char *file_path(const char *name);

/* Write bytes there and return the path. */
const char *file_write(const char *name, const void *data, size_t bytes);

/* The whole content, malloc'ed. */
unsigned char *file_read(const char *path, size_t *bytes);

/* A growing byte string for building files by hand. */
struct bytes {
    unsigned char data[4096];
    size_t length;
};
void bytes_put(struct bytes *b, const void *data, size_t n);
void bytes_u32(struct bytes *b, uint32_t v);
void bytes_u64(struct bytes *b, uint64_t v);
void bytes_string(struct bytes *b, const char *s); /* GGUF: u64 length, bytes */

/* The status has this code and its message contains every one of the strings up to NULL. */
void assert_message(const struct plm_status *st, int code, ...);

#endif
