/* Options, names, the layer statistic and layer budgets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "infer/base/random.h"
#include "infer/cache/policy.h"

/* Computed with the float64 reference. */
static const struct {
    int n_layer;
    double density[11];
    int64_t budget, prompt;
    float temperature;
    int64_t expected[11];
} known[] = {
    {11, {0.65, 3.56, 583, 480.75, 274, 191.75, 212.5, 315, 392.5, 441.75, 238.38}, 100, 500, 1,
     {156, 155, 57, 68, 97, 112, 108, 91, 79, 73, 104}},
    {11, {0.65, 3.56, 583, 480.75, 274, 191.75, 212.5, 315, 392.5, 441.75, 238.38}, 9, 500, 1,
     {13, 12, 8, 8, 8, 9, 9, 8, 8, 8, 8}},
    {11, {0.65, 3.56, 583, 480.75, 274, 191.75, 212.5, 315, 392.5, 441.75, 238.38}, 400, 420, 1,
     {420, 420, 301, 359, 420, 420, 420, 420, 417, 383, 420}},
    {3, {0, 0, 0}, 20, 10, 1, {20, 20, 20}},
    {4, {5, 0, 5, 1}, 10, 100, 0.2f, {8, 16, 8, 8}},
    {3, {1, 2, 3}, 8, 4, 1, {8, 8, 8}},
    {4, {0, 9, 9, 9}, 50, 60, 0.1f, {60, 47, 47, 46}},
};

static void budgets_are_those_of_the_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct policy_options o = policy_options_default(POLICY_D2O);
        int64_t budgets[11];
        o.temperature = known[i].temperature;
        assert_int_equal(policy_allocate(&o, known[i].density, known[i].n_layer, known[i].budget, known[i].prompt, budgets, NULL),
                         PLM_OK);
        for (int l = 0; l < known[i].n_layer; l++)
            if (budgets[l] != known[i].expected[l])
                fail_msg("case %zu, layer %d: %d, expected %d", i, l, (int)budgets[l], (int)known[i].expected[l]);
    }
}

/* Whatever the variances, the total is spent exactly and every layer stays within its bounds. */
static void budgets_conserve_the_total(void **state)
{
    (void)state;
    for (uint32_t trial = 0; trial < 2000; trial++) {
        const double u = random_uniform(1, RANDOM_TEST, trial, 0);
        const int n_layer = 1 + (int)(random_uniform(1, RANDOM_TEST, trial, 1) * 32);
        const int64_t budget = 8 + (int64_t)(random_uniform(1, RANDOM_TEST, trial, 2) * 500), prompt = 1 + (int64_t)(u * 2000);
        struct policy_options o = policy_options_default(trial % 2 ? POLICY_D2O : POLICY_D2O_COUNT);
        double density[32];
        int64_t budgets[32], sum = 0;
        o.temperature = trial % 3 ? 1 : 0.05f;
        for (int l = 0; l < n_layer; l++)
            density[l] = exp(4 * random_normal(1, RANDOM_TEST, trial, (uint64_t)(10 + l)));
        assert_int_equal(policy_allocate(&o, density, n_layer, budget, prompt, budgets, NULL), PLM_OK);
        for (int l = 0; l < n_layer; l++) {
            assert_true(budgets[l] >= o.min_budget && budgets[l] <= (prompt > budget ? prompt : budget));
            sum += budgets[l];
            for (int m = 0; m < n_layer; m++) /* denser layers get no less */
                assert_true(density[l] >= density[m] || budgets[l] >= budgets[m]);
        }
        assert_int_equal(sum, n_layer * budget);
    }
}

static void other_policies_are_uniform(void **state)
{
    (void)state;
    int64_t budgets[5];
    const struct policy_options o = policy_options_default(POLICY_H2O);
    assert_int_equal(policy_allocate(&o, NULL, 5, 30, 100, budgets, NULL), PLM_OK);
    for (int l = 0; l < 5; l++)
        assert_int_equal(budgets[l], 30);
}

static void bad_budgets_are_refused(void **state)
{
    (void)state;
    struct plm_status st = {0};
    int64_t budgets[2];
    const struct policy_options o = policy_options_default(POLICY_D2O);
    const double infinite[2] = {1, INFINITY}, fine[2] = {1, 2};
    assert_int_equal(policy_allocate(&o, fine, 2, 7, 100, budgets, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "7 slots"));
    assert_int_equal(policy_allocate(&o, infinite, 2, 8, 100, budgets, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "layer 1"));
}

static void density_is_the_variance_without_sinks(void **state)
{
    (void)state;
    const struct policy_options o = policy_options_default(POLICY_D2O);
    const double sums[] = {100, 50, 60, 70, 1, 2, 3, 6};
    assert_float_equal(policy_density(&o, sums, 8), 3.5, 1e-12); /* mean 3: (4 + 1 + 0 + 9) / 4 */
    assert_true(policy_density(&o, sums, 4) == 0 && policy_density(&o, sums, 1) == 0);
}

static void names_round_trip(void **state)
{
    (void)state;
    for (int p = 0; p < POLICY_COUNT; p++)
        assert_int_equal(cache_policy_by_name(cache_policy_name((enum cache_policy)p)), p);
    assert_int_equal(cache_policy_by_name("D2O"), POLICY_COUNT);
}

static void options_are_checked(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct policy_options bad[8];
    static const char *const says[8] = {"n_sink",      "batch", "min_budget", "min_budget",
                                        "temperature", "beta",  "slack",      "number 77"};
    for (int i = 0; i < 8; i++) {
        bad[i] = policy_options_default(POLICY_D2O);
        assert_int_equal(policy_options_check(&bad[i], &st), PLM_OK);
    }
    bad[0].n_sink = -1, bad[1].batch = 0, bad[2].min_budget = 4, bad[3].min_budget = 0, bad[4].temperature = NAN,
    bad[5].beta = 1.5f;
    bad[6].slack = -1, bad[7].policy = (enum cache_policy)77;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(policy_options_check(&bad[i], &st), PLM_EINVAL);
        assert_non_null(strstr(st.message, says[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(budgets_are_those_of_the_reference),
        cmocka_unit_test(budgets_conserve_the_total),
        cmocka_unit_test(other_policies_are_uniform),
        cmocka_unit_test(bad_budgets_are_refused),
        cmocka_unit_test(density_is_the_variance_without_sinks),
        cmocka_unit_test(names_round_trip),
        cmocka_unit_test(options_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
