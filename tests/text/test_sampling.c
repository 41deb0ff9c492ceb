#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "infer/base/random.h"
#include "infer/base/status.h"
#include "infer/text/sampling.h"
#include "tests/ops/tables.h"

#define VOCAB 12
#define DRAWS 40000

static const struct plm_sampling plain = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 5};

static int32_t draw(const struct plm_sampling *s, const float *logits, int vocab, uint64_t position)
{
    uint64_t scratch[1024];
    struct plm_status st = {0};
    int32_t token;
    if (sampling_draw(s, logits, vocab, NULL, 0, position, 0, scratch, &token, &st))
        fail_msg("%s", st.message);
    return token;
}

/* Chi-square of DRAWS draws against p; tokens with p = 0 must never come. */
static double chi_square(const struct plm_sampling *s, const float *logits, const double *p, int *degrees)
{
    int counts[VOCAB] = {0};
    double sum = 0;
    for (int i = 0; i < DRAWS; i++)
        counts[draw(s, logits, VOCAB, (uint64_t)i)]++;
    *degrees = -1;
    for (int i = 0; i < VOCAB; i++) {
        if (p[i] == 0) {
            assert_int_equal(counts[i], 0);
            continue;
        }
        double expected = p[i] * DRAWS;
        sum += (counts[i] - expected) * (counts[i] - expected) / expected;
        ++*degrees;
    }
    return sum;
}

/* The definition, over all pairs of tokens: rank by (logit, lower id), cut, renormalise. */
static void expected_distribution(const struct plm_sampling *s, const float *logits, double *p)
{
    double weight[VOCAB], total = 0, best = 0, kept_total = 0;
    int rank[VOCAB] = {0};
    for (int i = 0; i < VOCAB; i++)
        for (int j = 0; j < VOCAB; j++)
            rank[i] += logits[j] > logits[i] || (logits[j] == logits[i] && j < i);
    for (int i = 0; i < VOCAB; i++) {
        weight[i] = s->top_k && rank[i] >= s->top_k ? 0 : exp(logits[i] / s->temperature);
        total += weight[i];
        best = fmax(best, weight[i]);
    }
    for (int i = 0; i < VOCAB; i++) {
        double before = 0; /* probability of the likelier ones */
        for (int j = 0; j < VOCAB; j++)
            before += rank[j] < rank[i] ? weight[j] : 0;
        p[i] = before < s->top_p * total * (1 - 1e-9) && weight[i] >= s->min_p * best ? weight[i] : 0;
    }
    for (int i = 0; i < VOCAB; i++)
        kept_total += p[i];
    for (int i = 0; i < VOCAB; i++)
        p[i] /= kept_total;
}

static void test_distribution(void **state)
{
    (void)state;
    static const float logits[VOCAB] = {0.5f, 2, -1, 1.5f, 1.5f, 0, 2.5f, -3, 1, 0.25f, 1.5f, -0.5f};
    const struct {
        float temperature, top_p, min_p;
        int top_k, kept;
    } cases[] = {{1, 1, 0, 0, 12},   {0.7f, 1, 0, 0, 12}, {1, 1, 0, 4, 4},       {1, 1, 0, 100, 12},
                 {1, 0.5f, 0, 0, 3}, {1, 0.9f, 0, 0, 7},  {1, 1, 0.3f, 0, 5},    {1, 0.8f, 0, 5, 4},
                 {2, 0.9f, 0.5f, 8, 5}, {1, 1e-6f, 0, 0, 1}, {1, 1, 1, 0, 1},    {1, 1, 0, 1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct plm_sampling s = plain;
        s.temperature = cases[i].temperature, s.top_p = cases[i].top_p, s.min_p = cases[i].min_p, s.top_k = cases[i].top_k;
        double p[VOCAB];
        int degrees, kept = 0;
        expected_distribution(&s, logits, p);
        for (int k = 0; k < VOCAB; k++)
            kept += p[k] > 0;
        if (kept != cases[i].kept)
            print_message("case %zu keeps %d\n", i, kept);
        assert_int_equal(kept, cases[i].kept);
        double chi = chi_square(&s, logits, p, &degrees);
        /* mean and four standard deviations of the chi-square distribution; the seed is fixed */
        if (chi > degrees + 4 * sqrt(2.0 * degrees) + 1e-9)
            print_message("case %zu: chi-square %g with %d degrees\n", i, chi, degrees);
        assert_true(chi <= degrees + 4 * sqrt(2.0 * degrees) + 1e-9);
    }
}

static void test_greedy(void **state)
{
    (void)state;
    struct plm_sampling s = plain;
    s.temperature = 0;
    assert_int_equal(draw(&s, (float[]){1, 3, 2, 3}, 4, 0), 1); /* the lower id of equals */
    assert_int_equal(draw(&s, (float[]){-5}, 1, 9), 0);
    s.top_k = 3, s.top_p = 0.1f, s.min_p = 0.5f;
    assert_int_equal(draw(&s, (float[]){1, 2, 2.5f, -3}, 4, 7), 2);
    s = plain;
    s.temperature = 1e-30f; /* next to greedy: nothing overflows */
    assert_int_equal(draw(&s, (float[]){1, 2, 3e38f, -3e38f}, 4, 7), 2);
}

static void test_ties_at_the_cut(void **state)
{
    (void)state;
    static const float equal[6] = {1, 1, 1, 1, 1, 1};
    struct plm_sampling s = plain;
    for (uint64_t i = 0; i < 2000; i++) {
        s.top_k = 2;
        s.top_p = 1;
        assert_true(draw(&s, equal, 6, i) < 2);
        s.top_k = 0;
        s.top_p = 0.49f;
        assert_true(draw(&s, equal, 6, i) < 3);
    }
}

static void test_deterministic(void **state)
{
    (void)state;
    uint64_t scratch[1000];
    float logits[1000];
    int32_t a, b;
    int differs_by_seed = 0, differs_by_stream = 0, differs_by_position = 0;
    for (int i = 0; i < 1000; i++)
        logits[i] = (float)random_normal(1, RANDOM_TEST, 0, (uint64_t)i);
    for (uint64_t position = 0; position < 50; position++) {
        struct plm_sampling s = {.temperature = 0.8f, .top_p = 0.95f, .top_k = 200, .repetition_penalty = 1, .seed = 42};
        sampling_draw(&s, logits, 1000, NULL, 0, position, 3, scratch, &a, NULL);
        memset(scratch, 0xAB, sizeof scratch);
        sampling_draw(&s, logits, 1000, NULL, 0, position, 3, scratch, &b, NULL);
        assert_int_equal(a, b);
        sampling_draw(&s, logits, 1000, NULL, 0, position, 4, scratch, &b, NULL);
        differs_by_stream += a != b;
        sampling_draw(&s, logits, 1000, NULL, 0, position + 1, 3, scratch, &b, NULL);
        differs_by_position += a != b;
        s.seed++;
        sampling_draw(&s, logits, 1000, NULL, 0, position, 3, scratch, &b, NULL);
        differs_by_seed += a != b;
    }
    assert_true(differs_by_seed > 30 && differs_by_stream > 30 && differs_by_position > 30);
}

static void test_repetition_penalty(void **state)
{
    (void)state;
    static const float logits[4] = {2, 1.9f, -1, -1.1f};
    static const int32_t history[] = {2, 1, 0, 0, 0, 3};
    uint64_t scratch[4];
    int32_t token;
    struct plm_sampling s = {.top_p = 1, .repetition_penalty = 1.5f};
    assert_int_equal(sampling_draw(&s, logits, 4, history + 2, 3, 0, 0, scratch, &token, NULL), PLM_OK);
    assert_int_equal(token, 1); /* 2 / 1.5 once, although it occurred three times: above 1.9 / 1.5 */
    assert_int_equal(sampling_draw(&s, logits, 4, history, 6, 0, 0, scratch, &token, NULL), PLM_OK);
    assert_int_equal(token, 0);
    s.repetition_window = 2;
    assert_int_equal(sampling_draw(&s, logits, 4, history, 5, 0, 0, scratch, &token, NULL), PLM_OK);
    assert_int_equal(token, 1);
    s.repetition_window = 1;
    assert_int_equal(sampling_draw(&s, logits, 4, history, 6, 0, 0, scratch, &token, NULL), PLM_OK);
    assert_int_equal(token, 0);
    static const float negative[2] = {-1, -1.2f};
    assert_int_equal(sampling_draw(&s, negative, 2, history + 4, 1, 0, 0, scratch, &token, NULL), PLM_OK);
    assert_int_equal(token, 1); /* -1 * 1.5 < -1.2 */
    /* the penalty leaves the other tokens their probabilities: draw and count */
    s = plain;
    s.repetition_penalty = 1e6f;
    int zeros = 0;
    for (uint64_t i = 0; i < 2000; i++) {
        sampling_draw(&s, (float[]){20, 1, 1}, 3, (int32_t[]){0}, 1, i, 0, scratch, &token, NULL);
        zeros += token == 0;
    }
    assert_true(zeros > 2000 * 0.1 && zeros < 2000 * 0.22); /* e^0 / (e^0 + 2 e^1) = 0.155 */
}

static void test_bad_input(void **state)
{
    (void)state;
    static const struct {
        struct plm_sampling s;
        const char *says;
    } cases[] = {
        {{-1, 0, 1, 0, 1, 0, 0}, "temperature"},        {{NAN, 0, 1, 0, 1, 0, 0}, "temperature"},
        {{INFINITY, 0, 1, 0, 1, 0, 0}, "temperature"},  {{1, -1, 1, 0, 1, 0, 0}, "top_k"},
        {{1, 0, 0, 0, 1, 0, 0}, "top_p"},               {{1, 0, 1.5f, 0, 1, 0, 0}, "top_p"},
        {{1, 0, NAN, 0, 1, 0, 0}, "top_p"},             {{1, 0, 1, -0.1f, 1, 0, 0}, "min_p"},
        {{1, 0, 1, 1.1f, 1, 0, 0}, "min_p"},            {{1, 0, 1, 0, 0, 0, 0}, "repetition_penalty"},
        {{1, 0, 1, 0, INFINITY, 0, 0}, "repetition_penalty"}, {{1, 0, 1, 0, 1, -1, 0}, "repetition_window"},
    };
    uint64_t scratch[4];
    int32_t token;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct plm_status st = {0};
        assert_int_equal(sampling_check(&cases[i].s, &st), PLM_EINVAL);
        assert_non_null(strstr(st.message, cases[i].says));
        assert_int_equal(sampling_draw(&cases[i].s, (float[]){1, 2}, 2, NULL, 0, 0, 0, scratch, &token, NULL), PLM_EINVAL);
    }
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        struct plm_status st = {0};
        assert_int_equal(sampling_draw(&plain, (float[]){1, 2, bad[i]}, 3, NULL, 0, 0, 0, scratch, &token, &st), PLM_EINVAL);
        assert_non_null(strstr(st.message, "token 2"));
    }
    struct plm_sampling s = plain;
    s.repetition_penalty = 2;
    assert_int_equal(sampling_draw(&s, (float[]){1, 2}, 2, (int32_t[]){0, 2}, 2, 0, 0, scratch, &token, NULL), PLM_EINVAL);
    assert_int_equal(sampling_draw(&s, (float[]){1, 2}, 2, (int32_t[]){-1}, 1, 0, 0, scratch, &token, NULL), PLM_EINVAL);
    assert_int_equal(sampling_draw(&plain, (float[]){1}, 0, NULL, 0, 0, 0, scratch, &token, NULL), PLM_EINVAL);
}

/* Large vocabularies are drawn from in single precision where that leaves no doubt: the token must be that of the double computation, which a
 * penalty on no token makes. */
static void test_fast_is_exact(void **state)
{
    (void)state;
    enum { LARGE = 3001 };
    static float logits[LARGE];
    static uint64_t scratch[LARGE];
    static const float temperatures[] = {0.01f, 0.3f, 1, 4}, top_p[] = {1, 0.9f, 0.3f, 0.99999f}, min_p[] = {0, 0.02f, 0.5f};
    static const double spread[] = {0.001, 1, 4, 30};
    for (int k = 0; k < 4 * 4 * 4 * 3; k++) {
        struct plm_sampling s = plain;
        s.temperature = temperatures[k % 4], s.top_p = top_p[k / 4 % 4], s.min_p = min_p[k / 64];
        for (int i = 0; i < LARGE; i++)
            logits[i] = (float)(spread[k / 16 % 4] * random_normal(3, RANDOM_TEST, (uint32_t)k, (uint64_t)i) + 10 * (k % 3));
        for (int i = 0; i < LARGE && k % 5 == 0; i++)
            logits[i] = roundf(logits[i]); /* many equal ones */
        for (int i = 0; i < 10; i++) {
            struct plm_status st = {0};
            int32_t fast, exact;
            s.repetition_penalty = 1;
            assert_int_equal(sampling_draw(&s, logits, LARGE, NULL, 0, (uint64_t)i, 0, scratch, &fast, &st), PLM_OK);
            s.repetition_penalty = 1.5f;
            assert_int_equal(sampling_draw(&s, logits, LARGE, NULL, 0, (uint64_t)i, 0, scratch, &exact, &st), PLM_OK);
            assert_int_equal(fast, exact);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_distribution),       cmocka_unit_test(test_greedy),
                                       cmocka_unit_test(test_ties_at_the_cut),    cmocka_unit_test(test_deterministic),
                                       cmocka_unit_test(test_repetition_penalty), cmocka_unit_test(test_bad_input),
                                       cmocka_unit_test(test_fast_is_exact)};
    return RUN_WITH_EVERY_TABLE(tests, NULL, NULL);
}
