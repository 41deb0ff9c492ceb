/* AdamW and the global norm: values of the float64 reference, and independence of threads and ranges. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "infer/base/random.h"
#include "optim/adamw.h"
#include "optim/clip.h"

/* A 2-D tensor of 4 elements that decays, padding, and a vector of 2 that does not. */
static struct tensor_desc two[] = {
    {.name = "w", .n_dims = 2, .rows = 2, .cols = 2, .decay = true, .offset = 0},
    {.name = "n", .n_dims = 1, .rows = 1, .cols = 2, .decay = false, .offset = 16},
};

static void reference_updates(void **state)
{
    (void)state;
    static const double want_norm[] = {3.939483627329856, 3.0929607579146556, 3.105564562201211};
    static const double want[3][6] = {
        {0.4895000007878967, -0.23975000019697418, 0.9890000063031699, 0.11487500013131612, 1.0099999968484141,
         0.7400000002626322},
        {0.46994205022109276, -0.2193485613039928, 0.9671000779895207, 0.09524252768268464, 1.0285789451652791,
         0.7200780614839325},
        {0.44070875070775656, -0.18874066422675215, 0.9342489417048205, 0.06707447361249375, 1.0564024161352146,
         0.690128210255578},
    };
    static const double want_m[] = {0.08767926409199087, -0.16371933413747108, 0.005116229191795971, 0.13753097392878125};
    static const double want_v[] = {0.017356840130868786, 0.052228814281257106, 5.100470144654014e-05,
                                    0.04252483034504126};
    const struct tensor_table table = {.n_tensors = 2, .tensors = two, .parameters = 6, .padded = 32};
    float w[32] = {0.5f, -0.25f, 1.0f, 0.125f}, g[32] = {0}, m[32] = {0}, v[32] = {0};
    w[16] = 1.0f, w[17] = 0.75f;
    w[5] = 7.0f; /* padding must stay as it is */
    const struct adamw o = adamw_default();
    const struct adamw_range range = {0, 32, w, g, m, v};
    for (int t = 1; t <= 3; t++) {
        const float grads[] = {0.5f * (float)t, -2.0f, 0.0625f, 3.0f / (float)t};
        for (int i = 0; i < 4; i++)
            g[i] = 10 * grads[i]; /* a sum over a weight of 10 */
        g[16] = -1.25f * (float)t, g[17] = 15.0f;
        double partial;
        double norm = sqrt(norm_sum_squares(g, 32, &partial, NULL)) / 10;
        assert_true(fabs(norm - want_norm[t - 1]) < 1e-6);
        adamw_update(&o, &table, &range, t, 1e-2 * t, clip_factor(norm, 1.0) / 10, NULL);
        for (int i = 0; i < 6; i++)
            assert_true(fabs(w[i < 4 ? i : 12 + i] - want[t - 1][i]) < 5e-7);
    }
    for (int i = 0; i < 4; i++) {
        assert_true(fabs(m[i] - want_m[i]) < 1e-6 * fabs(want_m[i]));
        assert_true(fabs(v[i] - want_v[i]) < 1e-6 * want_v[i]);
    }
    assert_true(w[5] == 7.0f && m[5] == 0 && v[5] == 0);
}

enum { ELEMENTS = 300 * 1000 };

struct arenas {
    float *w, *g, *m, *v;
};

static struct arenas arenas_create(void)
{
    float *all = calloc(4 * ELEMENTS, sizeof *all);
    assert_non_null(all);
    struct arenas a = {all, all + ELEMENTS, all + 2 * ELEMENTS, all + 3 * ELEMENTS};
    for (int i = 0; i < ELEMENTS; i++) {
        a.w[i] = (float)random_normal(1, RANDOM_TEST, 0, (uint64_t)i);
        a.g[i] = (float)random_normal(1, RANDOM_TEST, 1, (uint64_t)i);
    }
    return a;
}

static void same_for_any_split(void **state)
{
    (void)state;
    struct tensor_desc d[] = {
        {.n_dims = 2, .rows = 1000, .cols = 131, .decay = true, .offset = 0},
        {.n_dims = 1, .rows = 1, .cols = 999, .offset = 131008},
        {.n_dims = 2, .rows = 500, .cols = 300, .decay = true, .offset = 132016},
    };
    const struct tensor_table table = {.n_tensors = 3, .tensors = d, .padded = ELEMENTS};
    const struct adamw o = adamw_default();
    struct arenas one = arenas_create(), many = arenas_create();
    struct thread_pool *pool;
    assert_int_equal(pool_create(&pool, 3, NULL), PLM_OK);
    for (int t = 1; t <= 3; t++) {
        adamw_update(&o, &table, &(struct adamw_range){0, ELEMENTS, one.w, one.g, one.m, one.v}, t, 1e-3, 0.5, NULL);
        static const int64_t cuts[] = {0, 77, 131003, 131011, 200001, ELEMENTS};
        for (int i = 0; i < 5; i++) {
            int64_t b = cuts[i];
            adamw_update(&o, &table, &(struct adamw_range){b, cuts[i + 1], many.w + b, many.g + b, many.m + b, many.v + b},
                         t, 1e-3, 0.5, pool);
        }
    }
    assert_memory_equal(one.w, many.w, sizeof(float) * 4 * ELEMENTS);
    pool_destroy(pool);
    free(one.w);
    free(many.w);
}

static void norm_of_any_number_of_threads(void **state)
{
    (void)state;
    struct arenas a = arenas_create();
    double *partial = malloc(sizeof *partial * (size_t)norm_partials(ELEMENTS));
    assert_non_null(partial);
    long double exact = 0;
    for (int i = 0; i < ELEMENTS; i++)
        exact += (long double)a.g[i] * a.g[i];
    double one = norm_sum_squares(a.g, ELEMENTS, partial, NULL);
    assert_true(fabsl(one - exact) < 1e-13L * exact);
    for (int n = 2; n <= 4; n++) {
        struct thread_pool *pool;
        assert_int_equal(pool_create(&pool, n, NULL), PLM_OK);
        assert_true(norm_sum_squares(a.g, ELEMENTS, partial, pool) == one);
        pool_destroy(pool);
    }
    for (int i = 0; i < 20; i++) /* short arrays, all remainders */
        assert_true(norm_sum_squares((const float[20]){[19] = 3, [0] = 2}, i, partial, NULL) == (i > 0 ? 4 : 0));
    a.g[200000] = 3e38f;
    assert_true(isfinite(norm_sum_squares(a.g, ELEMENTS, partial, NULL)));
    a.g[200000] = INFINITY;
    assert_false(isfinite(norm_sum_squares(a.g, ELEMENTS, partial, NULL)));
    a.g[200000] = NAN;
    assert_false(isfinite(norm_sum_squares(a.g, ELEMENTS, partial, NULL)));
    free(partial);
    free(a.w);
}

static void factor(void **state)
{
    (void)state;
    assert_true(clip_factor(4, 1) == 0.25);
    assert_true(clip_factor(0.5, 1) == 1);
    assert_true(clip_factor(1, 1) == 1);
    assert_true(clip_factor(0, 1) == 1);
    assert_true(clip_factor(100, 0) == 1);
}

static void refuse(struct adamw o, const char *needle)
{
    struct plm_status st = {0};
    assert_int_equal(adamw_check(&o, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, needle));
}

static void impossible_values(void **state)
{
    (void)state;
    struct adamw o = adamw_default();
    assert_int_equal(adamw_check(&o, NULL), PLM_OK);
    o.beta1 = 1;
    refuse(o, "beta1");
    o = adamw_default(), o.beta2 = NAN;
    refuse(o, "beta2");
    o = adamw_default(), o.eps = 1e-60; /* zero in float32 */
    refuse(o, "eps");
    o = adamw_default(), o.weight_decay = -0.1;
    refuse(o, "weight_decay");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_updates),
        cmocka_unit_test(same_for_any_split),
        cmocka_unit_test(norm_of_any_number_of_threads),
        cmocka_unit_test(factor),
        cmocka_unit_test(impossible_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
