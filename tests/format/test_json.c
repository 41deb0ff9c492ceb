#include "tests/format/files.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/format/json.h"

/* Parse from a heap copy without a NUL, so that the address sanitizer sees any byte read beyond the text. */
static int parse(struct json_doc **doc, const char *text, size_t length, struct plm_status *st)
{
    char *copy = malloc(length ? length : 1);
    assert_non_null(copy);
    memcpy(copy, text, length);
    int code = json_parse(doc, copy, length, "t.json", st);
    free(copy);
    return code;
}

static void test_accepts(void **state)
{
    (void)state;
    static const char *const good[] = {
        "null", " true ", "\t\r\nfalse\n", "0", "-0", "1.5e+3", "\"\"", "[]", "{}", "[ ]", "{ }", "[1,2]", "{\"\":{}}",
        "[[[]],{}]", "\"\\u0000\"", "\"\x7f\"",
        "\"\xc2\x80\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"",
        "{\"a\":1,\"A\":2,\"a\\u0000\":3}", "1e-400", "123456789012345678901234567890",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct json_doc *doc;
        struct plm_status st = {0};
        if (parse(&doc, good[i], strlen(good[i]), &st))
            fail_msg("%s: %s", good[i], st.message);
        json_free(doc);
    }
}

static void test_rejects(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"", "line 1, column 1: expected a value, found the end of the text"},
        {" \n ", "line 2, column 2: expected a value"},
        {"nul", "expected a value"},
        {"nulL", "expected a value"},
        {"tru", "expected a value"},
        {"[1,]", "column 4: expected a value, found ']'"},
        {"[,1]", "expected a value, found ','"},
        {"[1 2]", "expected ',' or ']', found '2'"},
        {"[1", "expected ',' or ']', found the end of the text"},
        {"{\"a\" 1}", "expected ':' after the key, found '1'"},
        {"{\"a\":1,}", "expected a key in double quotes, found '}'"},
        {"{a:1}", "expected a key in double quotes, found 'a'"},
        {"{\"a\":1]", "expected ',' or '}', found ']'"},
        {"{\n\"a\":\n  x}", "t.json: line 3, column 3: expected a value, found 'x'"},
        {"[1]]", "expected nothing after the value, found ']'"},
        {"1 1", "expected nothing after the value"},
        {"01", "leading zeros"},
        {"-", "expected a digit"},
        {"+1", "expected a value, found '+'"},
        {".5", "expected a value, found '.'"},
        {"1.", "digit after the decimal point"},
        {"1e", "digit in the exponent"},
        {"1e+", "digit in the exponent"},
        {"1e999", "number 1e999 is beyond the range"},
        {"NaN", "expected a value, found 'N'"},
        {"Infinity", "expected a value"},
        {"0x1", "nothing after the value"},
        {"'a'", "expected a value, found '''"},
        {"\"a", "column 1: the string that begins here has no closing quote"},
        {"\"a\\", "expected an escape, found the end"},
        {"\"\\x\"", "unknown escape"},
        {"\"\\u12g4\"", "four hexadecimal digits"},
        {"\"\\u12", "four hexadecimal digits"},
        {"\"\\ud800\"", "\\ud800 is one half of a surrogate pair"},
        {"\"\\ud800\\u0041\"", "surrogate pair"},
        {"\"\\udc00\\ud800\"", "\\udc00 is one half"},
        {"\"a\nb\"", "control character 0x0a in a string"},
        {"\"\x01\"", "control character 0x01"},
        {"\"\x80\"", "byte 0x80 is not valid UTF-8"},
        {"\"\xc0\x80\"", "not valid UTF-8"},
        {"\"\xe0\x9f\xbf\"", "not valid UTF-8"},
        {"\"\xed\xa0\x80\"", "not valid UTF-8"},
        {"\"\xf0\x8f\xbf\xbf\"", "not valid UTF-8"},
        {"\"\xf4\x90\x80\x80\"", "not valid UTF-8"},
        {"\"\xe2\x82\"", "not valid UTF-8"},
        {"\"\xc3\xa9\xc3\xa9\xff\"", "column 4: byte 0xff"},
        {"[\xc2\xa0]", "expected a value, found byte 0xc2"},
        {"\xef\xbb\xbf{}", "byte order mark"},
        {"{\"a\":1,\"b\":2,\"a\":3}", "has the key \"a\" twice"},
        {"{\"a\":1,\"\\u0061\":3}", "has the key \"a\" twice"},
        {"[{},{\"b\":{\"k\":1,\"k\":2}}]", "column 10: the object that begins here has the key \"k\" twice"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct json_doc *doc = (struct json_doc *)1;
        struct plm_status st = {0};
        if (parse(&doc, bad[i].text, strlen(bad[i].text), &st) == PLM_OK)
            fail_msg("accepted: %s", bad[i].text);
        assert_null(doc);
        assert_message(&st, PLM_EFORMAT, "t.json: line ", bad[i].message, NULL);
    }
}

static void test_empty_mapping(void **state)
{
    (void)state;
    struct json_doc *doc;
    struct plm_status st = {0};
    json_parse(&doc, NULL, 0, "t.json", &st);
    assert_message(&st, PLM_EFORMAT, "t.json: line 1, column 1: expected a value", NULL);
}

static void test_depth(void **state)
{
    (void)state;
    char text[200];
    struct json_doc *doc;
    struct plm_status st = {0};
    for (int depth = 63; depth <= 65; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        int code = parse(&doc, text, (size_t)depth * 2, &st);
        assert_int_equal(code, depth > 64 ? PLM_EUNSUPPORTED : PLM_OK);
        json_free(doc);
    }
    assert_message(&st, PLM_EUNSUPPORTED, "column 65: more than 64 nested", NULL);
}

static void test_values(void **state)
{
    (void)state;
    static const char text[] = "{\"s\":\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u20AC\\ud83d\\uDE00\\u0000z\","
                               "\"n\":[0,-7,9223372036854775807,-9223372036854775808,9223372036854775808,1.5,1e3,-0.1e-2],"
                               "\"o\":{\"x\":{\"y\":[]},\"z\":null},\"t\":true,\"f\":false}";
    struct json_doc *doc;
    assert_int_equal(parse(&doc, text, sizeof text - 1, NULL), PLM_OK);
    const struct json_value *root = json_root(doc);
    assert_int_equal(json_count(root), 5);

    size_t length;
    const char *s = json_as_string(json_get(root, "s"), &length);
    static const char want[] = "a\"\\/\b\f\n\r\t\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\0z";
    assert_int_equal(length, sizeof want - 1);
    assert_memory_equal(s, want, sizeof want); /* its NUL too */

    const struct json_value *v = json_first(json_get(root, "n"));
    static const int64_t integers[] = {0, -7, INT64_MAX, INT64_MIN};
    static const double numbers[] = {0, -7, 0x1p63, -0x1p63, 0x1p63, 1.5, 1000, -0.001};
    for (int i = 0; i < 8; i++, v = json_next(v)) {
        int64_t integer;
        double number;
        assert_int_equal(json_as_integer(v, &integer), i < 4);
        if (i < 4)
            assert_true(integer == integers[i]);
        assert_true(json_as_number(v, &number) && number == numbers[i]);
        assert_null(json_key(v, NULL));
    }
    assert_null(v);

    static const char *const keys[] = {"s", "n", "o", "t", "f"};
    int i = 0;
    for (const struct json_value *m = json_first(root); m; m = json_next(m))
        assert_string_equal(json_key(m, &length), keys[i++]);
    assert_int_equal(i, 5);
    assert_int_equal(json_typeof(json_get(json_get(json_get(root, "o"), "x"), "y")), JSON_ARRAY);
    assert_null(json_first(json_get(json_get(json_get(root, "o"), "x"), "y")));
    assert_int_equal(json_typeof(json_get(json_get(root, "o"), "z")), JSON_NULL);
    bool b;
    assert_true(json_as_bool(json_get(root, "t"), &b) && b && json_as_bool(json_get(root, "f"), &b) && !b);

    /* wrong types and NULL are answers, not crashes */
    assert_false(json_as_bool(root, &b));
    assert_false(json_as_number(json_get(root, "s"), &(double){0}));
    assert_null(json_as_string(root, &length));
    assert_null(json_get(json_get(root, "n"), "s"));
    assert_null(json_get(root, "missing"));
    assert_null(json_first(NULL));
    assert_null(json_next(NULL));
    assert_null(json_next(root));
    assert_int_equal(json_typeof(NULL), JSON_NULL);
    assert_int_equal(json_count(json_get(root, "s")), 0);
    json_free(doc);
    json_free(NULL);
}

/* The size of a real tokenizer.json's vocabulary: must not be quadratic. With `duplicate`, the last key repeats the first. */
static int parse_vocabulary(int n, bool duplicate, struct plm_status *st)
{
    struct json_buffer b = {0};
    json_put(&b, "{", 1);
    for (int i = 0; i < n; i++)
        json_printf(&b, "%s\"token%d\":%d", i ? "," : "", duplicate && i == n - 1 ? 0 : i, i);
    json_put(&b, "}", 1);
    assert_false(b.failed);
    struct json_doc *doc;
    int code = json_parse(&doc, b.data, b.length, "v.json", st);
    if (!code) {
        int64_t last;
        assert_int_equal(json_count(json_root(doc)), n);
        char key[32];
        snprintf(key, sizeof key, "token%d", n - 1);
        assert_true(json_as_integer(json_get(json_root(doc), key), &last) && last == n - 1);
    }
    json_free(doc);
    free(b.data);
    return code;
}

static void test_large_object(void **state)
{
    (void)state;
    struct plm_status st = {0};
    for (int n = 2; n < 40; n++) {
        assert_int_equal(parse_vocabulary(n, false, &st), PLM_OK);
        assert_int_equal(parse_vocabulary(n, true, &st), PLM_EFORMAT);
    }
    assert_int_equal(parse_vocabulary(152000, false, &st), PLM_OK);
    assert_int_equal(parse_vocabulary(152000, true, &st), PLM_EFORMAT);
    assert_message(&st, PLM_EFORMAT, "v.json: line 1, column 1", "\"token0\" twice", NULL);
}

static void test_damage(void **state)
{
    (void)state;
    static const char text[] = "{\"model\":{\"type\":\"B\\u0050E\",\"vocab\":{\"\xc4\xa0\":0,\"a\\ud83d\\ude00\":1},"
                               "\"merges\":[\"a b\",[\"c\",\"d\"]]},"
                               "\"x\":[1,-2.5e-3,null,true,false]}";
    struct json_doc *doc;
    for (size_t n = 0; n < sizeof text - 1; n++)
        assert_int_not_equal(parse(&doc, text, n, NULL), PLM_OK);
    for (size_t at = 0; at < sizeof text - 1; at++) {
        for (int byte = 0; byte < 256; byte++) {
            char copy[sizeof text];
            memcpy(copy, text, sizeof text);
            copy[at] = (char)byte;
            struct plm_status st = {0};
            int code = parse(&doc, copy, sizeof text - 1, &st);
            assert_true(code == PLM_OK || code == PLM_EFORMAT);
            assert_true(code == PLM_OK || strstr(st.message, "t.json: line "));
            json_free(doc);
        }
    }
}

static void test_write(void **state)
{
    (void)state;
    static const char text[] = "q\" b\\ \b\f\n\r\t\x01\x7f \0 \xc3\xa9\xf0\x9f\x98\x80/";
    struct json_buffer b = {0};
    json_put_string(&b, text, sizeof text - 1);
    assert_string_equal(b.data, "\"q\\\" b\\\\ \\b\\f\\n\\r\\t\\u0001\x7f \\u0000 \xc3\xa9\xf0\x9f\x98\x80/\"");
    struct json_doc *doc;
    size_t length;
    assert_int_equal(parse(&doc, b.data, b.length, NULL), PLM_OK);
    const char *back = json_as_string(json_root(doc), &length);
    assert_int_equal(length, sizeof text - 1);
    assert_memory_equal(back, text, length);
    json_free(doc);

    b.length = 0;
    json_put_string(&b, "a\xff\xe2\x82z", 5);
    assert_string_equal(b.data, "\"a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\"");
    b.length = 0;
    json_put_string(&b, "", 0);
    assert_string_equal(b.data, "\"\"");
    b.length = 0;
    for (int i = 0; i < 1000; i++)
        json_printf(&b, "%d,", i);
    assert_int_equal(b.length, 10 * 2 + 90 * 3 + 900 * 4);
    free(b.data);
}

static void check_float(float f, const char *want)
{
    struct json_buffer b = {0};
    json_put_float(&b, f);
    if (want)
        assert_string_equal(b.data, want);
    struct json_doc *doc;
    double back;
    assert_int_equal(parse(&doc, b.data, b.length, NULL), PLM_OK);
    assert_true(json_as_number(json_root(doc), &back) ? (float)back == f : !isfinite(f));
    json_free(doc);
    free(b.data);
}

static void test_floats(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++) {
        check_float(0.02f, "0.02");
        check_float(1e-6f, "1e-06");
        check_float(100000.0f, "100000.0");
        check_float(-3.0f, "-3.0");
        check_float(NAN, "null");
        check_float(16777217.0f / 3.0f, NULL);
        check_float(0x1.fffffep127f, NULL);
        check_float(0x1p-149f, NULL);
        if (!setlocale(LC_NUMERIC, "de_DE.UTF-8") && !setlocale(LC_NUMERIC, "fr_FR.UTF-8"))
            break; /* once more with a decimal comma, where such a locale is installed */
    }
    setlocale(LC_NUMERIC, "C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),      cmocka_unit_test(test_rejects), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_values),       cmocka_unit_test(test_damage),  cmocka_unit_test(test_write),
        cmocka_unit_test(test_large_object), cmocka_unit_test(test_floats),  cmocka_unit_test(test_empty_mapping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
