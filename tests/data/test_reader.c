/* Readers: kinds of files, dirt that is counted, damage that is an error, and bounded memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "data/reader.h"
#include "data/utf8.h"
#include "infer/base/log.h"
#include "tests/data/scratch.h"

static void quiet(void *user, enum log_level level, const char *line)
{
    (void)level;
    strncat(user, line, 4000 - strlen(user));
}

static char logged[4096];

static int setup(void **state)
{
    logged[0] = 0;
    log_set_sink(quiet, logged);
    return scratch_setup(state);
}

static int teardown(void **state)
{
    log_set_sink(NULL, NULL);
    return scratch_teardown(state);
}

static void put(void **state, const char *name, const char *text)
{
    write_file(scratch_path(state, name), text, strlen(text));
}

static void put_gzip(void **state, const char *name, const char *text, size_t n)
{
    gzFile f = gzopen(scratch_path(state, name), "wb");
    assert_non_null(f);
    assert_int_equal(gzwrite(f, text, (unsigned)n), n);
    gzclose(f);
}

static void put_zstd(void **state, const char *name, const char *text, size_t n)
{
    size_t bound = ZSTD_compressBound(n);
    void *to = malloc(bound);
    size_t size = ZSTD_compress(to, bound, text, n, 3);
    assert_false(ZSTD_isError(size));
    write_file(scratch_path(state, name), to, size);
    free(to);
}

/* All documents joined by '|'; the statistics too. malloc'ed. */
static char *read_all(const char *path, const struct reader_options *o, struct reader_stats *stats)
{
    struct plm_status st = {0};
    struct reader *r;
    if (reader_open(&r, &path, 1, o, &st))
        fail_msg("%s", st.message);
    char *all = calloc(1, 1);
    size_t n = 0;
    for (;;) {
        struct document doc;
        if (reader_next(r, &doc, &st))
            fail_msg("%s", st.message);
        if (!doc.text)
            break;
        assert_int_equal(utf8_valid_prefix(doc.text, doc.length), doc.length);
        all = realloc(all, n + doc.length + 2);
        memcpy(all + n, doc.text, doc.length);
        n += doc.length;
        all[n++] = '|';
        all[n] = 0;
    }
    *stats = *reader_statistics(r);
    reader_close(r);
    return all;
}

static void expect_text(const char *path, const struct reader_options *o, const char *expected, struct reader_stats *stats)
{
    char *all = read_all(path, o, stats);
    assert_string_equal(all, expected);
    free(all);
}

static void test_kinds(void **state)
{
    struct reader_stats stats;
    put(state, "b.txt", "\xEF\xBB\xBFplain text\n");
    put(state, "a.md", "# Markdown\n\nbody\n");
    put(state, "c.jsonl", "{\"text\": \"one\"}\n{\"id\": 1, \"text\": \"two\\n2\"}\n\n{\"text\": \"three\"}");
    put(state, ".hidden", "hidden");
    mkdir(scratch_path(state, "dir"), 0777);
    put(state, "dir/z.c", "int x;\n");
    put_gzip(state, "dir/y.ndjson.gz", "{\"text\":\"zipped\"}\n", 18);
    put_zstd(state, "dir/x.txt.zst", "frame", 5);
    assert_int_equal(symlink("..", scratch_path(state, "dir/cycle")), 0);
    assert_int_equal(symlink("../a.md", scratch_path(state, "dir/link.md")), 0);
    expect_text(*state, NULL, "# Markdown\n\nbody\n|plain text\n|one|two\n2|three|# Markdown\n\nbody\n|frame|zipped|int x;\n|",
                &stats);
    assert_int_equal(stats.files, 7);
    assert_int_equal(stats.ignored_files, 1);
    assert_int_equal(stats.documents, 9);
    assert_int_equal(stats.bytes, 17 + 11 + 3 + 5 + 5 + 17 + 5 + 6 + 7);
}

static void test_dirty_json(void **state)
{
    struct reader_stats stats;
    put(state, "d.jsonl", "{\"text\": \"ok\"}\r\n{broken\n[1]\n{\"body\": \"x\"}\n{\"text\": 7}\n{\"text\": \"  \"}\n"
                          "{\"text\": \"\"}\n{\"text\": \"a\\u0000b\"}\n{\"text\": \"\xff!\"}\n\"text\"\n{\"text\": \"last\"}\n");
    expect_text(scratch_path(state, "d.jsonl"), NULL, "ok|a\xEF\xBF\xBD" "b|\xEF\xBF\xBD!|last|", &stats);
    assert_int_equal(stats.bad_json, 3);
    assert_int_equal(stats.missing_field, 1);
    assert_int_equal(stats.wrong_type, 1);
    assert_int_equal(stats.empty, 2);
    assert_int_equal(stats.repaired_documents, 2);
    assert_int_equal(stats.repaired_sequences, 2);
    assert_non_null(strstr(logged, "d.jsonl:2: not a JSON object"));
    assert_non_null(strstr(logged, "d.jsonl:4: the text field"));
    assert_non_null(strstr(logged, "only counted")); /* the third bad line */
    expect_text(scratch_path(state, "d.jsonl"), &(struct reader_options){.text_field = "body"}, "x|", &stats);
    expect_text(scratch_path(state, "d.jsonl"), &(struct reader_options){.max_line = 17}, "ok|\xEF\xBF\xBD!|last|", &stats);
    assert_int_equal(stats.long_lines, 1);
}

static void test_dirty_text(void **state)
{
    struct reader_stats stats;
    write_file(scratch_path(state, "a.bin"), "MZ\0\0\1", 5);
    put(state, "b.txt", " \n\t");
    put(state, "c.txt", "");
    put(state, "d.txt", "caf\xe9 \xc3\xa9 \xed\xa0\x80 \xf0\x9f\x98");
    expect_text(*state, NULL, "caf\xEF\xBF\xBD \xc3\xa9 \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD \xEF\xBF\xBD|", &stats);
    assert_int_equal(stats.binary_files, 1);
    assert_int_equal(stats.empty, 2);
    assert_int_equal(stats.repaired_documents, 1);
    assert_int_equal(stats.repaired_sequences, 5);
}

/* Every sequence of up to four bytes from the interesting ones against a slow, literal decoder. */
static int slow_valid(const unsigned char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t c = s[i], least;
        int more = c < 0x80 ? 0 : c < 0xC0 ? -1 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : c < 0xF8 ? 3 : -1;
        if (more < 0 || i + (size_t)more >= n || s[i] == 0)
            return 0;
        c &= more == 0 ? 0x7F : more == 1 ? 0x1F : more == 2 ? 0x0F : 0x07;
        for (int k = 1; k <= more; k++) {
            if ((s[i + (size_t)k] & 0xC0) != 0x80)
                return 0;
            c = c << 6 | (s[i + (size_t)k] & 0x3F);
        }
        least = more == 1 ? 0x80 : more == 2 ? 0x800 : more == 3 ? 0x10000 : 0;
        if (c < least || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
            return 0;
        i += (size_t)more + 1;
    }
    return 1;
}

static void test_utf8(void **state)
{
    (void)state;
    static const unsigned char bytes[] = {0, 'a', 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1,
                                          0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF};
    enum { N = sizeof bytes };
    for (int i = 0; i < N * N * N * N; i++) {
        unsigned char s[12] = {bytes[i % N], bytes[i / N % N], bytes[i / N / N % N], bytes[i / N / N / N], 'x', 'y', 'z',
                               'x', 'y', 'z'};
        char out[36];
        for (size_t n = 4; n <= 10; n += 6) {
            assert_int_equal(utf8_valid_prefix((char *)s, n) == n, slow_valid(s, n));
            int64_t replaced = 0;
            size_t length = utf8_repair((char *)s, n, out, &replaced);
            assert_true(length <= 3 * n && utf8_valid_prefix(out, length) == length);
            assert_int_equal(replaced == 0, slow_valid(s, n));
        }
    }
}

/* Long documents: pieces within the limit, cut at the best place, nothing lost. */
static void test_cut(void **state)
{
    struct reader_stats stats;
    put(state, "a.txt", "first paragraph\n\nsecond line\nthird line of words without an endéééééééééééééé");
    struct reader_options o = {.max_document = 25};
    expect_text(scratch_path(state, "a.txt"), &o,
                "first paragraph\n\n|second line\nthird line |of words without an |endééééééééééé|ééé|", &stats);
    assert_int_equal(stats.cut, 1);
    put(state, "b.jsonl", "{\"text\": \"first paragraph\\n\\nsecond line\\n third\"}\n{\"text\": \"next\"}\n");
    expect_text(scratch_path(state, "b.jsonl"), &o, "first paragraph\n\n|second line\n third|next|", &stats);
    assert_int_equal(stats.cut, 1);
    put(state, "c.txt", "0123456789012345678901234      \n\n                             ");
    expect_text(scratch_path(state, "c.txt"), &o, "0123456789012345678901234|", &stats);
    assert_int_equal(stats.empty, 0);
}

static int next_until_error(const char *path, struct plm_status *st)
{
    struct reader *r;
    struct document doc;
    int code = reader_open(&r, &path, 1, NULL, st);
    if (code)
        return code;
    while (!(code = reader_next(r, &doc, st)) && doc.text) {
    }
    reader_close(r);
    return code;
}

static void test_damaged(void **state)
{
    struct plm_status st = {0};
    char text[20000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = i % 61 ? (char)('a' + i * i % 23) : '\n';
    put_gzip(state, "a.txt.gz", text, sizeof text);
    put_zstd(state, "b.txt.zst", text, sizeof text);
    static const char *const names[] = {"a.txt.gz", "b.txt.zst"};
    for (int k = 0; k < 2; k++) {
        const char *path = scratch_path(state, names[k]);
        size_t n;
        unsigned char *data = read_whole(path, &n);
        assert_int_equal(next_until_error(path, &st), PLM_OK);
        for (size_t length = 0; length < n; length += 1 + n / 50) {
            write_file(path, data, length);
            assert_int_equal(next_until_error(path, &st), PLM_EFORMAT);
            assert_non_null(strstr(st.message, "truncated"));
            assert_non_null(strstr(st.message, names[k]));
        }
        data[n / 2] ^= 0x55;
        write_file(path, data, n);
        if (k == 0) /* a plain zstd frame has no checksum */
            assert_int_equal(next_until_error(path, &st), PLM_EFORMAT);
        write_file(path, text, 300);
        assert_int_equal(next_until_error(path, &st), PLM_EFORMAT);
        assert_non_null(strstr(st.message, "damaged or not"));
        free(data);
    }
    assert_int_equal(next_until_error(scratch_path(state, "missing"), &st), PLM_EIO);
    struct reader *r;
    assert_int_equal(reader_open(&r, NULL, 0, NULL, &st), PLM_EINVAL);
}

/* Concatenated members and frames are one stream; zero padding may follow gzip. */
static void test_concatenated(void **state)
{
    struct reader_stats stats;
    static const char *const names[] = {"a.txt.gz", "b.txt.zst"};
    put_gzip(state, names[0], "first ", 6);
    put_zstd(state, names[1], "first ", 6);
    for (int k = 0; k < 2; k++) {
        const char *path = scratch_path(state, names[k]);
        size_t n;
        unsigned char *data = read_whole(path, &n), *twice = calloc(2 * n + 512, 1);
        memcpy(twice, data, n);
        memcpy(twice + n, data, n);
        write_file(path, twice, 2 * n + (k == 0 ? 512 : 0));
        expect_text(path, NULL, "first first |", &stats);
        free(data);
        free(twice);
    }
}

/* A gigabyte of one letter in a few kB, as text and as one JSON line, with little memory. */
static void test_bomb(void **state)
{
#if defined(__SANITIZE_ADDRESS__)
    skip(); /* its own memory would be counted */
#endif
    enum { BLOCK = 1 << 20 };
    char *block = malloc(BLOCK);
    memset(block, 'a', BLOCK);
    static const char *const names[] = {"bomb.txt.zst", "bomb.jsonl.zst"};
    for (int k = 0; k < 2; k++) {
        FILE *f = fopen(scratch_path(state, names[k]), "wb");
        size_t bound = ZSTD_compressBound(BLOCK);
        char *to = malloc(bound);
        size_t size = ZSTD_compress(to, bound, block, BLOCK, 1);
        for (int i = 0; i < 1024; i++)
            assert_int_equal(fwrite(to, 1, size, f), size);
        fclose(f);
        free(to);
    }
    free(block);
    pid_t child = fork();
    if (child == 0) {
        struct rusage before;
        getrusage(RUSAGE_SELF, &before);
        struct plm_status st = {0};
        int code = next_until_error(scratch_path(state, names[0]), &st);
        code = code ? code : next_until_error(scratch_path(state, names[1]), &st);
        struct rusage after;
        getrusage(RUSAGE_SELF, &after);
        _exit(code ? 1 : after.ru_maxrss - before.ru_maxrss > 200 << 10 ? 2 : 0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dirty_json, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dirty_text, setup, teardown),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test_setup_teardown(test_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_concatenated, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bomb, setup, teardown),
    };
    return cmocka_run_group_tests_name("reader", tests, NULL, NULL);
}
