/* Curves of any length in bounded memory: what thinning keeps. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tools/report.h"

static struct report_curves *curves;
static bool full;

static int setup(void **state)
{
    (void)state;
    full = false;
    return (curves = report_curves_create()) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    report_curves_free(curves);
    return 0;
}

static void put(const char *eval, int64_t turn, const char *key, int64_t step, int64_t round, double value)
{
    struct plm_status st = {0};
    assert_int_equal(report_curves_add(curves, &(struct report_curve_id){eval, key, turn, false}, step, round, value, &full, &st), PLM_OK);
}

static json_t *result(void)
{
    struct plm_status st = {0};
    json_t *run = json_object();
    assert_int_equal(report_curves_json(curves, run, &st), PLM_OK);
    return run;
}

static double at(const json_t *list, size_t i)
{
    assert_true(i < json_array_size(list));
    return json_number_value(json_array_get(list, i));
}

static void short_curves_are_exact(void **state)
{
    (void)state;
    for (int i = 0; i < REPORT_POINTS; i++) {
        put(NULL, -1, "loss", 10 * i, -1, i == 7 ? NAN : 1.0 / (i + 1));
        put(NULL, -1, "tokens", 10 * i, -1, 1e12 * i);
        put("text", -1, "loss", 10 * i, 3, i);
        put(NULL, 2, "loss", 10 * i, 3, -i);
    }
    json_t *run = result();
    const json_t *list = json_object_get(run, "curves"), *x = json_object_get(run, "x"), *loss = json_array_get(list, 0), *text = json_array_get(list, 2);
    assert_int_equal(json_array_size(list), 4);
    assert_int_equal(json_array_size(x), 2); /* steps of all, rounds of two */
    const json_t *y = json_object_get(loss, "y");
    assert_int_equal(json_array_size(y), REPORT_POINTS);
    for (size_t i = 0; i < REPORT_POINTS; i++) {
        assert_true(at(json_array_get(x, 0), i) == 10.0 * (double)i);
        assert_true(i == 7 ? json_is_null(json_array_get(y, i)) : at(y, i) == 1.0 / ((double)i + 1));
    }
    assert_int_equal(json_integer_value(json_object_get(loss, "gaps")), 1);
    assert_int_equal(json_integer_value(json_object_get(loss, "width")), 1);
    assert_null(json_object_get(loss, "low"));
    assert_null(json_object_get(loss, "round"));
    assert_true(json_number_value(json_object_get(loss, "last")) == 1.0 / REPORT_POINTS);
    assert_true(json_is_integer(json_array_get(json_object_get(json_array_get(list, 1), "y"), 1999))); /* counts stay whole */
    assert_string_equal(json_string_value(json_object_get(text, "eval")), "text");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 3), "turn")), 2);
    assert_true(at(json_array_get(x, (size_t)json_integer_value(json_object_get(text, "round"))), 0) == 3);
    json_decref(run);
}

/* Against the whole curve kept beside it: every bucket's mean, extremes and place. */
static void long_curves_keep_extremes(void **state)
{
    (void)state;
    const int lengths[] = {2001, 3999, 4001, 8000, 123457};
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        const int n = lengths[k];
        double *whole = malloc((size_t)n * sizeof *whole);
        report_curves_free(curves);
        curves = report_curves_create();
        assert_non_null(whole);
        assert_non_null(curves);
        for (int i = 0; i < n; i++) {
            whole[i] = i == n / 3 ? 1e6 : i == n / 2 ? -1e6 : i % 97 == 5 ? NAN : (i * 7919 % 1000) / 8.0;
            put(NULL, -1, "loss", i + 1, -1, whole[i]);
        }
        json_t *run = result();
        const json_t *c = json_array_get(json_object_get(run, "curves"), 0), *x = json_array_get(json_object_get(run, "x"), 0);
        const json_t *y = json_object_get(c, "y"), *low = json_object_get(c, "low"), *high = json_object_get(c, "high");
        const int width = (int)json_integer_value(json_object_get(c, "width")), points = (int)json_array_size(y);
        assert_true(points <= REPORT_POINTS && points > REPORT_POINTS / 2 - 1);
        assert_int_equal(points, (n + width - 1) / width);
        for (int b = 0; b < points; b++) {
            double least = INFINITY, greatest = -INFINITY, sum = 0;
            int values = 0, end = (b + 1) * width < n ? (b + 1) * width : n;
            for (int i = b * width; i < end; i++)
                if (isfinite(whole[i])) {
                    least = fmin(least, whole[i]);
                    greatest = fmax(greatest, whole[i]);
                    sum += whole[i];
                    values++;
                }
            assert_true(at(x, (size_t)b) == (b * width + 1 + end) / 2.0);
            assert_true(values > 0 || width == 1 || json_is_null(json_array_get(y, (size_t)b)));
            if (values > 0)
                assert_true(at(low, (size_t)b) == least && at(high, (size_t)b) == greatest && fabs(at(y, (size_t)b) - sum / values) <= 1e-9 * fabs(sum));
        }
        json_decref(run);
        free(whole);
    }
}

static void number_of_curves_is_bounded(void **state)
{
    (void)state;
    char key[32];
    for (int i = 0; i < REPORT_CURVES; i++) {
        snprintf(key, sizeof key, "k%d", i);
        put(NULL, -1, key, 1, -1, i);
    }
    assert_false(full);
    put(NULL, -1, "k7", 2, -1, 1);
    assert_false(full);
    put(NULL, -1, "another", 2, -1, 1);
    assert_true(full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(short_curves_are_exact, setup, teardown),
        cmocka_unit_test_setup_teardown(long_curves_keep_extremes, setup, teardown),
        cmocka_unit_test_setup_teardown(number_of_curves_is_bounded, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
