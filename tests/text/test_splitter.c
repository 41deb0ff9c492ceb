/* The splitter against recorded splits, and against a backtracking matcher that follows the regular expression literally. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <utf8proc.h>

#include "infer/text/splitter.h"
#include "infer/text/utf8.h"
#include "tests/text/random_text.h"

/* --- the reference: items of a regular expression, matched greedily with backtracking --- */

enum what { END, NEWLINE, SPACE, NOT_SPACE, LETTER, DIGIT, OTHER, PREFIX, BLANK, QUOTE, S, T, R, E, V, M, L, D };

struct item {
    enum what what;
    int min, max; /* max -1: no limit */
    bool not_ahead;
};

#define MORE -1
static const struct item pattern[][4] = {
    {{QUOTE, 1, 1}, {S, 1, 1}},
    {{QUOTE, 1, 1}, {T, 1, 1}},
    {{QUOTE, 1, 1}, {R, 1, 1}, {E, 1, 1}},
    {{QUOTE, 1, 1}, {V, 1, 1}, {E, 1, 1}},
    {{QUOTE, 1, 1}, {M, 1, 1}},
    {{QUOTE, 1, 1}, {L, 1, 1}, {L, 1, 1}},
    {{QUOTE, 1, 1}, {D, 1, 1}},
    {{PREFIX, 0, 1}, {LETTER, 1, MORE}},
    {{DIGIT, 1, 1}},
    {{BLANK, 0, 1}, {OTHER, 1, MORE}, {NEWLINE, 0, MORE}},
    {{SPACE, 0, MORE}, {NEWLINE, 1, MORE}},
    {{SPACE, 1, MORE}, {NOT_SPACE, 1, 1, true}},
    {{SPACE, 1, MORE}},
};

static bool is_space(uint32_t c)
{
    static const uint32_t white_space[] = {0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x20, 0x85, 0xA0, 0x1680, 0x2000, 0x2001, 0x2002, 0x2003,
                                           0x2004, 0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F,
                                           0x3000};
    for (size_t i = 0; i < sizeof white_space / sizeof white_space[0]; i++)
        if (c == white_space[i])
            return true;
    return false;
}

static bool has_category(uint32_t c, char letter)
{
    return !(c & UTF8_INVALID) && utf8proc_category_string((int32_t)c)[0] == letter;
}

static bool accepts(enum what what, uint32_t c)
{
    switch (what) {
    case NEWLINE: return c == '\r' || c == '\n';
    case SPACE: return is_space(c);
    case NOT_SPACE: return !is_space(c);
    case LETTER: return has_category(c, 'L');
    case DIGIT: return has_category(c, 'N');
    case OTHER: return !is_space(c) && !has_category(c, 'L') && !has_category(c, 'N');
    case PREFIX: return c != '\r' && c != '\n' && !has_category(c, 'L') && !has_category(c, 'N');
    case BLANK: return c == ' ';
    case QUOTE: return c == '\'';
    case S: return c == 's' || c == 'S' || c == 0x17F;
    case T: return c == 't' || c == 'T';
    case R: return c == 'r' || c == 'R';
    case E: return c == 'e' || c == 'E';
    case V: return c == 'v' || c == 'V';
    case M: return c == 'm' || c == 'M';
    case L: return c == 'l' || c == 'L';
    case D: return c == 'd' || c == 'D';
    case END: break;
    }
    return false;
}

/* Position after matching items from `at`, -1 without a match. */
static int match(const struct item *item, const uint32_t *points, int n, int at)
{
    if (item->what == END)
        return at;
    if (item->not_ahead)
        return at < n && accepts(item->what, points[at]) ? -1 : match(item + 1, points, n, at);
    int count = 0;
    while ((item->max == MORE || count < item->max) && at + count < n && accepts(item->what, points[at + count]))
        count++;
    for (; count >= item->min; count--) {
        int end = match(item + 1, points, n, at + count);
        if (end >= 0)
            return end;
    }
    return -1;
}

static int reference_next(const uint32_t *points, int n, int at)
{
    for (size_t i = 0; i < sizeof pattern / sizeof pattern[0]; i++) {
        struct item items[5] = {0};
        memcpy(items, pattern[i], sizeof pattern[i]);
        int end = match(items, points, n, at);
        if (end > at)
            return end;
    }
    return -1;
}

static void compare(const char *text, size_t length)
{
    uint32_t points[512];
    size_t start[513];
    int n = 0, at = 0;
    for (size_t i = 0; i < length; n++) {
        start[n] = i;
        i += utf8_decode((const unsigned char *)text + i, length - i, &points[n]);
    }
    start[n] = length;
    for (size_t i = 0; i < length;) {
        size_t end = splitter_next(text, length, i);
        at = reference_next(points, n, at);
        assert_true(at > 0);
        if (end != start[at])
            print_message("pre-token at byte %zu ends at %zu, the regular expression's at %zu\n", i, end, start[at]);
        assert_int_equal(end, start[at]);
        i = end;
    }
}

static void test_random_text(void **state)
{
    (void)state;
    struct random_source r = {.seed = 1};
    char text[160];
    for (int i = 0; i < 40000; i++)
        compare(text, random_text(&r, 40, text));
}

static void test_random_bytes(void **state)
{
    (void)state;
    struct random_source r = {.seed = 2};
    char text[200];
    for (int i = 0; i < 10000; i++) {
        size_t n = random_below(&r, sizeof text / 2);
        random_broken_bytes(&r, n, text);
        n += random_text(&r, 20, text + n);
        compare(text, n);
    }
}

/* Every code point where its class decides: alone, before a letter, after a space, after a newline. */
static void test_every_point(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        char text[32] = "a1 ";
        size_t n = 3;
        n += utf8_encode(c, (unsigned char *)text + n);
        n += utf8_encode(c, (unsigned char *)text + n);
        memcpy(text + n, "x\n", 2);
        n += 2;
        n += utf8_encode(c, (unsigned char *)text + n);
        compare(text, n);
    }
}

/* --- recorded: what the regular expression means, written down by hand (data.md 1.7) --- */

#define TEXT(s) s, sizeof(s) - 1

static void check(const char *text, size_t length, const char *const *expected)
{
    size_t at = 0;
    for (; *expected; expected++) {
        assert_true(at < length);
        size_t end = splitter_next(text, length, at);
        assert_int_equal(end - at, strlen(*expected));
        assert_memory_equal(text + at, *expected, end - at);
        at = end;
    }
    assert_int_equal(at, length);
}

#define SPLITS(text, ...) check(TEXT(text), (const char *const[]){__VA_ARGS__, NULL})

static void test_recorded(void **state)
{
    (void)state;
    SPLITS("Hello, world! 12345", "Hello", ",", " world", "!", " ", "1", "2", "3", "4", "5");
    SPLITS("  spaced  text\n", " ", " spaced", " ", " text", "\n");
    SPLITS("I'm you'RE 'twas he'dn't", "I", "'m", " you", "'RE", " '", "twas", " he", "'d", "n", "'t");
    SPLITS("it'\u017F it's 'reality", "it", "'\u017F", " it", "'s", " '", "reality");
    SPLITS("'real", "'re", "al");
    SPLITS("'\u017Fa", "'\u017F", "a");
    SPLITS("a   b", "a", "  ", " b");
    SPLITS("a\t\tb", "a", "\t", "\tb");
    SPLITS("a   ", "a", "   ");
    SPLITS("a   1", "a", "  ", " ", "1");
    SPLITS("a \u3000\u3000!", "a", " \u3000", "\u3000", "!"); /* one code point is given back, not one byte */
    SPLITS("a \n \n  b", "a", " \n \n", " ", " b");
    SPLITS("a\r\n\r\n\tb", "a", "\r\n\r\n", "\tb");
    SPLITS(" \n ", " \n", " ");
    SPLITS("x;\n\n  y", "x", ";\n\n", " ", " y");
    SPLITS("(!!abc", "(!!", "abc");
    SPLITS("!abc!", "!abc", "!");
    SPLITS(" \u180E\u180E ", " \u180E\u180E", " "); /* not white space: a symbol */
    SPLITS("a\u180Eb", "a", "\u180Eb");
    SPLITS("\xC2\x85\xC2\x85x", "\xC2\x85", "\xC2\x85x"); /* white space, but no newline */
    SPLITS("\u00B2\u2167x", "\u00B2", "\u2167", "x");
    SPLITS("e\u0301a", "e", "\u0301a"); /* a mark is neither letter nor space */
    SPLITS("\xFF\xFE" "ab\xC3", "\xFF\xFE", "ab", "\xC3");
    SPLITS("\u4F60\u597D\uFF0C\u4E16\u754C", "\u4F60\u597D", "\uFF0C\u4E16\u754C");
    SPLITS("'", "'");
    SPLITS("'\xC5", "'\xC5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_recorded), cmocka_unit_test(test_random_text),
                                       cmocka_unit_test(test_random_bytes), cmocka_unit_test(test_every_point)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
