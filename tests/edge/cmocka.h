/* The words of cmocka that the tests of the operations use, for builds whose target has no such library: the first failure is
 * printed and ends the program. */
#ifndef TESTS_EDGE_CMOCKA_H
#define TESTS_EDGE_CMOCKA_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

#define cmocka_unit_test(function) {#function, function}
#define fail_msg(...) (fprintf(stderr, "%s:%d: ", __FILE__, __LINE__), fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), exit(1))
#define assert_true(condition) \
    do { \
        if (!(condition)) \
            fail_msg("%s", #condition); \
    } while (0)
#define assert_false(condition) assert_true(!(condition))
#define assert_non_null(pointer) assert_true((pointer) != NULL)
#define assert_int_equal(a, b) assert_true((long long)(a) == (long long)(b))
#define assert_ptr_equal(a, b) assert_true((const void *)(a) == (const void *)(b))
#define assert_string_equal(a, b) assert_true(!strcmp(a, b))
#define assert_memory_equal(a, b, bytes) assert_true(!memcmp(a, b, bytes))
#define cmocka_run_group_tests(tests, setup, teardown) run_tests(tests, sizeof(tests) / sizeof *(tests), setup, teardown)

static inline int run_tests(const struct CMUnitTest *tests, size_t n, int (*setup)(void **state), int (*teardown)(void **state))
{
    void *state = NULL;
    if (setup && setup(&state))
        return 1;
    for (size_t i = 0; i < n; i++) {
        tests[i].run(&state);
        printf("%s\n", tests[i].name);
    }
    return teardown ? teardown(&state) : 0;
}

#endif
