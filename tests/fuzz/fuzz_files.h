/* For targets that read files by name: a directory of this process, removed at exit, and files in it made of the fuzzer's bytes. */
#ifndef TESTS_FUZZ_FUZZ_FILES_H
#define TESTS_FUZZ_FUZZ_FILES_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* The directory; made by the first call of any of these. */
const char *fuzz_directory(void);

/* The path of `name` in it, in a static buffer. */
const char *fuzz_path(const char *name);

void fuzz_write(const char *name, const void *data, size_t size);

/* Bytes of the fuzzer as edits of a valid file: three bytes each, a position (little-endian) and the value to put there. A file whose
 * parts depend on each other is reached much deeper this way than by bytes that have to be the whole file. */
void fuzz_edit(unsigned char *file, size_t file_size, const uint8_t *data, size_t size);

/* Write the bytes after the first as file `name`, or when the first is odd, `good` edited by them. */
void fuzz_write_text(const char *name, const char *good, const uint8_t *data, size_t size);

#endif
