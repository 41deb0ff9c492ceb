/* Rows of JSON lines and of arrays: lines are counted right, compressed files and byte order marks are read, damage is said to be where it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>

#include "data/json_rows.h"
#include "tests/data/scratch.h"

/* What reading gives, as "LINE:VALUE of n" and "LINE!" for errors, "!" for a final one; the last message in st. */
static const char *read_all(const char *path, struct plm_status *st)
{
    static char out[4096];
    struct json_rows *rows;
    size_t n = 0;
    assert_int_equal(json_rows_open(&rows, path, st), PLM_OK);
    out[0] = 0;
    for (;;) {
        json_t *row;
        int64_t line;
        const int code = json_rows_next(rows, &row, &line, st);
        if (!code && !row)
            break;
        if (!code)
            n += (size_t)snprintf(out + n, sizeof out - n, "%lld:%lld ", (long long)line, (long long)json_integer_value(json_object_get(row, "n")));
        else
            n += (size_t)(line ? snprintf(out + n, sizeof out - n, "%lld! ", (long long)line) : snprintf(out + n, sizeof out - n, "! "));
        if (code && line == 0) { /* and it stays so */
            assert_int_not_equal(json_rows_next(rows, &row, &line, NULL), PLM_OK);
            assert_null(row);
            break;
        }
    }
    json_rows_close(rows);
    return out;
}

static const char *read_text(void **state, const char *name, const char *text, struct plm_status *st)
{
    const char *path = scratch_path(state, name);
    write_file(path, text, strlen(text));
    return read_all(path, st);
}

static void test_lines(void **state)
{
    struct plm_status st;
    assert_string_equal(read_text(state, "a.jsonl", "{\"n\": 1}\n\n  \t\r\n{\"n\": 2}\r\n{\"n\":3}", &st), "1:1 4:2 5:3 ");
    assert_string_equal(read_text(state, "a.jsonl", "\xEF\xBB\xBF{\"n\": 1}\n", &st), "1:1 ");
    assert_string_equal(read_text(state, "a.jsonl", "", &st), "");
    assert_string_equal(read_text(state, "a.jsonl", "\n\n", &st), "");
    assert_string_equal(read_text(state, "a.jsonl", "{\"n\": 1}\n{\"n\": \n{\"n\": 3}\n[4]\n5\n{\"n\": 6, \"n\": 7}\n{\"n\": 8}x\n{\"n\": 9}\n", &st),
                        "1:1 2! 3:3 4! 5! 6! 7! 8:9 ");
    /* how it begins says what it is, not its name */
    assert_string_equal(read_text(state, "a.json", " \n{\"n\": 1}\n{\"n\": 2}\n", &st), "2:1 3:2 ");
    assert_string_equal(read_text(state, "a.jsonl", "[{\"n\": 1},\n{\"n\": 2}]\n", &st), "1:1 2:2 ");
    assert_string_equal(read_text(state, "a.jsonl", "{\"n\": 1}]\n", &st), "1! ");
    assert_non_null(strstr(st.message, "a.jsonl:1: not JSON"));
}

static void test_array(void **state)
{
    struct plm_status st;
    assert_string_equal(read_text(state, "a.json", "\xEF\xBB\xBF \n[\n  {\"n\": 1, \"s\": \"],}\\\"[\"},{\"n\": 2,\n\"a\": [\n[{}], {}]\n},\n\n{\"n\": 3}\n]\n\n", &st), "3:1 3:2 8:3 ");
    assert_string_equal(read_text(state, "a.json", "[]", &st), "");
    assert_string_equal(read_text(state, "a.json", "[\n]\n", &st), "");
    assert_string_equal(read_text(state, "a.json", "[{\"n\": 1}, 2,\n{\"n\": 3}]", &st), "1:1 1! 2:3 ");
    static const char *const broken[][3] = {
        {"[{\"n\": 1},\n{\"n\": 2", "1:1 ! ", "a.json:2: the array ends in the middle"},
        {"[{\"n\": 1},\n{\"n\": 2}", "1:1 2:2 ! ", "a.json:2: the array ends without"},
        {"[{\"n\": 1},\n", "1:1 ! ", "a.json:2: the array ends without"},
        {"[", "! ", "a.json:1: the array ends without"},
        {"[{\"n\": 1}\n{\"n\": 2}]", "1:1 ! ", "a.json:2: expected ',' or ']'"},
        {"[{\"n\": 1},\n{\"n\": 2},]", "1:1 2:2 ! ", "a.json:2: a comma before"},
        {"[{\"n\": 1},,{\"n\": 2}]", "1:1 ! ", "a.json:1: a value is missing"},
        {"[{\"n\": 1}] x", "1:1 ! ", "a.json:1: text after the array"},
        {"[{\"n\": 1},\n{\n\"n\": x}]", "1:1 ! ", "a.json:3: not JSON"},
        {"[{\"n\": 1}}", "1:1 ! ", "a.json:1: expected ',' or ']'"},
        {"[\"]", "! ", NULL},
        {"[\"\\", "! ", NULL},
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        assert_string_equal(read_text(state, "a.json", broken[i][0], &st), broken[i][1]);
        if (broken[i][2] && !strstr(st.message, broken[i][2]))
            fail_msg("case %zu: \"%s\"", i, st.message);
    }
}

/* Objects that span lines, one after the other; what a line that is broken does not become. */
static void test_objects(void **state)
{
    struct plm_status st;
    assert_string_equal(read_text(state, "a.json", "{\n  \"n\": 1,\n  \"m\": [\n1]\n}\n{\n\"n\": 2 }\n\n{\"n\": 3}", &st), "1:1 6:2 9:3 ");
    assert_string_equal(read_text(state, "a.json", "{\"n\":\n1}", &st), "1:1 ");
    assert_string_equal(read_text(state, "a.json", "{\n\"n\": 1}\n{\"n\": 2", &st), "1:1 ! ");
    assert_non_null(strstr(st.message, "the file ends in the middle of a row"));
    assert_string_equal(read_text(state, "a.json", "{\n\"n\": 1}\nx", &st), "1:1 ! ");
    assert_string_equal(read_text(state, "a.jsonl", "{\"n\": [1, \n{\"n\": 2}\n", &st), "1! 2:2 ");
    assert_string_equal(read_text(state, "a.jsonl", "{\"n\": \"1\n{\"n\": 2}\n", &st), "1! 2:2 ");
}

/* What programs write and strict JSON refuses does not cost the row; what is read of it is valid. */
static void test_repairs(void **state)
{
    struct plm_status st;
    assert_string_equal(read_text(state, "a.jsonl", "{\"n\": 1, \"x\": NaN}\n{\"n\": 2, \"x\": [-Infinity, 1e999, 18446744073709551616, -99999999999999999999]}\n"
                                  "{\"n\": 3, \"s\": \"\\ud800 \\u0000 \\udc00\\ud83d\\ude00 \xFF\"}\n{\"n\": 4, \"x\": NaNs}\n{\"n\": 5, \"s\": \"\\uZZZZ\"}\n", &st),
                        "1:1 2:2 3:3 4! 5! ");
    struct json_rows *rows;
    json_t *row;
    int64_t line;
    assert_int_equal(json_rows_open(&rows, scratch_path(state, "a.jsonl"), &st), PLM_OK);
    assert_int_equal(json_rows_next(rows, &row, &line, &st), PLM_OK);
    assert_true(json_is_null(json_object_get(row, "x")));
    assert_int_equal(json_rows_next(rows, &row, &line, &st), PLM_OK);
    assert_true(json_real_value(json_array_get(json_object_get(row, "x"), 2)) == 18446744073709551616.0);
    assert_int_equal(json_rows_next(rows, &row, &line, &st), PLM_OK);
    assert_string_equal(json_string_value(json_object_get(row, "s")),
                        "\xEF\xBF\xBD \xEF\xBF\xBD \xEF\xBF\xBD\xF0\x9F\x98\x80 \xEF\xBF\xBD");
    assert_int_equal(json_rows_repairs(rows)->characters, 4);
    assert_int_equal(json_rows_repairs(rows)->numbers, 3);
    json_rows_close(rows);
    assert_int_equal(json_rows_open(&rows, scratch_path(state, "a.jsonl"), &st), PLM_OK);
    json_rows_limit(rows, 30);
    assert_int_equal(json_rows_next(rows, &row, &line, &st), PLM_OK);
    assert_int_equal(json_rows_next(rows, &row, &line, &st), PLM_ELIMIT);
    assert_int_equal(line, 2);
    assert_int_equal(json_rows_next(rows, &row, &line, &st), PLM_ELIMIT);
    assert_int_equal(json_rows_next(rows, &row, &line, &st), PLM_EFORMAT);
    assert_int_equal(line, 4);
    json_rows_close(rows);
}

/* Lines around the sizes of the buffers, and longer than them. */
static void test_long_lines(void **state)
{
    struct plm_status st;
    const char *path = scratch_path(state, "long.jsonl");
    for (size_t n = 65536 - 20; n < 400000; n = n < 65560 ? n + 1 : 2 * n + 1) {
        char *text = malloc(2 * n + 100);
        size_t length = 0;
        for (int i = 1; i <= 2; i++) {
            length += (size_t)sprintf(text + length, "{\"n\": %d, \"s\": \"", i);
            memset(text + length, 'x', n);
            length += n;
            length += (size_t)sprintf(text + length, "\"}\n");
        }
        write_file(path, text, length);
        assert_string_equal(read_all(path, &st), "1:1 2:2 ");
        free(text);
    }
}

static void test_compressed(void **state)
{
    static const char text[] = "[{\"n\": 1},\n{\"n\": 2}]";
    struct plm_status st;
    char packed[256];
    const size_t n = ZSTD_compress(packed, sizeof packed, text, sizeof text - 1, 3);
    write_file(scratch_path(state, "a.json.zst"), packed, n);
    assert_string_equal(read_all(scratch_path(state, "a.json.zst"), &st), "1:1 2:2 ");
    gzFile f = gzopen(scratch_path(state, "a.jsonl.gz"), "wb");
    assert_int_equal(gzputs(f, "{\"n\": 1}\n{\"n\": 2}\n"), 18);
    gzclose(f);
    assert_string_equal(read_all(scratch_path(state, "a.jsonl.gz"), &st), "1:1 2:2 ");
    size_t size;
    unsigned char *bytes = read_whole(scratch_path(state, "a.jsonl.gz"), &size);
    write_file(scratch_path(state, "cut.jsonl.gz"), bytes, size - 4);
    free(bytes);
    const char *out = read_all(scratch_path(state, "cut.jsonl.gz"), &st);
    assert_string_equal(out + strlen(out) - 2, "! ");
    assert_non_null(strstr(st.message, "truncated"));
    struct json_rows *rows;
    assert_int_equal(json_rows_open(&rows, scratch_path(state, "none.jsonl"), &st), PLM_EIO);
    assert_null(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lines, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_objects, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_repairs, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_array, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_long_lines, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_compressed, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
