/* The tables of operations a test runs with: every one this processor can run, or the one that PLM_OPS names. Include it after
 * <cmocka.h>. */
#ifndef TESTS_OPS_TABLES_H
#define TESTS_OPS_TABLES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/ops/ops.h"

/* The tables to test, portable first; with PLM_OPS in the environment only the one it names, which must be there. Returns their
 * number, at least 1. */
static inline int tables_to_test(const struct ops *tables[OPS_BEST])
{
    const char *only = getenv("PLM_OPS");
    const struct ops *previous = NULL;
    int n = 0;
    for (int level = OPS_PORTABLE; level < OPS_BEST; level++) {
        const struct ops *ops = ops_select((enum ops_level)level);
        if (ops != previous && (!only || !*only || !strcmp(only, ops->name)))
            tables[n++] = ops;
        previous = ops;
    }
    assert_true(n > 0);
    return n;
}

/* Call fn for every table to test. */
static inline void for_each_table(void (*fn)(const struct ops *ops))
{
    const struct ops *tables[OPS_BEST];
    const int n = tables_to_test(tables);
    for (int i = 0; i < n; i++)
        fn(tables[i]);
}

#ifdef cmocka_unit_test_setup /* the small cmocka.h of cross builds runs under one table at a time */
/* Run the group once for every table to test, each time as the one that OPS_BEST selects. Returns the number of failed tests. */
static inline int run_group_with_every_table(const struct CMUnitTest *tests, size_t n_tests, CMFixtureFunction setup,
                                             CMFixtureFunction teardown)
{
    const struct ops *tables[OPS_BEST];
    const char *set = getenv("PLM_OPS");
    char *before = set ? strdup(set) : NULL;
    const int n = tables_to_test(tables);
    int failed = 0;
    for (int i = 0; i < n; i++) {
        char group[64];
        snprintf(group, sizeof group, "PLM_OPS=%s", tables[i]->name);
        assert_int_equal(setenv("PLM_OPS", tables[i]->name, 1), 0);
        failed += _cmocka_run_group_tests(group, tests, n_tests, setup, teardown);
    }
    assert_int_equal(before ? setenv("PLM_OPS", before, 1) : unsetenv("PLM_OPS"), 0);
    free(before);
    return failed;
}
#define RUN_WITH_EVERY_TABLE(tests, setup, teardown) \
    run_group_with_every_table(tests, sizeof(tests) / sizeof *(tests), setup, teardown)
#endif

#endif
