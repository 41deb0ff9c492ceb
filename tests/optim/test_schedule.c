/* The learning rate against values of the float64 reference. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "optim/schedule.h"

static const double positions[] = {1, 10, 49, 50, 57, 79, 80, 200};

static void reference_values(void **state)
{
    (void)state;
    static const struct {
        const char *shape;
        double floor, at57, at79;
    } golden[] = {
        {"linear", 5e-6, 0.00023116666666666663, 1.4833333333333329e-05},
        {"linear", 0, 0.00022999999999999995, 9.999999999999997e-06},
        {"linear", 3e-4, 3e-4, 3e-4},
        {"cosine", 5e-6, 0.00026211386175791564, 5.8080204331796904e-06},
        {"cosine", 0, 0.00026147172382160914, 8.217156947590064e-07},
        {"exponential", 5e-6, 0.00011540358392540332, 5.731149173788354e-06},
        {"exponential", 0, 9.201960630481217e-05, 3.6908593636362003e-07},
        {"exponential", 3e-4, 3e-4, 3e-4},
        {"one_minus_sqrt", 5e-6, 0.00015750146199580386, 9.958336326198369e-06},
        {"one_minus_sqrt", 0, 0.0001550862325381056, 5.042375924947495e-06},
    };
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        struct schedule s = {.peak = 3e-4, .floor = golden[i].floor, .warmup = 10, .stable_end = 50, .decay_end = 80,
                             .shape = decay_shape_by_name(golden[i].shape)};
        assert_int_equal(schedule_check(&s, NULL), PLM_OK);
        double want[] = {3e-5, 3e-4, 3e-4, 3e-4, golden[i].at57, golden[i].at79, golden[i].floor, golden[i].floor};
        for (size_t j = 0; j < sizeof positions / sizeof *positions; j++)
            assert_true(fabs(schedule_rate(&s, positions[j]) - want[j]) <= 1e-14 * want[j]);
    }
}

static void names_round_trip(void **state)
{
    (void)state;
    for (int i = 0; i < DECAY_SHAPES; i++) {
        assert_int_equal(decay_shape_by_name(decay_shape_name((enum decay_shape)i)), i);
        assert_true(decay_shape_at((enum decay_shape)i, 0, 0.1) == 1);
        assert_true(fabs(decay_shape_at((enum decay_shape)i, 1, 0.1)) < 1e-15);
    }
    assert_int_equal(decay_shape_by_name("quadratic"), DECAY_SHAPES);
}

static void no_warmup_and_no_end(void **state)
{
    (void)state;
    struct schedule s = {.peak = 1, .floor = 0.1, .stable_end = INFINITY, .decay_end = INFINITY};
    assert_int_equal(schedule_check(&s, NULL), PLM_OK);
    assert_true(schedule_rate(&s, 0) == 1);
    assert_true(schedule_rate(&s, 1e18) == 1);
    s.stable_end = s.decay_end = 0;
    assert_true(schedule_rate(&s, 1) == 0.1);
}

static void refuse(struct schedule s, const char *needle)
{
    struct plm_status st = {0};
    assert_int_equal(schedule_check(&s, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, needle));
}

static void impossible_values(void **state)
{
    (void)state;
    const struct schedule good = {.peak = 1, .floor = 0.1, .warmup = 2, .stable_end = 5, .decay_end = 8};
    struct schedule s = good;
    s.peak = 0;
    refuse(s, "peak");
    s.peak = NAN;
    refuse(s, "peak");
    s = good, s.floor = 2;
    refuse(s, "floor");
    s = good, s.floor = -1;
    refuse(s, "floor");
    s = good, s.warmup = INFINITY;
    refuse(s, "warmup");
    s = good, s.warmup = 6;
    refuse(s, "shorten the warmup");
    s = good, s.decay_end = 4;
    refuse(s, "decay ends");
    s = good, s.shape = DECAY_SHAPES;
    refuse(s, "shape");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_values),
        cmocka_unit_test(names_round_trip),
        cmocka_unit_test(no_warmup_and_no_end),
        cmocka_unit_test(impossible_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
