/* What a verifier must accept and what it must not: pairs of a reference and an answer, in the notations that models
 * and data sets use. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train/align/verifiers.h"

struct pair {
    const char *reference, *answer;
};

/* The same thing, in a box. */
static const struct pair boxed_same[] = {
    /* numbers */
    {"42", "42"},
    {"42", "42.0"},
    {"42", "042"},
    {"0.5", ".5"},
    {"1234", "1,234"},
    {"1234567", "1,234,567"},
    {"9500", "9{,}500"},
    {"9500", "9,\\!500"},
    {"9500", "9\\,500"},
    {"9500", "9\\ 500"},
    {"9500", "9 500"},
    {"1234567", "1\\,234\\,567"},
    {"-3", "\xE2\x88\x92"
           "3"},
    {"-3", "-\\,3"},
    {"18", "\\$18"},
    {"\\$18", "18"},
    {"18.50", "\\$18.5"},
    {"18", "18\\$"},
    {"18", "\xE2\x82\xAC"
           "18"},
    {"50\\%", "50"},
    {"50", "50\\%"},
    {"50%", "50\\%"},
    {"12.5\\%", "12.5"},
    {"90", "90^\\circ"},
    {"90^\\circ", "90^{\\circ}"},
    {"90", "90\xC2\xB0"},
    {"45\\degree", "45"},
    {"1000", "10^3"},
    {"1000", "10^{3}"},
    {"0.002", "2\\times10^{-3}"},
    {"0.002", "2 \\times 10^{-3}"},
    {"300000", "3\\cdot10^5"},
    {"0.001", "10^{-3}"},
    {"0.25", "2^{-2}"},
    {"1024", "2^{10}"},
    {"0.00125", "1.25e-3"},
    {"5", "+5"},
    {"0", "-0"},
    {"6", "6."},
    {"6", "$6$"},
    {"6", "\\displaystyle 6"},
    /* fractions */
    {"\\frac{1}{2}", "\\dfrac{1}{2}"},
    {"\\frac{1}{2}", "\\tfrac{1}{2}"},
    {"\\frac{1}{2}", "\\frac12"},
    {"\\frac{1}{2}", "\\frac 12"},
    {"\\frac{1}{2}", "\\frac1{2}"},
    {"\\frac{1}{2}", "\\frac{1}2"},
    {"\\frac{1}{2}", "1/2"},
    {"\\frac{1}{2}", "0.5"},
    {"0.5", "\\frac12"},
    {"\\frac{1}{2}", "\xC2\xBD"},
    {"\\frac{1}{2}", "\\frac{2}{4}"},
    {"\\frac{2}{3}", "2/3"},
    {"-\\frac{2}{3}", "\\frac{-2}{3}"},
    {"-\\frac{2}{3}", "-2/3"},
    {"-\\frac{2}{3}", "\\frac{2}{-3}"},
    {"\\frac{3}{2}", "1\\frac{1}{2}"},
    {"\\frac{3}{2}", "1 \\frac12"},
    {"\\frac{3}{2}", "1 1/2"},
    {"\\frac{3}{2}", "1.5"},
    {"\\frac{1000}{3}", "1,000/3"},
    {"\\frac{x}{2}", "x/2"},
    {"\\frac{\\pi}{2}", "\\pi/2"},
    {"\\frac{\\pi}{2}", "\\dfrac\\pi2"},
    {"\\frac{3\\pi}{4}", "3\\pi/4"},
    {"\\frac{x+1}{2}", "(x+1)/2"},
    {"\\frac{-x}{2}", "-\\frac{x}{2}"},
    {"\\frac{\\sqrt{3}}{2}", "\\frac{\\sqrt3}{2}"},
    {"\\frac{\\sqrt{3}}{2}", "\\sqrt{3}/2"},
    {"\\frac{1}{\\sqrt{2}}", "1/\\sqrt{2}"},
    /* text and units */
    {"42", "\\text{42}"},
    {"\\text{Evelyn}", "Evelyn"},
    {"Evelyn", "\\mathrm{Evelyn}"},
    {"\\text{(A)}", "A"},
    {"A", "\\textbf{(A)}"},
    {"A", "(A)"},
    {"5", "5\\text{ cm}"},
    {"5\\text{ cm}", "5"},
    {"5", "5\\,\\text{cm}"},
    {"5", "5\\mathrm{~cm}"},
    {"5", "5\\text{ cm}^2"},
    {"5", "5\\text{ cm}^{3}"},
    {"5", "5\\ \\mathrm{m/s}"},
    {"5", "5\\text{ m}/\\text{s}"},
    {"5", "5 cm"},
    {"5", "5 square units"},
    {"18", "18 dollars"},
    {"18", "18\\text{ dollars}"},
    {"1000", "1,000 \\text{ meters}"},
    {"\\frac{1}{2}", "\\frac{1}{2}\\text{ hour}"},
    {"5\\pi", "5\\pi\\text{ cm}"},
    {"90", "90\\text{ degrees}"},
    {"3\\text{ and }4", "3,4"},
    {"3\\text{ or }4", "3, 4"},
    {"x^2", "x^{2}"},
    {"x^{10}", "x^10"},
    {"x_1", "x_{1}"},
    {"x^{-2}", "x^{- 2}"},
    /* formulas */
    {"\\sqrt{3}", "\\sqrt3"},
    {"2\\sqrt{3}", "2\\sqrt 3"},
    {"2\\sqrt{3}", "2\\cdot\\sqrt{3}"},
    {"\\sqrt[3]{2}", "\\sqrt[3]2"},
    {"2x", "2\\cdot x"},
    {"2\\times3\\times x", "2\\cdot3x"},
    {"x+1", "x + 1"},
    {"x+1", "\\left(x+1\\right)"},
    {"x+1", "{x+1}"},
    {"5", "x=5"},
    {"x=5", "5"},
    {"5", "x = 5"},
    {"\\frac{\\pi}{3}", "\\theta=\\frac{\\pi}{3}"},
    {"2x+3", "y=2x+3"},
    {"3", "x_1=3"},
    {"1,-2", "x=1\\text{ or }x=-2"},
    {"\\pi", "\xCF\x80"},
    {"2\\pi", "2\xCF\x80"},
    {"\\infty", "+\\infty"},
    {"\\infty", "\xE2\x88\x9E"},
    {"x\\leq 3", "x\\le3"},
    {"x\\ge 3", "x \\geq 3"},
    {"|x|", "\\lvert x\\rvert"},
    {"|x|", "\\left|x\\right|"},
    {"x'", "x\\prime"},
    {"\\binom{5}{2}", "\\dbinom{5}{2}"},
    {"0.50x", ".5x"},
    {"\\{1,2\\}", "\\lbrace1,2\\rbrace"},
    {"\\ldots", "\\dots"},
    {"11\\sqrt2", "11\\sqrt{2}."},
    /* tuples, intervals, sets, matrices */
    {"(1,2)", "\\left(1,2\\right)"},
    {"(1,2)", "( 1, 2 )"},
    {"(1,2)", "(1.0,\\frac{4}{2})"},
    {"(1,2)", "\\bigl(1,2\\bigr)"},
    {"\\left(\\frac12,3\\right)", "(0.5, 3)"},
    {"[0,1)", "\\left[0,1\\right)"},
    {"[0,1)", "x\\in[0,1)"},
    {"(-\\infty,3]", "\\left(-\\infty, 3\\right]"},
    {"(0,\\infty)", "(0,+\\infty)"},
    {"(0,1)\\cup(2,3)", "\\left(0,1\\right) \\cup \\left(2,3\\right)"},
    {"\\{1,2,3\\}", "\\{3, 1, 2\\}"},
    {"\\{1,2\\}", "\\left\\{1,2\\right\\}"},
    {"\\{\\frac12\\}", "\\{0.5\\}"},
    {"2,3,5", "2, 3, 5"},
    {"1,-2", "1, \xE2\x88\x92"
             "2"},
    {"(1234,5)", "(1{,}234, 5)"},
    {"\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}"},
    {"\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}"},
    {"\\begin{pmatrix}\\frac{1}{2}\\\\3\\end{pmatrix}", "\\begin{pmatrix}\\dfrac12 \\\\ 3.0\\end{pmatrix}"},
    {"\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\left[\\begin{array}{c}1\\\\2\\end{array}\\right]"},
};

/* Other things, in a box. */
static const struct pair boxed_other[] = {
    {"12", "1,2"},
    {"235", "2,3,5"},
    {"2,3,5", "235"},
    {"1234", "1,23,4"},
    {"1234", "12,34"},
    {"1234", "1,2,3,4"},
    {"1234", "(1,234)"},
    {"12", "1 2"},
    {"123", "12 3"},
    {"7", "-7"},
    {"-7", "7"},
    {"1", "1.0000001"},
    {"0.1", "0.10000000000000001"},
    {"9007199254740993", "9007199254740992"},
    {"1000", "10^4"},
    {"1000", "103"},
    {"0.002", "2\\times10^{3}"},
    {"0.5", "\\frac13"},
    {"\\frac{1}{2}", "\\frac{1}{3}"},
    {"\\frac{1}{2}", "\\frac{2}{1}"},
    {"\\frac{1}{2}", "-\\frac{1}{2}"},
    {"\\frac{11}{2}", "1\\frac12"},
    {"\\frac{1}{3}", "0.333"},
    {"\\frac{2}{3}", "0.67"},
    {"\\frac{x}{2}", "\\frac{2}{x}"},
    {"\\frac{x+1}{2}", "x+1/2"},
    {"\\frac{1}{2x}", "\\frac{1}{2}y"},
    {"x^2", "x_2"},
    {"x^2", "2x"},
    {"x^2", "x2"},
    {"x^{12}", "x^1"},
    {"x^{-2}", "x^2"},
    {"\\sqrt{3}", "\\sqrt{2}"},
    {"\\sqrt{3}", "3"},
    {"\\sqrt{3}", "\\sqrt[3]{3}"},
    {"2\\sqrt{3}", "\\sqrt{23}"},
    {"\\sqrt{2x}", "\\sqrt2 x"},
    {"\\pi", "3.14"},
    {"2\\pi", "\\pi"},
    {"\\pi x", "\\pi y"},
    {"x+1", "x-1"},
    {"x+1", "1"},
    {"(1,2)", "(2,1)"},
    {"(1,2)", "[1,2]"},
    {"(1,2)", "1"},
    {"(1,2)", "(1,2,3)"},
    {"(1,2)", "(1.2)"},
    {"(1,2)", "12"},
    {"[0,1)", "(0,1)"},
    {"[0,1)", "[0,1]"},
    {"[0,1)", "[0,1.5)"},
    {"(-\\infty,3]", "(-\\infty,3)"},
    {"(-\\infty,3]", "(\\infty,3]"},
    {"(0,1)\\cup(2,3)", "(0,1)\\cap(2,3)"},
    {"(0,1)\\cup(2,3)", "(0,1)"},
    {"\\{1,2,3\\}", "\\{1,2\\}"},
    {"\\{1,2\\}", "\\{1,1\\}"},
    {"\\{1,2\\}", "(1,2)"},
    {"1,2", "2,1"},
    {"\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&3\\\\2&4\\end{pmatrix}"},
    {"\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&2&3&4\\end{pmatrix}"},
    {"\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}"},
    {"\\begin{pmatrix}1\\\\2\\end{pmatrix}", "(1,2)"},
    {"A", "B"},
    {"\\text{Evelyn}", "\\text{Briana}"},
    {"5", "5x"},
    {"5", "x"},
    {"5", "5\\text{ if }x>0"},
    {"5", "6\\text{ cm}"},
    {"50\\%", "0.5"},
    {"x=5", "x=6"},
    {"x=1,y=2", "y=1,x=2"},
    {"18", "\\$81"},
    {"x<3", "x>3"},
    {"x\\le3", "x<3"},
    {"x\\ge3", "x\\le3"},
    {"5", "5!"},
    {"2^3", "23"},
    {"|x|", "x"},
    {"\\infty", "-\\infty"},
    {"0", "\\infty"},
    {"xy", "x"},
    {"ab", "ba"},
    {"\\sin x", "\\cos x"},
    {"10", "1{,}0"},
};

/* The last number of a text. */
static const struct pair number_same[] = {
    {"18", "He pays \\$18 in all."},
    {"18", "so $18$"},
    {"18", "18 dollars"},
    {"1080", "It costs $1,080."},
    {"9500", "which is 9{,}500 m"},
    {"-3", "x = \xE2\x88\x92"
           "3"},
    {"-3", "(\xE2\x88\x92"
           "3)"},
    {"-3", "-3"},
    {"0.75", "The answer is 3/4."},
    {"0.75", "\\frac{3}{4}"},
    {"0.75", "$\\dfrac34$"},
    {"1.75", "1 3/4 cups"},
    {"1.75", "1\\frac{3}{4}"},
    {"1.75", "1\xC2\xBE cups"},
    {"-0.5", "-\\frac{1}{2}"},
    {"2/3", "2/3"},
    {"0.0015", "1.5 \\times 10^{-3}"},
    {"0.0015", "1.5e-3"},
    {"0.001", "10^{-3}"},
    {"25", "25%"},
    {"25", "25\\%"},
    {"25", "The area is 25 cm^2"},
    {"25", "25 \\text{ cm}^{2}"},
    {"25", "25 m\xC2\xB2"},
    {"4", "x_1 = 4"},
    {"1000000", "1,000,000 people"},
    {"2000", "$2000.00"},
    {"5", "**5**"},
    {"5", "5."},
    {"-7.5", "-$7.50"},
    {"-7.5", "$-7.50"},
    {"7", "1,2, or 7"},
    {"2020", "on 1/2/2020"},
    {"3", "16-3"},
    {"0.5", "is .5"},
    {"8", "2^3"},
};
static const struct pair number_other[] = {
    {"12", "1,2"},      {"1234", "12,34"},
    {"3", "-3"},        {"-3", "3"},
    {"4", "3/4"},       {"0.75", "4/3"},
    {"2", "25 cm^2"},   {"1.5", "1.5 \\times 10^{-3}"},
    {"1080", "1,08"},   {"9500", "9{,}50"},
    {"3", "no number"}, {"5", "5 or 6"},
    {"1", "x_1 = 4"},   {"9007199254740993", "9007199254740992"},
    {"0.5", "50%"},
};

/* The number after "####". */
static const struct pair gsm8k_same[] = {
    {"#### 8", "#### 8"},
    {"#### 1,080", "#### 1080"},
    {"1080", "#### $1,080.00"},
    {"18", "#### \\$18"},
    {"-5", "#### \xE2\x88\x92"
           "5"},
    {"0.75", "#### 3/4"},
    {"50", "#### 50%"},
    {"5", "#### 5 apples"},
    {"9500", "#### 9{,}500"},
};
static const struct pair gsm8k_other[] = {
    {"12", "#### 1,2"}, {"1234", "#### 1,23,4"}, {"5", "#### -5"},     {"5", "5"},
    {"3", "#### 3/4"},  {"1", "#### 1.2.3"},     {"1080", "#### 108"},
};

#define N(a) (sizeof(a) / sizeof *(a))

static int wrong;

/* A box around what is no sentence of its own, as an answer gives it. */
static void expect(enum verifier_kind kind, const struct pair *pairs, size_t n, bool want)
{
    const struct verifier v = {.kind = kind};
    for (size_t i = 0; i < n; i++) {
        char answer[512];
        bool correct;
        struct plm_status st = {0};
        snprintf(answer, sizeof answer, kind == VERIFY_BOXED ? "So it is $\\boxed{%s}$." : "%s", pairs[i].answer);
        if (verifier_check(&v, pairs[i].reference, answer, &correct, &st))
            fail_msg("'%s' against '%s': %s", answer, pairs[i].reference, st.message);
        if (correct != want) {
            char *said = NULL, *right = NULL;
            verifier_extract(&v, answer, &said, NULL);
            verifier_reference(&v, pairs[i].reference, &right, NULL);
            print_error("'%s' against '%s' is %s: '%s' and '%s'\n", pairs[i].answer, pairs[i].reference,
                        correct ? "accepted" : "refused", said ? said : "-", right ? right : "-");
            free(said);
            free(right);
        }
        wrong += correct != want;
    }
}

static void equal_answers_are_accepted(void **state)
{
    (void)state;
    wrong = 0;
    expect(VERIFY_BOXED, boxed_same, N(boxed_same), true);
    expect(VERIFY_NUMBER, number_same, N(number_same), true);
    expect(VERIFY_GSM8K, gsm8k_same, N(gsm8k_same), true);
    assert_int_equal(wrong, 0);
}

static void other_answers_are_refused(void **state)
{
    (void)state;
    wrong = 0;
    expect(VERIFY_BOXED, boxed_other, N(boxed_other), false);
    expect(VERIFY_NUMBER, number_other, N(number_other), false);
    expect(VERIFY_GSM8K, gsm8k_other, N(gsm8k_other), false);
    assert_int_equal(wrong, 0);
}

/* Equality goes both ways, and a key is its own key. */
static void keys_are_canonical(void **state)
{
    (void)state;
    const struct verifier v = {.kind = VERIFY_BOXED};
    for (size_t i = 0; i < N(boxed_same) + N(boxed_other); i++) {
        const struct pair *p = i < N(boxed_same) ? &boxed_same[i] : &boxed_other[i - N(boxed_same)];
        for (int side = 0; side < 2; side++) {
            char *key, *again;
            const char *text = side ? p->answer : p->reference;
            assert_int_equal(verifier_reference(&v, text, &key, NULL), PLM_OK);
            assert_non_null(key);
            assert_int_equal(verifier_reference(&v, key, &again, NULL), PLM_OK);
            if (!again || strcmp(key, again) != 0)
                fail_msg("'%s' is '%s', and that '%s'", text, key, again ? again : "nothing");
            free(key);
            free(again);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_answers_are_accepted),
        cmocka_unit_test(other_answers_are_refused),
        cmocka_unit_test(keys_are_canonical),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
