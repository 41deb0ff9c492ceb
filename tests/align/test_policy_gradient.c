/* Policy gradients: advantages, coefficients against finite differences on both sides of every edge, sums, settings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "infer/base/random.h"
#include "tests/ops/tables.h"
#include "train/align/policy_gradient.h"

static const struct grpo_options defaults = {ADVANTAGE_CENTRED, NORMALISE_TOKENS, 0.2, 0.2, 0, true};

static void advantages_of_groups(void **state)
{
    (void)state;
    struct grpo_options o = defaults;
    double a[5];
    const double rewards[] = {1, 0, 0, 1, 0};
    assert_true(policy_advantages(&o, rewards, 5, a));
    const double centred[] = {0.6, -0.4, -0.4, 0.6, -0.4};
    for (int i = 0; i < 5; i++)
        assert_true(fabs(a[i] - centred[i]) < 1e-15);
    o.advantage = ADVANTAGE_GROUP_STD;
    assert_true(policy_advantages(&o, rewards, 5, a));
    for (int i = 0; i < 5; i++)
        assert_true(fabs(a[i] - centred[i] / (sqrt(0.3) + 1e-4)) < 1e-14); /* 5 * 0.24 / 4 */
    /* an answer without a score is out of the group, not a zero in it */
    const double partly[] = {3, NAN, 1};
    o.advantage = ADVANTAGE_CENTRED;
    assert_true(policy_advantages(&o, partly, 3, a));
    assert_true(a[0] == 1 && a[1] == 0 && a[2] == -1);
    o.advantage = ADVANTAGE_GROUP_STD;
    assert_true(policy_advantages(&o, partly, 3, a));
    assert_true(fabs(a[0] - 1 / (sqrt(2) + 1e-4)) < 1e-15 && a[1] == 0 && a[2] == -a[0]);
}

static void groups_without_variance(void **state)
{
    (void)state;
    static const double same[] = {0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1}, one[] = {NAN, 2, NAN}, none[] = {NAN, NAN};
    for (int kind = ADVANTAGE_GROUP_STD; kind <= ADVANTAGE_CENTRED; kind++) {
        struct grpo_options o = defaults;
        double a[7] = {9, 9, 9, 9, 9, 9, 9};
        o.advantage = (enum advantage)kind;
        assert_false(policy_advantages(&o, same, 7, a));
        for (int i = 0; i < 7; i++)
            assert_true(a[i] == 0);
        assert_false(policy_advantages(&o, one, 3, a));
        assert_true(a[0] == 0 && a[1] == 0 && a[2] == 0);
        assert_false(policy_advantages(&o, none, 2, a));
        assert_false(policy_advantages(&o, same, 1, a));
        assert_false(policy_advantages(&o, NULL, 0, NULL));
    }
}

/* The formula of aries.md, not the code's branches. */
static double token_loss(const struct grpo_options *o, double advantage, double now, double old, double ref)
{
    const double rho = exp(now - old), held = fmin(fmax(rho, 1 - o->clip_low), 1 + o->clip_high);
    const bool clip = o->clip_low > 0 || o->clip_high > 0;
    const double k3 = exp(ref - now) - (ref - now) - 1;
    return -(clip ? fmin(rho * advantage, held * advantage) : rho * advantage) + o->kl_beta * k3;
}

static void check_token(const struct grpo_options *o, double advantage, float now, float old, float ref)
{
    const double weight = 0.25, h = 1e-4;
    double d = 0;
    struct policy_stats stats = {0};
    policy_coefficients(o, advantage, weight, &now, &old, o->kl_beta > 0 ? &ref : NULL, 1, &d, &stats);
    const double loss = weight * token_loss(o, advantage, (double)now, (double)old, (double)ref);
    const double slope = weight * (token_loss(o, advantage, (double)now + h, (double)old, (double)ref)
                                   - token_loss(o, advantage, (double)now - h, (double)old, (double)ref)) / (2 * h);
    const double scale = fmax(1, fabs(slope));
    if (!(fabs(stats.loss - loss) < 1e-12 * fmax(1, fabs(loss)) && fabs(d - slope) < 1e-6 * scale))
        fail_msg("A %g, l %g, old %g, ref %g: loss %.12g, derivative %.12g; expected %.12g, %.12g", advantage, (double)now, (double)old, (double)ref,
                 stats.loss, d, loss, slope);
}

static void finite_differences(void **state)
{
    (void)state;
    static const double edges[] = {0.8, 1.2, 1.28, 1}; /* of 0.2/0.2 and of 0.2/0.28, and the start */
    static const struct grpo_options variants[] = {
        {ADVANTAGE_CENTRED, NORMALISE_TOKENS, 0.2, 0.2, 0, true},    {ADVANTAGE_CENTRED, NORMALISE_TOKENS, 0.2, 0.28, 0, true},
        {ADVANTAGE_CENTRED, NORMALISE_TOKENS, 0, 0, 0, true},        {ADVANTAGE_CENTRED, NORMALISE_TOKENS, 0.2, 0.2, 0.05, true},
        {ADVANTAGE_CENTRED, NORMALISE_TOKENS, 0, 0.2, 0.001, true},  {ADVANTAGE_CENTRED, NORMALISE_TOKENS, 0, 0, 1, true},
    };
    for (size_t k = 0; k < sizeof variants / sizeof *variants; k++)
        for (int sign = -1; sign <= 1; sign++) {
            for (size_t e = 0; e < sizeof edges / sizeof *edges; e++)
                for (int side = -1; side <= 1; side += 2) /* just outside the step of the difference */
                    check_token(&variants[k], sign * 0.7, -2.5f + (float)(log(edges[e]) + side * 1e-3), -2.5f, -2.2f);
            for (uint64_t i = 0; i < 40; i++) {
                const double now = -4 * random_uniform(3, RANDOM_TEST, 0, i), drift = 2 * random_uniform(3, RANDOM_TEST, 1, i) - 1;
                check_token(&variants[k], sign * 1.3, (float)now, (float)(now + drift), (float)(now - drift / 2));
            }
        }
}

/* On its own samples the policy gradient is the plain one, and clipped tokens give none. */
static void coefficients_of_an_answer(void **state)
{
    (void)state;
    const float now[] = {-1, -2, -0.5f, -3}, old[] = {-1, -2.5f, -0.5f, -2.5f}, ref[] = {-1, -2, -1.5f, -2};
    struct grpo_options o = defaults;
    struct policy_stats stats = {0};
    double coef[4];
    policy_coefficients(&o, 2, 0.5, now, NULL, NULL, 4, coef, &stats);
    for (int t = 0; t < 4; t++)
        assert_true(coef[t] == -1);
    assert_true(stats.loss == -4 && stats.tokens == 4 && stats.clipped == 0 && stats.kl == 0 && stats.entropy == 6.5);

    stats = (struct policy_stats){0};
    policy_coefficients(&o, 2, 1, now, old, NULL, 4, coef, &stats);
    assert_true(coef[0] == -2 && coef[1] == 0 && coef[2] == -2 && fabs(coef[3] + 2 * exp(-0.5)) < 1e-15);
    assert_true(stats.clipped == 1 && fabs(stats.loss + 2 * (1 + 1.2 + 1 + exp(-0.5))) < 1e-14);
    policy_coefficients(&o, -2, 1, now, old, NULL, 4, coef, &stats);
    assert_true(fabs(coef[1] - 2 * exp(0.5)) < 1e-14 && coef[3] == 0);
    assert_true(stats.clipped == 2 && stats.tokens == 8); /* added to */

    stats = (struct policy_stats){0};
    o.kl_beta = 0.1;
    policy_coefficients(&o, 0, 1, now, now, ref, 4, coef, &stats);
    assert_true(coef[0] == 0 && coef[1] == 0 && fabs(coef[2] - 0.1 * (1 - exp(-1))) < 1e-15 && fabs(coef[3] - 0.1 * (1 - exp(1))) < 1e-15);
    assert_true(fabs(stats.kl - (exp(-1) + (exp(1) - 2))) < 1e-14 && fabs(stats.loss - 0.1 * stats.kl) < 1e-15);

    stats = (struct policy_stats){0}; /* cut by the limit */
    policy_coefficients(&o, 2, 0, now, old, ref, 4, coef, &stats);
    for (int t = 0; t < 4; t++)
        assert_true(coef[t] == 0);
    assert_true(stats.loss == 0);
}

/* Far away the ratios are large, finite, and pull back. */
static void runaway_ratios(void **state)
{
    (void)state;
    const float now[] = {-1e4f, 0, -60}, old[] = {0, -1e4f, -1}, ref[] = {0, -1e4f, -1};
    struct grpo_options o = defaults;
    o.clip_low = o.clip_high = 0, o.kl_beta = 0.1;
    for (int sign = -1; sign <= 1; sign += 2) {
        struct policy_stats stats = {0};
        double coef[3];
        policy_coefficients(&o, sign, 1, now, old, ref, 3, coef, &stats);
        assert_true(isfinite(stats.loss) && isfinite(stats.kl) && stats.kl > 1e4);
        for (int t = 0; t < 3; t++)
            assert_true(isfinite(coef[t]));
        assert_true(coef[0] < -1e6 && coef[2] < -1e6); /* towards the reference: up */
    }
}

static void denominators(void **state)
{
    (void)state;
    struct grpo_options o = defaults;
    assert_true(policy_denominator(&o, 700, 8, 256) == 700);
    o.normaliser = NORMALISE_SEQUENCES;
    assert_true(policy_denominator(&o, 700, 8, 256) == 8);
    o.normaliser = NORMALISE_CONSTANT;
    assert_true(policy_denominator(&o, 700, 8, 256) == 2048);
    /* grpo: the mean over sequences of their token means */
    const float now[] = {-1, -2, -3, -4, -5};
    struct policy_stats stats = {0};
    double coef[5];
    policy_coefficients(&o, 3, 1.0 / 5, now, NULL, NULL, 5, coef, &stats);
    policy_coefficients(&o, -1, 1.0 / 2, now, NULL, NULL, 2, coef, &stats);
    assert_true(fabs(stats.loss / 2 - (-3 + 1) / 2.0) < 1e-15);
}

static void settings_of_a_run(void **state)
{
    (void)state;
    struct settings *s;
    struct plm_status st = {0};
    assert_int_equal(settings_parse(&s, "{}", 2, "t", &st), PLM_OK);
    struct section root = settings_root(s);
    struct grpo_options o = grpo_options_read(&root);
    assert_int_equal(settings_finish(s, &st), PLM_OK);
    assert_true(o.advantage == ADVANTAGE_CENTRED && o.normaliser == NORMALISE_TOKENS);
    assert_true(o.clip_low == 0.2 && o.clip_high == 0.2 && o.kl_beta == 0 && o.mask_truncated);
    settings_close(s);
    static const char text[] = "{\"advantage\": \"group_std\", \"normaliser\": \"constant\", \"clip_low\": 0, "
                               "\"clip_high\": 0.28, \"kl_beta\": 0.01, \"mask_truncated\": false}";
    assert_int_equal(settings_parse(&s, text, sizeof text - 1, "t", &st), PLM_OK);
    root = settings_root(s);
    o = grpo_options_read(&root);
    assert_int_equal(settings_finish(s, &st), PLM_OK);
    assert_true(o.advantage == ADVANTAGE_GROUP_STD && o.normaliser == NORMALISE_CONSTANT);
    assert_true(o.clip_low == 0 && o.clip_high == 0.28 && o.kl_beta == 0.01 && !o.mask_truncated);
    settings_close(s);
    static const char bad[] = "{\"clip_low\": 1.5}";
    assert_int_equal(settings_parse(&s, bad, sizeof bad - 1, "t", &st), PLM_OK);
    root = settings_root(s);
    grpo_options_read(&root);
    assert_int_equal(settings_finish(s, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "clip_low"));
    settings_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(advantages_of_groups), cmocka_unit_test(groups_without_variance), cmocka_unit_test(finite_differences),
        cmocka_unit_test(coefficients_of_an_answer), cmocka_unit_test(runaway_ratios), cmocka_unit_test(denominators), cmocka_unit_test(settings_of_a_run),
    };
    return RUN_WITH_EVERY_TABLE(tests, NULL, NULL);
}
