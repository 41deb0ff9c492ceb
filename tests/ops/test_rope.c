/* Frequencies of scaled rotary embeddings against values of an independent program (YaRN's formulas as transformers has
 * them). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>

#include <cmocka.h>

#include "infer/ops/rope.h"

static void expect(float theta, int width, const struct rope_scaling *s, const double *want)
{
    for (int i = 0; i < width / 2; i++) {
        const double got = rope_frequency(theta, width, s, i);
        if (!(fabs(got - want[i]) <= 1e-12 * want[i]))
            fail_msg("pair %d of %d: %.15g, expected %.15g", i, width, got, want[i]);
    }
}

static void yarn_mixes_frequencies(void **state)
{
    (void)state;
    static const double wide[] = {1,
                                  0.749894209332456,
                                  0.562341325190349,
                                  0.421696503428582,
                                  0.316227766016838,
                                  0.237137370566166,
                                  0.177827941003892,
                                  0.133352143216332,
                                  0.1,
                                  0.0749894209332456,
                                  0.0562341325190349,
                                  0.039736785900001,
                                  0.0279739946861049,
                                  0.0196094364122022,
                                  0.0136790723849148,
                                  0.00948851788270058,
                                  0.00653846153846154,
                                  0.00447052317102041,
                                  0.00302799175102496,
                                  0.00202738703571434,
                                  0.00133788670237893,
                                  0.000866463469376374,
                                  0.000547162895396592,
                                  0.000333380358040831,
                                  0.00025,
                                  0.000187473552333114,
                                  0.000140585331297587,
                                  0.000105424125857146,
                                  7.90569415042095e-05,
                                  5.92843426415414e-05,
                                  4.44569852509731e-05,
                                  3.33380358040831e-05};
    static const double narrow[] = {1,
                                    0.167972304151034,
                                    0.0234308885495979,
                                    0.00166690179020416,
                                    0.000395284707521047,
                                    9.3736776166557e-05,
                                    2.22284926254865e-05,
                                    5.27120629285728e-06};
    static const double untruncated[] = {1, 0.0903738009182127, 0.0178885438199983, 0.0037829664360127};
    expect(1e4f, 64,
           &(struct rope_scaling){
               .type = ROPE_YARN, .factor = 4, .original = 4096, .beta_fast = 32, .beta_slow = 1, .mix = 1},
           wide);
    expect(1e5f, 16,
           &(struct rope_scaling){
               .type = ROPE_YARN, .factor = 8, .original = 128, .beta_fast = 32, .beta_slow = 1, .mix = 1},
           narrow);
    expect(500, 8,
           &(struct rope_scaling){.type = ROPE_YARN,
                                  .factor = 2.5f,
                                  .original = 64,
                                  .beta_fast = 16,
                                  .beta_slow = 2,
                                  .mix = 1,
                                  .untruncated = 1},
           untruncated);
}

static void linear_slows_all(void **state)
{
    (void)state;
    const struct rope_scaling none = {0}, linear = {.type = ROPE_LINEAR, .factor = 4, .magnitude = 1.5f};
    for (int i = 0; i < 8; i++) {
        assert_true(rope_frequency(1e5f, 16, &none, i) == pow(1e5, -2.0 * i / 16));
        assert_true(rope_frequency(1e5f, 16, &linear, i) == pow(1e5, -2.0 * i / 16) / 4);
    }
    assert_true(rope_magnitude(&none) == 1 && rope_magnitude(&linear) == 1.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(yarn_mixes_frequencies), cmocka_unit_test(linear_slows_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
