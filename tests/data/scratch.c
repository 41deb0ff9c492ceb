#include "tests/data/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <ftw.h>
#include <unistd.h>

#include "data/shard.h"
#include "infer/base/random.h"

int scratch_setup(void **state)
{
    const char *base = getenv("TMPDIR");
    char *path;
    if (asprintf(&path, "%s/plm-test-XXXXXX", base ? base : P_tmpdir) < 0 || !mkdtemp(path))
        return -1;
    *state = path;
    return 0;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *place)
{
    (void)info, (void)type, (void)place;
    return remove(path);
}

int scratch_teardown(void **state)
{
    int code = nftw(*state, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(*state);
    return code;
}

const char *scratch_path(void **state, const char *name)
{
    static char ring[8][4096];
    static int next;
    char *path = ring[next++ % 8];
    snprintf(path, sizeof ring[0], "%s/%s", (char *)*state, name);
    return path;
}

void write_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

unsigned char *read_whole(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    unsigned char *data = malloc(*n + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *n, f), *n);
    data[*n] = 0;
    fclose(f);
    return data;
}

int64_t document_length(const struct test_shard *t, int64_t document)
{
    return 1 + (int64_t)(random_u64(t->salt, RANDOM_TEST, 0, (uint64_t)document) % (uint64_t)t->max_length);
}

int32_t document_token(const struct test_shard *t, int64_t document, int64_t i)
{
    if (i == document_length(t, document) - 1)
        return 0;
    return 1 + (int32_t)(random_u64(t->salt, RANDOM_TEST, 1 + (uint32_t)document, (uint64_t)i) % (uint64_t)(t->vocab_size - 1));
}

void write_shard(const char *path, const struct test_shard *t)
{
    struct plm_status st = {0};
    struct shard_writer *w;
    struct shard_writer_options o = {.tokenizer_sha256 = TEST_SHA, .name = "test", .vocab_size = t->vocab_size, .bos_id = -1,
                                     .eos_id = 0, .pad_id = -1, .seed = t->salt, .chunk_tokens = t->chunk_tokens,
                                     .n_threads = t->n_threads};
    if (shard_writer_create(&w, path, &o, &st))
        fail_msg("%s", st.message);
    int32_t *tokens = malloc((size_t)t->max_length * sizeof *tokens);
    for (int64_t d = 0; d < t->n_documents; d++) {
        int64_t n = document_length(t, d);
        for (int64_t i = 0; i < n; i++)
            tokens[i] = document_token(t, d, i);
        if (shard_writer_append(w, tokens, n, 3 * n, &st))
            fail_msg("%s", st.message);
    }
    free(tokens);
    if (shard_writer_finish(w, NULL, &st))
        fail_msg("%s", st.message);
}
