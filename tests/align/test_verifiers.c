/* Rules that read answers: what each says a text says, and when that is the reference's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "infer/base/random.h"
#include "train/align/decimal.h"
#include "train/align/verifiers.h"

#define N(a) (sizeof(a) / sizeof *(a))

struct reading {
    const char *text, *key; /* NULL: it says nothing */
};

static void expect_readings(const struct verifier *v, const struct reading *r, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char *key;
        assert_int_equal(verifier_extract(v, r[i].text, &key, NULL), PLM_OK);
        if ((key == NULL) != (r[i].key == NULL) || (key && strcmp(key, r[i].key) != 0))
            fail_msg("'%s' says '%s', expected '%s'", r[i].text, key ? key : "nothing", r[i].key ? r[i].key : "nothing");
        free(key);
    }
}

static bool checks(const struct verifier *v, const char *reference, const char *text)
{
    bool correct;
    struct plm_status st = {0};
    if (verifier_check(v, reference, text, &correct, &st))
        fail_msg("'%s' against '%s': %s", text, reference ? reference : "-", st.message);
    return correct;
}

static void numbers_have_one_shortest_form(void **state)
{
    (void)state;
    static const struct reading r[] = {
        {"5", "5"}, {"5.0", "5"}, {"5.00", "5"}, {"05", "5"}, {"+5", "5"}, {"-5", "-5"}, {"$5", "5"}, {"-$5", "-5"}, {"$-5", "-5"}, {".5", "0.5"},
        {"0.50", "0.5"}, {"-0", "0"}, {"-0.000", "0"}, {"000", "0"}, {"1,080.00.", "1080"}, {"1080,", "1080"}, {" 72 ", "72"}, {"100", "100"},
        {"1e3", "1000"}, {"1.5e3", "1500"}, {"25e-4", "0.0025"}, {"-2.50E+1", "-25"}, {"0.00120e2", "0.12"}, {"0e300", "0"},
        {"123456789012345678901234567890.10", "123456789012345678901234567890.1"},
        {"1.2.3", NULL}, {"", NULL}, {"-", NULL}, {".", NULL}, {"$", NULL}, {"--5", NULL}, {"5-", NULL}, {"5 6", NULL}, {"five", NULL}, {"1e", NULL},
        {"1e999", NULL}, {"1e3x", NULL}, {"$$5", NULL},
    };
    for (size_t i = 0; i < N(r); i++) {
        char out[DECIMAL_ROOM + 64] = "untouched";
        const bool is = decimal_normalise(r[i].text, strlen(r[i].text), out);
        if (is != (r[i].key != NULL) || (is && strcmp(out, r[i].key) != 0))
            fail_msg("'%s' became '%s', expected '%s'", r[i].text, is ? out : "no number", r[i].key ? r[i].key : "no number");
    }
}

/* A double's digits, written in many ways, all come to the same shortest form, which is the same double. */
static void shortest_forms_keep_the_value(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 20000; i++) {
        const int64_t digits = (int64_t)(random_u64(7, RANDOM_TEST, i, 0) % 1000000000), places = (int64_t)(random_u64(7, RANDOM_TEST, i, 1) % 10);
        const int64_t shift = (int64_t)(random_u64(7, RANDOM_TEST, i, 2) % 41) - 20;
        char text[96], moved[96], a[DECIMAL_ROOM + 96], b[DECIMAL_ROOM + 96];
        int64_t scale = 1;
        for (int64_t p = 0; p < places; p++)
            scale *= 10;
        const char *sign = random_u64(7, RANDOM_TEST, i, 3) % 2 ? "-" : "";
        snprintf(text, sizeof text, "%s%lld.%0*llde%lld", sign, (long long)(digits / scale), (int)places, (long long)(places ? digits % scale : 0),
                 (long long)shift);
        snprintf(moved, sizeof moved, "%s000%llde%lld", sign, (long long)digits, (long long)(shift - places));
        assert_true(decimal_normalise(text, strlen(text), a) && decimal_normalise(moved, strlen(moved), b));
        if (strcmp(a, b) != 0 || strtod(a, NULL) != strtod(moved, NULL) + 0.0)
            fail_msg("%s -> %s, %s -> %s", text, a, moved, b);
        char again[DECIMAL_ROOM + 96];
        assert_true(decimal_normalise(a, strlen(a), again));
        assert_string_equal(a, again);
    }
}

static void the_last_number_is_found(void **state)
{
    (void)state;
    const struct verifier v = {.kind = VERIFY_NUMBER};
    static const struct reading r[] = {
        {"It costs $1,080.", "1080"}, {"16-3", "3"}, {"x = -3", "-3"}, {"(-3)", "-3"}, {"1,2,3", "3"}, {"1,234,567", "1234567"}, {"1234,567", "567"},
        {"12,34", "34"}, {"is 5.0 apples", "5"}, {"is .5", "0.5"}, {"v2", "2"}, {"no number", NULL}, {"", NULL}, {"3/4", "0.75"}, {"5%", "5"},
        {"-$7.50 in all.", "-7.5"}, {"1.2.3", "0.3"}, {"6.02e23 things", "602000000000000000000000"}, {"7 ... ", "7"}, {"2-4 --5", "5"}, {"\xC3\xA9" "9", "9"},
    };
    expect_readings(&v, r, N(r));
    assert_true(checks(&v, "the answer is 1,234.50", "1234.5"));
    assert_false(checks(&v, "0.1", "0.10000000000000001"));
    assert_false(checks(&v, "9007199254740993", "9007199254740992")); /* the same double */
}

static void gsm8k_follows_verl(void **state)
{
    (void)state;
    struct verifier v = {.kind = VERIFY_GSM8K};
    static const struct reading r[] = {
        {"so 4 + 4 = 8\n#### 8", "8"}, {"#### 1,080.", "1080"}, {"#### -5", "-5"}, {"#### $12.50", "12.5"}, {"#### 1\n#### 2", "2"}, {"#### 3 and ####", "3"},
        {"####7", "7"}, {"The answer is 7", NULL}, {"### 7", NULL}, {"#### seven 7", NULL}, {"", NULL}, {"###", NULL}, {"#### 1.2.3", NULL}, {"##### 9", "9"},
    };
    expect_readings(&v, r, N(r));
    char far[700] = "#### 8 ";
    memset(far + 7, 'x', 293);
    assert_true(checks(&v, "#### 8", far)); /* 300 characters from the end */
    memset(far + 7, 'x', 294);
    assert_false(checks(&v, "#### 8", far));
    strcpy(far, "#### 8 ");
    for (int i = 0; i < 293; i++)
        strcat(far, "\xC3\xA9"); /* characters, not bytes */
    assert_true(checks(&v, "#### 8", far));
    assert_true(checks(&v, "#### 5.00", "#### 5"));
    assert_true(checks(&v, "5", "#### 5.0")); /* a bare reference */
    v.flexible = true;
    assert_true(checks(&v, "#### 7", "The answer is 7"));
    assert_true(checks(&v, "#### 8", "7 #### 8 then 9")); /* what follows the mark goes first */
}

static void boxes_nest(void **state)
{
    (void)state;
    const struct verifier v = {.kind = VERIFY_BOXED};
    static const struct reading r[] = {
        {"\\boxed{42}", "42"}, {"\\boxed{\\frac{x}{2}}", "\\frac{x}{2}"}, {"\\boxed{1} then \\boxed{ 2 }", "2"}, {"\\boxed{1,080.00}", "1080"},
        {"\\boxed{x + 1}", "x+1"}, {"\\boxed{\\{1,2\\}}", "\\{1,2\\}"}, {"\\boxed{10\\,000}", "10000"}, {"\\fbox{7}", "7"}, {"\\boxed {8}", "8"}, {"$\\boxed{\\$5}$", "5"},
        {"\\boxed{a", NULL}, {"\\boxed{}", NULL}, {"\\boxed", NULL}, {"boxed{3}", NULL}, {"\\boxed{1} \\boxed{2", "1"}, {"\\boxed{\\boxed{3}}", "3"}, {"\\boxed{\\", NULL}, {"", NULL},
    };
    expect_readings(&v, r, N(r));
    assert_true(checks(&v, "Therefore $\\boxed{\\frac12}$.", "\\boxed{\\frac 12}"));
    assert_true(checks(&v, "\\frac{1}{2}", "\\boxed{ \\frac{1}{2} }")); /* a bare reference */
    assert_true(checks(&v, "5", "\\boxed{5.0}"));
    assert_false(checks(&v, "5", "5"));
}

static void letters_are_chosen(void **state)
{
    (void)state;
    const struct verifier v = {.kind = VERIFY_CHOICE};
    static const struct reading r[] = {
        {"(B)", "B"}, {"B.", "B"}, {"B", "B"}, {"b", "B"}, {"B) because it is", "B"}, {"The answer is B", "B"}, {"answer: B", "B"}, {"The answer is (c).", "C"},
        {"Answer: **D**", "D"}, {"the correct answer is option A.", "A"}, {"The answer is A because (B) is wrong", "A"}, {"It is not (A), so (B).", "B"},
        {"\\boxed{C}", "C"}, {"The answer is \\boxed{\\text{C}}", "C"}, {"First I thought.\n\nB", "B"}, {"Some words\n(D)", "D"}, {"B: blue", "B"}, {"**B**", "B"},
        {"Answer A: no. The answer is B.", "B"}, {"the answer is a cat", NULL}, {"I think so", NULL}, {"I'm sure", NULL}, {"Both are", NULL}, {"", NULL}, {"42", NULL},
        {"A cat sat", NULL}, {"the answer is unknown", NULL}, {"answers vary", NULL},
    };
    expect_readings(&v, r, N(r));
    assert_true(checks(&v, "B", "answer is (b)"));
    assert_false(checks(&v, "(B)", "A"));
}

static void texts_are_the_same(void **state)
{
    (void)state;
    struct verifier v = {.kind = VERIFY_EXACT};
    assert_true(checks(&v, "Paris", "  Paris\n"));
    assert_false(checks(&v, "Paris", "paris"));
    assert_false(checks(&v, "Paris", "Paris."));
    assert_false(checks(&v, "Paris", "   "));
    v.ignore_case = true;
    assert_true(checks(&v, "Paris", "PARIS"));
    assert_false(checks(&v, "the end", "end"));
    v.normalise = true;
    assert_true(checks(&v, "The  Eiffel-Tower", "an eiffeltower!"));
    assert_true(checks(&v, "Theatre", "theatre"));
    assert_false(checks(&v, "a b", "a c"));
    static const struct reading r[] = {{"The A an", NULL}, {"...", NULL}, {"A the x an y", "x y"}, {"caf\xC3\xA9.", "caf\xC3\xA9"}};
    expect_readings(&v, r, N(r));
}

static void patterns_match(void **state)
{
    (void)state;
    struct verifier v = {.kind = VERIFY_REGEX};
    struct plm_status st = {0};
    assert_int_equal(verifier_regex(&v, "^Answer: *([a-z]+)$", &st), PLM_OK);
    static const struct reading r[] = {{"Answer: yes\nAnswer:  no", "no"}, {"Answer: yes\nno", "yes"}, {" Answer: yes", NULL}, {"", NULL}};
    expect_readings(&v, r, N(r));
    assert_true(checks(&v, " no ", "Answer: no"));
    assert_false(checks(&v, "yes", "Answer: no"));
    bool correct;
    assert_int_equal(verifier_check(&v, NULL, "Answer: no", &correct, &st), PLM_EINVAL);
    verifier_free(&v);
    assert_int_equal(verifier_regex(&v, "x*", &st), PLM_OK); /* matches of nothing come to an end */
    assert_true(checks(&v, NULL, "aaa"));
    verifier_free(&v);
    assert_int_equal(verifier_regex(&v, "yes|sure", &st), PLM_OK);
    assert_true(checks(&v, NULL, "I am sure."));
    assert_false(checks(&v, NULL, "no"));
    verifier_free(&v);
    assert_int_equal(verifier_regex(&v, "(", &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "'('"));
    assert_null(v.pattern);
    assert_int_equal(verifier_regex(&v, "answer: (\\d+|\\w+)(?!\\d)", &st), PLM_OK); /* Perl's */
    static const struct reading perl[] = {{"answer: 12", "12"}, {"answer: z\xC3\xA9ro", "z\xC3\xA9ro"}, {"answer: \xFF", NULL}};
    expect_readings(&v, perl, N(perl));
    verifier_free(&v);
}

/* Patterns that take exponential time on some text end with an error after their steps. */
static void patterns_have_a_limit(void **state)
{
    (void)state;
    static const char *const patterns[] = {"(a+)+[bc]", "(a*)*\\1[bc]", "(a|aa)+$(?<!a)", "(.*)(.*)(.*)(.*)(.*)(.*)(.*)[bc]"};
    char text[3001];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = 0;
    for (size_t i = 0; i < N(patterns); i++) {
        struct verifier v = {.kind = VERIFY_REGEX};
        struct plm_status st = {0};
        char *key;
        assert_int_equal(verifier_regex(&v, patterns[i], &st), PLM_OK);
        if (verifier_extract(&v, text, &key, &st) != PLM_ELIMIT)
            fail_msg("%s came to an end: %s", patterns[i], key ? key : "no match");
        assert_non_null(strstr(st.message, "gave up after"));
        verifier_free(&v);
    }
}

static void a_reference_must_say_something(void **state)
{
    (void)state;
    struct plm_status st = {0};
    bool correct;
    for (enum verifier_kind kind = VERIFY_GSM8K; kind < VERIFY_REGEX; kind++) {
        const struct verifier v = {.kind = kind};
        assert_int_equal(verifier_check(&v, NULL, "1", &correct, &st), PLM_EINVAL);
        assert_non_null(strstr(st.message, "no \"answer\""));
        assert_int_equal(verifier_check(&v, "  ", "1", &correct, &st), PLM_EINVAL);
        assert_non_null(strstr(st.message, "the reference answer"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_have_one_shortest_form), cmocka_unit_test(shortest_forms_keep_the_value), cmocka_unit_test(the_last_number_is_found),
        cmocka_unit_test(gsm8k_follows_verl), cmocka_unit_test(boxes_nest), cmocka_unit_test(letters_are_chosen), cmocka_unit_test(texts_are_the_same),
        cmocka_unit_test(patterns_match), cmocka_unit_test(patterns_have_a_limit), cmocka_unit_test(a_reference_must_say_something),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
