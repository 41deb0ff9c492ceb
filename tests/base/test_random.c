#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "infer/base/random.h"

/* Known answers of Random123 (kat_vectors, philox4x32 with 10 rounds). */
static void philox_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof kat / sizeof *kat; i++) {
        uint32_t out[4];
        philox4x32(kat[i].counter, kat[i].key, out);
        assert_memory_equal(out, kat[i].want, sizeof out);
    }
}

static void distributions_have_their_moments(void **state)
{
    (void)state;
    enum { N = 100000 };
    double sum = 0, square = 0, uniform = 0;
    for (int i = 0; i < N; i++) {
        double z = random_normal(7, RANDOM_TEST, 0, (uint64_t)i), u = random_uniform(7, RANDOM_TEST, 1, (uint64_t)i);
        assert_true(isfinite(z) && u >= 0 && u < 1);
        sum += z, square += z * z, uniform += u;
    }
    /* six standard errors */
    assert_true(fabs(sum / N) < 6 / sqrt(N));
    assert_true(fabs(square / N - 1) < 6 * sqrt(2.0 / N));
    assert_true(fabs(uniform / N - 0.5) < 6 * sqrt(1.0 / 12 / N));
}

static void every_part_of_the_key_matters(void **state)
{
    (void)state;
    const uint64_t base = random_u64(1, RANDOM_INIT, 2, 3);
    assert_true(base == random_u64(1, RANDOM_INIT, 2, 3));
    assert_true(base != random_u64(2, RANDOM_INIT, 2, 3));
    assert_true(base != random_u64(1ull << 32, RANDOM_INIT, 2, 3));
    assert_true(base != random_u64(1, RANDOM_SAMPLING, 2, 3));
    assert_true(base != random_u64(1, RANDOM_INIT, 3, 3));
    assert_true(base != random_u64(1, RANDOM_INIT, 2, 3 + (1ull << 32)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(philox_known_answers), cmocka_unit_test(distributions_have_their_moments),
                                       cmocka_unit_test(every_part_of_the_key_matters)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
