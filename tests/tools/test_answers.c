/* Answers in texts: extraction, normalisation, and Wilson's interval. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tools/eval_answer.h"
#include "tools/result.h"

static void expect(enum answer_rule rule, const char *text, const char *want)
{
    char *got;
    char *exact = malloc(strlen(text) + 1); /* without a NUL behind it in sight of the sanitizer */
    memcpy(exact, text, strlen(text));
    exact = realloc(exact, strlen(text) ? strlen(text) : 1);
    assert_int_equal(answer_extract(rule, exact, strlen(text), &got, NULL), PLM_OK);
    if (want) {
        assert_non_null(got);
        assert_string_equal(got, want);
    } else {
        assert_null(got);
    }
    free(got);
    free(exact);
}

static void last_number(void **state)
{
    (void)state;
    const char *const cases[][2] = {
        {"16 - 3 = 13 eggs, so $26.", "26"}, {"it is 1,080,000.00.", "1080000"}, {"-7", "-7"}, {"from 16-3", "3"}, {"a -12.50 b", "-12.5"},
        {"$-4", "-4"}, {"-$4", "-4"}, {"+007", "7"}, {"3/4", "0.75"}, {"9{,}500 m", "9500"}, {"0.0", "0"}, {"-0.00", "0"}, {".5 of it", "0.5"}, {"1.5.2", "0.2"}, {"10%", "10"}, {"3 2", "2"},
        {"1,2,3", "3"}, {"12,", "12"}, {"0", "0"}, {"000", "0"}, {"100", "100"}, {"no number", NULL}, {"", NULL}, {"-", NULL}, {"$.,", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect(ANSWER_LAST_NUMBER, cases[i][0], cases[i][1]);
}

static void gsm8k(void **state)
{
    (void)state;
    expect(ANSWER_GSM8K, "9 * 2 = 18\n#### 18", "18");
    expect(ANSWER_GSM8K, "#### $1,234.50 and 7", "1234.5");
    expect(ANSWER_GSM8K, "####\n-3\n#### 4", "-3");
    expect(ANSWER_GSM8K, "the answer is 18", NULL);
    expect(ANSWER_GSM8K, "18 ####", NULL);
    expect(ANSWER_GSM8K, "18 #### none", NULL);
}

static void lines(void **state)
{
    (void)state;
    expect(ANSWER_LINE, "\n  \n  Paris.  \nand more", "Paris");
    expect(ANSWER_LINE, "1,000.", "1000");
    expect(ANSWER_LINE, " \n", NULL);
    expect(ANSWER_ALL, " two\nlines. ", "two\nlines");
    expect(ANSWER_ALL, ".", NULL);
    expect(ANSWER_ALL, "12 eggs", "12 eggs");
    expect(ANSWER_ALL, "3.0", "3");
}

static void interval(void **state)
{
    (void)state;
    double low, high;
    wilson_interval(5, 10, &low, &high); /* binom.confint(5, 10, methods = "wilson") of R */
    assert_float_equal(low, 0.2365931, 1e-6);
    assert_float_equal(high, 0.7634069, 1e-6);
    wilson_interval(0, 20, &low, &high);
    assert_float_equal(low, 0, 1e-12);
    assert_float_equal(high, 0.1611252, 1e-6);
    wilson_interval(20, 20, &low, &high);
    assert_float_equal(low, 1 - 0.1611252, 1e-6);
    assert_float_equal(high, 1, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(last_number), cmocka_unit_test(gsm8k), cmocka_unit_test(lines), cmocka_unit_test(interval)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
