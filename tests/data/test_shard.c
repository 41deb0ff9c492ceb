/* Shards: round trips, the readers of others, hostile bytes, and a disk that refuses. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <hdf5.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/hdf5_lock.h"
#include "data/shard.h"
#include "data/zstd_filter.h"
#include "infer/base/random.h"
#include "tests/data/scratch.h"

/* HDF5 1.10 itself leaks when it refuses a malformed file. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5";
}

static const struct test_shard narrow = {.salt = 1, .n_documents = 300, .max_length = 90, .chunk_tokens = 1000, .vocab_size = 500,
                                         .n_threads = 2};

/* Every document of the shard against what was written. */
static void check_content(const char *path, const struct test_shard *t)
{
    struct plm_status st = {0};
    struct shard *s;
    if (shard_open(&s, path, &st))
        fail_msg("%s", st.message);
    const struct shard_info *info = shard_information(s);
    assert_int_equal(info->n_documents, t->n_documents);
    assert_int_equal(info->vocab_size, t->vocab_size);
    assert_int_equal(info->token_bytes, t->vocab_size <= 65536 ? 2 : 4);
    assert_int_equal(info->text_bytes, 3 * info->n_tokens);
    assert_string_equal(info->tokenizer_sha256, TEST_SHA);
    assert_string_equal(info->name, "test");
    struct shard_decoder *decoder;
    assert_int_equal(shard_decoder_create(&decoder, &st), PLM_OK);
    size_t bytes = (size_t)(info->chunk_tokens * info->token_bytes);
    unsigned char *all = malloc(bytes * (size_t)info->n_chunks);
    for (int64_t c = 0; c < info->n_chunks; c++)
        if (shard_read_chunk(s, c, decoder, all + (size_t)c * bytes, &st))
            fail_msg("%s", st.message);
    const uint64_t *offsets = shard_doc_offsets(s);
    for (int64_t d = 0; d < t->n_documents; d++) {
        assert_int_equal(offsets[d + 1] - offsets[d], document_length(t, d));
        for (uint64_t i = offsets[d]; i < offsets[d + 1]; i++) {
            int64_t token = info->token_bytes == 2 ? ((uint16_t *)all)[i] : (int64_t)((uint32_t *)all)[i];
            assert_int_equal(token, document_token(t, d, (int64_t)(i - offsets[d])));
        }
    }
    assert_int_equal(shard_read_chunk(s, info->n_chunks, decoder, all, &st), PLM_EINVAL);
    free(all);
    shard_decoder_free(decoder);
    shard_close(s);
}

static void test_round_trip(void **state)
{
    const char *path = scratch_path(state, "a.h5");
    struct test_shard wide = narrow, single = narrow, exact = {.salt = 3, .n_documents = 64, .max_length = 1, .chunk_tokens = 16,
                                                               .vocab_size = 9};
    write_shard(path, &narrow);
    check_content(path, &narrow);
    wide.vocab_size = 70000;
    write_shard(path, &wide); /* over the existing one */
    check_content(path, &wide);
    single.n_threads = 0;
    write_shard(path, &single);
    check_content(path, &single);
    write_shard(path, &exact); /* the last chunk is full */
    check_content(path, &exact);
    assert_int_not_equal(access(scratch_path(state, "a.h5.tmp"), F_OK), 0);
}

/* The bytes do not depend on the number of threads or the time. */
static void test_deterministic(void **state)
{
    const char *a = scratch_path(state, "a.h5"), *b = scratch_path(state, "b.h5");
    struct test_shard single = narrow;
    single.n_threads = 0;
    write_shard(a, &narrow);
    sleep(1); /* no time stamps either */
    write_shard(b, &single);
    size_t n, m;
    unsigned char *x = read_whole(a, &n), *y = read_whole(b, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

/* HDF5 itself reads the tokens through our filter. */
static void test_filter(void **state)
{
    const char *path = scratch_path(state, "a.h5");
    write_shard(path, &narrow);
    struct hdf5_session session;
    hdf5_enter(&session);
    H5Zregister(zstd_filter_class());
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), set = H5Dopen2(file, "tokens", H5P_DEFAULT);
    hid_t space = H5Dget_space(set);
    hsize_t n = 0;
    H5Sget_simple_extent_dims(space, &n, NULL);
    uint16_t *tokens = malloc(n * sizeof *tokens);
    assert_true(H5Dread(set, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, tokens) >= 0);
    for (int64_t d = 0, at = 0; d < narrow.n_documents; d++)
        for (int64_t i = 0; i < document_length(&narrow, d); i++)
            assert_int_equal(tokens[at++], document_token(&narrow, d, i));
    H5Sclose(space);
    H5Dclose(set);
    H5Fclose(file);
    /* and the encoding side */
    const char *other = scratch_path(state, "b.h5");
    file = H5Fcreate(other, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    unsigned level = 5;
    H5Pset_chunk(creation, 1, &(hsize_t){1000});
    H5Pset_filter(creation, ZSTD_FILTER_ID, H5Z_FLAG_MANDATORY, 1, &level);
    space = H5Screate_simple(1, &n, NULL);
    set = H5Dcreate2(file, "x", H5T_STD_U16LE, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    assert_true(H5Dwrite(set, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, tokens) >= 0);
    uint16_t *back = calloc(n, sizeof *back);
    assert_true(H5Dclose(set) >= 0 && (set = H5Dopen2(file, "x", H5P_DEFAULT)) >= 0);
    assert_true(H5Dread(set, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, back) >= 0);
    assert_memory_equal(tokens, back, n * sizeof *back);
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(creation);
    H5Fclose(file);
    hdf5_leave(&session);
    free(tokens);
    free(back);
}

/* Frames that a hostile file may hold: no size, a huge size, damage. The filter must refuse and leave the buffer. */
static void test_filter_hostile(void **state)
{
    (void)state;
    const H5Z_class2_t *filter = zstd_filter_class();
    static const unsigned char frames[][16] = {
        {0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x58, 0x01, 0x00, 0x00},                                     /* unknown size */
        {0x28, 0xB5, 0x2F, 0xFD, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0x01, 0x00}, /* exabytes */
        {0x28, 0xB5, 0x2F, 0xFD, 0xA0, 0x00, 0x01, 0x00, 0x00, 0xFF, 0xFF, 0xFF},                   /* 256 bytes, damaged */
        {0},
    };
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        void *buf = malloc(16);
        memcpy(buf, frames[i], 16);
        size_t size = 16;
        assert_int_equal(filter->filter(H5Z_FLAG_REVERSE, 2, (unsigned[]){3, 1 << 20}, 16, &size, &buf), 0);
        assert_int_equal(size, 16);
        free(buf);
    }
}

static void test_h5dump(void **state)
{
    const char *plugins = getenv("PLM_HDF5_PLUGINS");
    if (!plugins || system("h5dump --version > /dev/null 2>&1") != 0)
        skip();
    const char *path = scratch_path(state, "a.h5"), *text = scratch_path(state, "dump.txt");
    write_shard(path, &narrow);
    char *command;
    assert_true(asprintf(&command, "HDF5_PLUGIN_PATH='%s' h5dump -d /tokens -y -w 1 -o '%s' '%s' > /dev/null", plugins, text,
                         path) > 0);
    assert_int_equal(system(command), 0);
    free(command);
    FILE *f = fopen(text, "r");
    assert_non_null(f);
    for (int64_t d = 0; d < narrow.n_documents; d++)
        for (int64_t i = 0; i < document_length(&narrow, d); i++) {
            int value = -1;
            assert_int_equal(fscanf(f, " %d ,", &value) >= 1, 1);
            assert_int_equal(value, document_token(&narrow, d, i));
        }
    fclose(f);
}

/* Open and decode everything; true when all was accepted. Tokens that were accepted must be the original ones. */
static bool accepts(const char *path, const struct test_shard *t)
{
    struct plm_status st = {0};
    struct shard *s;
    if (shard_open(&s, path, &st)) {
        assert_true(st.message[0] != 0);
        return false;
    }
    const struct shard_info *info = shard_information(s);
    struct shard_decoder *decoder;
    assert_int_equal(shard_decoder_create(&decoder, &st), PLM_OK);
    uint16_t *tokens = malloc((size_t)(info->chunk_tokens * info->token_bytes));
    bool ok = true;
    for (int64_t c = 0, d = 0, i = 0; ok && c < info->n_chunks; c++) {
        ok = shard_read_chunk(s, c, decoder, tokens, &st) == PLM_OK;
        for (int64_t k = 0; ok && k < info->chunk_tokens && d < t->n_documents; k++) {
            assert_int_equal(tokens[k], document_token(t, d, i));
            if (++i == document_length(t, d)) {
                assert_int_equal(shard_doc_offsets(s)[d + 1], (uint64_t)(c * info->chunk_tokens + k + 1));
                d++;
                i = 0;
            }
        }
    }
    assert_true(!ok || (info->n_documents == t->n_documents && !strcmp(info->tokenizer_sha256, TEST_SHA) &&
                        info->eos_id == 0 && info->text_bytes == 3 * info->n_tokens && info->vocab_size == t->vocab_size));
    free(tokens);
    shard_decoder_free(decoder);
    shard_close(s);
    return ok;
}

static void test_truncated(void **state)
{
    const char *path = scratch_path(state, "a.h5"), *cut = scratch_path(state, "cut.h5");
    write_shard(path, &narrow);
    size_t n;
    unsigned char *data = read_whole(path, &n);
    assert_true(accepts(path, &narrow));
    for (size_t length = 0; length < n; length += length < 128 || n - length < 64 ? 1 : 97) {
        write_file(cut, data, length);
        assert_false(accepts(cut, &narrow));
    }
    free(data);
}

static void test_mutated(void **state)
{
    const char *path = scratch_path(state, "a.h5"), *bad = scratch_path(state, "bad.h5");
    struct test_shard small = narrow;
    small.n_documents = 60;
    write_shard(path, &small);
    size_t n;
    unsigned char *data = read_whole(path, &n), *copy = malloc(n);
    int rejected = 0;
    for (uint32_t round = 0; round < 1500; round++) {
        memcpy(copy, data, n);
        for (uint32_t k = 0; k <= round % 3; k++) {
            uint64_t r = random_u64(7, RANDOM_TEST, round, k);
            copy[(r >> 16) % n] ^= (unsigned char)(1 + r % 255);
        }
        write_file(bad, copy, n);
        rejected += !accepts(bad, &small);
    }
    assert_true(rejected > 300); /* the rest hit bytes that nothing refers to */
    free(copy);
    free(data);
}

/* A shard that HDF5 finds perfect and whose content is wrong: written with HDF5's own calls over ours. */
static void patch_attribute(const char *path, const char *name, int64_t value)
{
    struct hdf5_session session;
    hdf5_enter(&session);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    assert_true(H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0);
    H5Aclose(attribute);
    assert_true(H5Fclose(file) >= 0);
    hdf5_leave(&session);
}

static void expect_error(const char *path, int code, const char *words)
{
    struct plm_status st = {0};
    struct shard *s;
    assert_int_equal(shard_open(&s, path, &st), code);
    assert_null(s);
    if (!strstr(st.message, words))
        fail_msg("message '%s' does not say '%s'", st.message, words);
}

static void test_wrong_content(void **state)
{
    static const struct {
        const char *name;
        int64_t value;
        const char *words;
    } cases[] = {
        {"complete", 0, "never completed"}, {"format_version", 9, "version 9"}, {"n_tokens", 1, "contradict"},
        {"n_documents", 5, "another shape"}, {"n_documents", INT64_MAX, "expected"}, {"chunk_tokens", 999, "chunk"},
        {"chunk_tokens", 0, "chunk_tokens"}, {"vocab_size", 70000, "4-byte"}, {"stored_bytes", 7, "add up"},
        {"vocab_size", -1, "vocab_size"}, {"doc_offsets_xxh3", 1, "checksum of /doc_offsets"},
    };
    const char *path = scratch_path(state, "a.h5");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_shard(path, &narrow);
        patch_attribute(path, cases[i].name, cases[i].value);
        expect_error(path, cases[i].value == 9 ? PLM_EUNSUPPORTED : PLM_EFORMAT, cases[i].words);
    }
    expect_error(scratch_path(state, "none.h5"), PLM_EIO, "No such file");
    expect_error(*state, PLM_EINVAL, "not a regular file");
    write_file(path, "hello, this is not an HDF5 file, though it is long enough to be", 63);
    expect_error(path, PLM_EFORMAT, "signature");

    /* tokens beyond the vocabulary are caught when a chunk is decoded */
    write_shard(path, &narrow);
    patch_attribute(path, "vocab_size", 100);
    struct plm_status st = {0};
    struct shard *s;
    struct shard_decoder *decoder;
    assert_int_equal(shard_open(&s, path, &st), PLM_OK);
    assert_int_equal(shard_decoder_create(&decoder, &st), PLM_OK);
    uint16_t tokens[1000];
    assert_int_equal(shard_read_chunk(s, 0, decoder, tokens, &st), PLM_EFORMAT);
    assert_non_null(strstr(st.message, "outside the vocabulary of 100"));
    shard_decoder_free(decoder);
    shard_close(s);
}

/* A link where a dataset should be. */
static void test_links(void **state)
{
    const char *path = scratch_path(state, "a.h5");
    for (int soft = 0; soft < 2; soft++) {
        write_shard(path, &narrow);
        struct hdf5_session session;
        hdf5_enter(&session);
        hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        assert_true(H5Lmove(file, "tokens", file, "hidden", H5P_DEFAULT, H5P_DEFAULT) >= 0);
        if (soft)
            H5Lcreate_soft("/hidden", file, "tokens", H5P_DEFAULT, H5P_DEFAULT);
        else
            H5Lcreate_external("a.h5", "/hidden", file, "tokens", H5P_DEFAULT, H5P_DEFAULT);
        assert_true(H5Fclose(file) >= 0);
        hdf5_leave(&session);
        expect_error(path, PLM_EFORMAT, "link");
    }
}

static void test_writer_errors(void **state)
{
    const char *path = scratch_path(state, "a.h5");
    struct plm_status st = {0};
    struct shard_writer *w;
    struct shard_writer_options o = {.tokenizer_sha256 = TEST_SHA, .vocab_size = 10, .chunk_tokens = 4, .bos_id = -1, .eos_id = 0,
                                     .pad_id = -1};
    assert_int_equal(shard_writer_create(&w, path, &o, &st), PLM_OK);
    assert_int_equal(shard_writer_append(w, (int32_t[]){1, 10}, 2, 2, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "token 10 at position 1"));
    assert_int_equal(shard_writer_finish(w, NULL, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "no document"));
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(shard_writer_create(&w, path, &o, &st), PLM_OK);
    int32_t zeros[4 * SHARD_MAX_CHUNKS + 1] = {0};
    assert_int_equal(shard_writer_append(w, zeros, 4 * SHARD_MAX_CHUNKS + 1, 2, &st), PLM_ELIMIT);
    assert_int_equal(shard_writer_append(w, zeros, 4 * SHARD_MAX_CHUNKS, 2, &st), PLM_OK);
    assert_int_equal(shard_writer_room(w), 0);
    assert_int_equal(shard_writer_finish(w, NULL, &st), PLM_OK);
    o.tokenizer_sha256 = "abc";
    assert_int_equal(shard_writer_create(&w, path, &o, &st), PLM_EINVAL);
    o.tokenizer_sha256 = TEST_SHA;
    assert_int_equal(shard_writer_create(&w, scratch_path(state, "no/such/dir/a.h5"), &o, &st), PLM_EIO);
    assert_non_null(strstr(st.message, "No such file"));
}

/* In a child whose files may not grow beyond `limit` bytes: the write must fail, say so, and leave nothing. */
static void write_limited(const char *path, rlim_t limit)
{
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, limit});
    struct plm_status st = {0};
    struct shard_writer *w = NULL;
    struct shard_writer_options o = {.tokenizer_sha256 = TEST_SHA, .vocab_size = 500, .chunk_tokens = 1000, .bos_id = -1,
                                     .eos_id = 0, .pad_id = -1, .n_threads = 1};
    int code = shard_writer_create(&w, path, &o, &st);
    for (int64_t d = 0; !code && d < narrow.n_documents; d++) {
        int32_t tokens[128];
        int64_t n = document_length(&narrow, d);
        for (int64_t i = 0; i < n; i++)
            tokens[i] = document_token(&narrow, d, i);
        code = shard_writer_append(w, tokens, n, n, &st);
    }
    if (code)
        shard_writer_abort(w);
    else
        code = shard_writer_finish(w, NULL, &st);
    exit(code == PLM_EIO && strstr(st.message, "File too large") ? 7 : code ? 8 : 0); /* exit: HDF5 must also shut down */
}

static void test_disk_full(void **state)
{
    const char *path = scratch_path(state, "full.h5");
    write_shard(path, &narrow);
    size_t n;
    free(read_whole(path, &n));
    unlink(path);
    for (rlim_t limit = 16; limit < n; limit += limit < 256 || n - limit < 600 ? 41 : 1777) {
        pid_t child = fork();
        if (child == 0)
            write_limited(path, limit);
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 7);
        assert_int_not_equal(access(path, F_OK), 0);
        assert_int_not_equal(access(scratch_path(state, "full.h5.tmp"), F_OK), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_disk_full, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_round_trip, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_deterministic, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_filter, scratch_setup, scratch_teardown),
        cmocka_unit_test(test_filter_hostile),
        cmocka_unit_test_setup_teardown(test_h5dump, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_truncated, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_mutated, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_wrong_content, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_links, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_writer_errors, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests_name("shard", tests, NULL, NULL);
}
