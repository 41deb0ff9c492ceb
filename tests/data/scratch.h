/* A temporary directory for one test, files in it, and shards of known content. */
#ifndef TESTS_DATA_SCRATCH_H
#define TESTS_DATA_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

/* cmocka fixtures: *state becomes the directory's path. */
int scratch_setup(void **state);
int scratch_teardown(void **state);

/* "DIR/NAME", in a static ring of 8 buffers. */
const char *scratch_path(void **state, const char *name);

void write_file(const char *path, const void *data, size_t n);
unsigned char *read_whole(const char *path, size_t *n); /* malloc'ed */

#define TEST_SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* A shard of n_documents documents of 1 + (random below max_length) tokens. Token i of document d is a function of (salt, d, i):
 * document_token; the last is eos = 0. */
struct test_shard {
    uint32_t salt;
    int64_t n_documents, max_length, chunk_tokens, vocab_size;
    int n_threads;
};
int64_t document_length(const struct test_shard *t, int64_t document);
int32_t document_token(const struct test_shard *t, int64_t document, int64_t i);
void write_shard(const char *path, const struct test_shard *t);

#endif
