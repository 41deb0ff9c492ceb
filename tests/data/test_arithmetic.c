/* Generated word problems: solutions that are right, mistakes that are wrong, splits that never meet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/arithmetic.h"

static const struct arithmetic_options usual = {.min_digits = 2, .max_digits = 3, .min_steps = 1, .max_steps = 2, .seed = 5};

static void generate(const struct arithmetic_options *o, uint64_t index, struct arithmetic_problem *p)
{
    struct plm_status st = {0};
    if (arithmetic_generate(o, index, p, &st))
        fail_msg("%s", st.message);
}

/* The steps of a solution as text, read back: every line must be true unless its number is `slipped` (-1: none). Returns the answer. */
static long long read_solution(const char *text, int *n_lines, int *n_false)
{
    long long a, b, c, answer, last = 0;
    char op;
    int used;
    *n_lines = *n_false = 0;
    while (sscanf(text, "%lld%c%lld=%lld\n%n", &a, &op, &b, &c, &used) == 4) {
        assert_true(op == '+' || op == '-');
        if (*n_lines > 0)
            assert_int_equal(a, last); /* each line goes on from the one before */
        *n_false += c != (op == '+' ? a + b : a - b);
        ++*n_lines;
        last = c;
        text += used;
    }
    assert_int_equal(sscanf(text, "#### %lld%n", &answer, &used), 1);
    assert_int_equal(text[used], 0);
    assert_int_equal(answer, last);
    return answer;
}

/* The numbers of a text in their order. */
static int numbers_of(const char *text, long long *to, int capacity)
{
    int n = 0;
    for (char *end; *text; text = end) {
        text += strcspn(text, "0123456789");
        if (!*text)
            break;
        assert_true(n < capacity);
        to[n++] = strtoll(text, &end, 10);
    }
    return n;
}

static bool within(int64_t x, const struct arithmetic_options *o)
{
    char digits[32];
    const int n = snprintf(digits, sizeof digits, "%lld", (long long)x);
    return n >= o->min_digits && n <= o->max_digits;
}

static void solutions_are_right(void **state)
{
    (void)state;
    static const struct arithmetic_options options[] = {
        {.min_digits = 2, .max_digits = 3, .min_steps = 1, .max_steps = 2, .seed = 5},
        {.min_digits = 2, .max_digits = 2, .min_steps = 1, .max_steps = 1, .split = ARITHMETIC_TEST},
        {.min_digits = 6, .max_digits = 6, .min_steps = 2, .max_steps = 2, .width = 7, .split = ARITHMETIC_VALID, .seed = UINT64_MAX},
    };
    for (size_t k = 0; k < sizeof options / sizeof *options; k++) {
        const struct arithmetic_options *o = &options[k];
        struct arithmetic_problem p;
        int steps_seen[3] = {0}, pluses = 0, minuses = 0;
        for (uint64_t i = 0; i < 3000; i++) {
            generate(o, i, &p);
            assert_true(p.n_steps >= o->min_steps && p.n_steps <= o->max_steps);
            steps_seen[p.n_steps]++;
            int lines, wrong_lines;
            assert_int_equal(read_solution(p.solution, &lines, &wrong_lines), p.answer);
            assert_int_equal(lines, p.n_steps);
            assert_int_equal(wrong_lines, 0);
            assert_true(p.answer >= 1);
            if (o->width)
                assert_int_equal(strchr(p.solution, '\n') - p.solution, 3 * o->width + 2);
            long long numbers[8];
            const int n = numbers_of(p.question, numbers, 8);
            const bool again = n == p.n_steps; /* the first number is used twice */
            assert_true(again || n == p.n_steps + 1);
            const bool reversed = numbers[0] == p.steps[0].right && numbers[1] == p.steps[0].left; /* "{b} of {a} {o}" */
            assert_true(reversed || (numbers[0] == p.steps[0].left && numbers[1] == p.steps[0].right));
            for (int s = 0; s < p.n_steps; s++) {
                pluses += p.steps[s].op == '+';
                minuses += p.steps[s].op == '-';
                assert_true(within(p.steps[s].right, o) || (again && s == 1));
                if (s == 1)
                    assert_int_equal(p.steps[1].right, again ? numbers[0] : numbers[2]);
            }
            assert_true(within(p.steps[0].left, o));
            assert_null(strpbrk(p.question, "{}"));
            assert_int_equal(p.question[strlen(p.question) - 1], '?');
            assert_true(strlen(p.question) < sizeof p.question - 40);
        }
        for (int s = o->min_steps; s <= o->max_steps; s++)
            assert_true(steps_seen[s] > 3000 / (o->max_steps - o->min_steps + 1) * 9 / 10);
        assert_true(pluses > (pluses + minuses) * 4 / 10 && minuses > (pluses + minuses) * 3 / 10);
    }
}

static void mistakes_are_wrong(void **state)
{
    (void)state;
    struct arithmetic_problem p;
    int seen[ARITHMETIC_N_SLIPS] = {0};
    for (uint64_t i = 0; i < 3000; i++) {
        generate(&usual, i, &p);
        int lines, false_lines;
        const long long wrong = read_solution(p.wrong, &lines, &false_lines);
        assert_true(wrong != p.answer && wrong >= 1);
        seen[p.slip]++;
        const bool miscalculated = p.slip == SLIP_CARRY || p.slip == SLIP_TEN || p.slip == SLIP_UNIT;
        assert_int_equal(false_lines, miscalculated);
        assert_int_equal(lines, p.n_steps - (p.slip == SLIP_STOPPED));
        const long long off = llabs(wrong - p.answer);
        if (p.slip == SLIP_TEN)
            assert_true(off == 10 || off == 100);
        if (p.slip == SLIP_UNIT)
            assert_true(off == 1 || off == 2);
        if (p.slip == SLIP_CARRY)
            assert_true(off == 10 || off == 100 || off == 1000 || off == 10000);
        if (p.slip == SLIP_OPERATION)
            assert_true(strcmp(p.wrong, p.solution) != 0);
    }
    for (int s = 0; s < ARITHMETIC_N_SLIPS; s++)
        assert_true(seen[s] > 3000 / ARITHMETIC_N_SLIPS / 3);
}

static void splits_do_not_meet(void **state)
{
    (void)state;
    enum { N = 2000 };
    int counts[ARITHMETIC_N_SPLITS] = {0};
    for (int64_t a = 10; a < 400; a++)
        for (int64_t b = a; b < 400; b++) {
            assert_int_equal(arithmetic_fact_split(a, b), arithmetic_fact_split(b, a));
            counts[arithmetic_fact_split(a, b)]++;
        }
    const int facts = 390 * 391 / 2;
    assert_in_range(counts[ARITHMETIC_TRAIN], facts * 89 / 100, facts * 91 / 100);
    assert_in_range(counts[ARITHMETIC_VALID], facts * 4 / 100, facts * 6 / 100);
    for (int split = 0; split < ARITHMETIC_N_SPLITS; split++)
        for (uint64_t seed = 0; seed < 3; seed++) {
            struct arithmetic_options o = usual;
            o.split = (enum arithmetic_split)split;
            o.seed = seed;
            for (uint64_t i = 0; i < N; i++) {
                struct arithmetic_problem p;
                generate(&o, i, &p);
                for (int s = 0; s < p.n_steps; s++) { /* by the smaller two of the three numbers, recomputed from the text's order */
                    const struct arithmetic_step *t = &p.steps[s];
                    const int64_t largest = t->op == '+' ? t->result : t->left;
                    const int64_t other = t->op == '+' ? t->left : t->result;
                    assert_int_equal(largest, other + t->right);
                    assert_int_equal(arithmetic_fact_split(other, t->right), split);
                }
            }
        }
}

static void problems_are_functions_of_their_number(void **state)
{
    (void)state;
    struct arithmetic_problem a, b;
    struct arithmetic_options o = usual;
    generate(&o, 17, &a);
    generate(&o, 18, &b);
    assert_string_not_equal(a.question, b.question);
    generate(&o, 17, &b);
    assert_string_equal(a.question, b.question);
    assert_string_equal(a.solution, b.solution);
    assert_string_equal(a.wrong, b.wrong);
    o.seed++;
    generate(&o, 17, &b);
    assert_string_not_equal(a.question, b.question);
    generate(&o, ((uint64_t)1 << 40) - 1, &b);
    /* pinned: data sets are made anew from their seed, not kept */
    assert_string_equal(a.question, "A shop has 869 nails. It sells 88. A truck brings 576 nails. How many nails does the shop have now?");
    assert_string_equal(a.solution, "869-88=781\n781+576=1357\n#### 1357");
    assert_string_equal(a.wrong, "869+88=957\n957+576=1533\n#### 1533");
}

static void reject(struct arithmetic_options o, uint64_t index, int code, const char *message)
{
    struct plm_status st = {0};
    struct arithmetic_problem p;
    assert_int_equal(arithmetic_generate(&o, index, &p, &st), code);
    if (!strstr(st.message, message))
        fail_msg("'%s' lacks '%s'", st.message, message);
}

static void out_of_range(void **state)
{
    (void)state;
    struct arithmetic_options bad = usual;
    bad.max_digits = 7;
    reject(bad, 0, PLM_EINVAL, "numbers of 2 to 7 digits, expected 1 to 6");
    bad.min_digits = 4, bad.max_digits = 3;
    reject(bad, 0, PLM_EINVAL, "numbers of 4 to 3 digits");
    bad = usual;
    bad.width = 9;
    reject(bad, 0, PLM_EINVAL, "solutions 9 digits wide, expected 0 to 8");
    bad = usual;
    bad.min_steps = 0;
    reject(bad, 0, PLM_EINVAL, "0 to 2 steps, expected 1 to 2");
    bad = usual;
    bad.max_steps = 3;
    reject(bad, 0, PLM_EINVAL, "1 to 3 steps");
    reject(usual, (uint64_t)1 << 40, PLM_EINVAL, "below 2^40");
    struct plm_status st = {0};
    enum arithmetic_split split;
    assert_int_equal(arithmetic_split_parse(&split, "valid", &st), PLM_OK);
    assert_int_equal(split, ARITHMETIC_VALID);
    assert_int_equal(arithmetic_split_parse(&split, "held-out", &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "expected train, valid or test"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(solutions_are_right), cmocka_unit_test(mistakes_are_wrong), cmocka_unit_test(splits_do_not_meet),
        cmocka_unit_test(problems_are_functions_of_their_number), cmocka_unit_test(out_of_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
