/* NFC against utf8proc, an implementation with its own tables and algorithm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <utf8proc.h>

#include "infer/text/nfc.h"
#include "infer/text/utf8.h"
#include "tests/text/random_text.h"

static void compare(struct nfc *nfc, const char *text, size_t length)
{
    uint8_t *expected = NULL;
    const char *out;
    size_t n;
    ssize_t n_expected = utf8proc_map((const uint8_t *)text, (ssize_t)length, &expected, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    assert_true(n_expected >= 0);
    assert_int_equal(nfc_normalize(nfc, text, length, &out, &n, NULL), 0);
    assert_int_equal(n, n_expected);
    assert_memory_equal(out, expected, n);
    free(expected);
}

static void test_random(void **state)
{
    (void)state;
    struct random_source r = {.seed = 3};
    struct nfc nfc = {0};
    char text[160];
    for (int i = 0; i < 60000; i++)
        compare(&nfc, text, random_text(&r, 40, text));
    nfc_free(&nfc);
}

/* Conjoining Jamo and syllables in every order. */
static void test_hangul(void **state)
{
    (void)state;
    struct random_source r = {.seed = 4};
    struct nfc nfc = {0};
    char text[64];
    for (int i = 0; i < 40000; i++) {
        size_t n = 0;
        for (int k = 0; k < 8; k++) {
            static const uint32_t first[] = {0x1100, 0x1160, 0x11A8, 0xAC00, 0x300}, count[] = {24, 24, 30, 11172, 3};
            size_t kind = random_below(&r, 5);
            n += utf8_encode(first[kind] + (uint32_t)random_below(&r, count[kind]), (unsigned char *)text + n);
        }
        compare(&nfc, text, n);
    }
    nfc_free(&nfc);
}

static void test_every_point(void **state)
{
    (void)state;
    struct nfc nfc = {0};
    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        char text[16] = "a";
        size_t n = 1 + utf8_encode(c, (unsigned char *)text + 1);
        n += utf8_encode(0x0301, (unsigned char *)text + n);
        n += utf8_encode(c, (unsigned char *)text + n);
        compare(&nfc, text, n);
    }
    nfc_free(&nfc);
}

static void test_unchanged_is_not_copied(void **state)
{
    (void)state;
    static const char text[] = "plain, caf\u00E9, \u4F60\u597D, \uAC01, \xFF broken \xC3";
    struct nfc nfc = {0};
    const char *out;
    size_t n;
    assert_int_equal(nfc_normalize(&nfc, text, sizeof text - 1, &out, &n, NULL), 0);
    assert_ptr_equal(out, text);
    assert_int_equal(n, sizeof text - 1);
    assert_null(nfc.text);
}

/* U+11A7 is no trailing consonant although the arithmetic starts there. (utf8proc 2.8 deletes it after a syllable, so the
 * comparisons above leave it out.) */
static void test_before_first_trailing_consonant(void **state)
{
    (void)state;
    static const char text[] = "\u1100\u1161\u11A7", expected[] = "\uAC00\u11A7";
    struct nfc nfc = {0};
    const char *out;
    size_t n;
    assert_int_equal(nfc_normalize(&nfc, text, sizeof text - 1, &out, &n, NULL), 0);
    assert_int_equal(n, sizeof expected - 1);
    assert_memory_equal(out, expected, n);
    nfc_free(&nfc);
}

/* Nothing composes across a byte that is not UTF-8, and the byte stays. */
static void test_broken_bytes(void **state)
{
    (void)state;
    static const char text[] = "e\xFF\u0301 e\u0301\xC3 A\u030A\xED\xA0\x80\u0301";
    static const char expected[] = "e\xFF\u0301 \u00E9\xC3 \u00C5\xED\xA0\x80\u0301";
    struct random_source r = {.seed = 5};
    struct nfc nfc = {0};
    const char *out;
    char bytes[300];
    size_t n;
    assert_int_equal(nfc_normalize(&nfc, text, sizeof text - 1, &out, &n, NULL), 0);
    assert_int_equal(n, sizeof expected - 1);
    assert_memory_equal(out, expected, n);
    for (int i = 0; i < 3000; i++) {
        size_t length = random_below(&r, sizeof bytes);
        random_broken_bytes(&r, length, bytes);
        assert_int_equal(nfc_normalize(&nfc, bytes, length, &out, &n, NULL), 0);
        assert_int_equal(n, length);
        assert_memory_equal(out, bytes, n);
    }
    nfc_free(&nfc);
}

/* A million marks in the worst order: sorting them must not be quadratic. */
static void test_many_marks(void **state)
{
    (void)state;
    size_t n_marks = 1000000, n, used = 1;
    unsigned char *text = malloc(2 * n_marks + 1);
    struct nfc nfc = {0};
    const char *out;
    text[0] = 'q';
    for (size_t i = 0; i < n_marks; i++)
        used += utf8_encode(i % 2 ? 0x0323 : 0x0301, text + used); /* classes 220 and 230 */
    assert_int_equal(nfc_normalize(&nfc, (char *)text, used, &out, &n, NULL), 0);
    assert_int_equal(n, used);
    for (size_t i = 0; i < n_marks; i++)
        assert_memory_equal(out + 1 + 2 * i, i < n_marks / 2 ? "\u0323" : "\u0301", 2);
    free(text);
    nfc_free(&nfc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random),     cmocka_unit_test(test_hangul),
                                       cmocka_unit_test(test_every_point), cmocka_unit_test(test_unchanged_is_not_copied),
                                       cmocka_unit_test(test_before_first_trailing_consonant),
                                       cmocka_unit_test(test_broken_bytes), cmocka_unit_test(test_many_marks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
