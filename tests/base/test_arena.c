#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <unistd.h>

#include "infer/base/arena.h"

static void layout(struct arena *a, unsigned char **x, float **y)
{
    *x = arena_alloc(a, 3, 1);
    *y = arena_alloc(a, 100, sizeof **y);
}

static void measured_then_committed(void **state)
{
    (void)state;
    struct arena a = {0};
    unsigned char *x;
    float *y;
    layout(&a, &x, &y);
    assert_null(x);
    assert_null(y);
    assert_int_equal(a.used, 64 + 448);
    assert_int_equal(arena_commit(&a, 1000, "test", NULL), PLM_OK);
    assert_true(a.size >= 1000);
    layout(&a, &x, &y);
    assert_int_equal((uintptr_t)x % ARENA_ALIGN, 0);
    assert_int_equal((uintptr_t)y % ARENA_ALIGN, 0);
    for (int i = 0; i < 100; i++)
        assert_true(y[i] == 0);
    assert_null(arena_alloc(&a, a.size, 1)); /* more than was measured */
    arena_free(&a);
    assert_null(a.base);
}

static void impossible_sizes_are_errors(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct arena a = {0};
    assert_null(arena_alloc(&a, SIZE_MAX / 2, 16)); /* the product overflows */
    assert_null(arena_alloc(&a, 8, 8));
    assert_int_equal(arena_commit(&a, 0, "weights", &st), PLM_ENOMEM);
    assert_non_null(strstr(st.message, "weights"));
    arena_free(&a);
}

/* An allocation may succeed that no memory stands behind: the process would be ended while it is filled with zeros. */
static void more_than_the_machine_has_is_an_error(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct arena a = {0};
    const double total = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    arena_alloc(&a, (size_t)(total / 1048576), 1048576);
    if (access("/proc/meminfo", R_OK) != 0)
        skip();
    assert_int_equal(arena_commit(&a, 0, "a cache", &st), PLM_ENOMEM);
    assert_non_null(strstr(st.message, "a cache"));
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(measured_then_committed), cmocka_unit_test(impossible_sizes_are_errors),
                                       cmocka_unit_test(more_than_the_machine_has_is_an_error)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
