/* The stop request, and where its handlers run. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <unistd.h>

#include "train/signals.h"

static const int numbers[] = {SIGINT, SIGTERM, SIGUSR1};

static void test_request(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct plm_status st = {0};
        assert_int_equal(signals_open(&st), PLM_OK);
        assert_int_equal(signals_stop_requested(), 0);
        raise(numbers[i]);
        assert_int_equal(signals_stop_requested(), numbers[i]);
        assert_int_equal(signals_open(&st), PLM_EINVAL);
        signals_close();
    }
}

/* oneDNN's kernels use the stack register for their workspace: a handler on the current stack would damage the heap. */
static void test_own_stack(void **state)
{
    (void)state;
    struct plm_status st = {0};
    stack_t before, during, after;
    assert_int_equal(sigaltstack(NULL, &before), 0);
    assert_int_equal(signals_open(&st), PLM_OK);
    assert_int_equal(sigaltstack(NULL, &during), 0);
    assert_false(during.ss_flags & SS_DISABLE);
    assert_ptr_not_equal(during.ss_sp, before.ss_sp);
    const long frame = sysconf(_SC_MINSIGSTKSZ);
    assert_true(frame < 0 || during.ss_size >= 2 * (size_t)frame);
    for (size_t i = 0; i < 3; i++) {
        struct sigaction action;
        assert_int_equal(sigaction(numbers[i], NULL, &action), 0);
        assert_true(action.sa_flags & SA_ONSTACK);
    }
    signals_close();
    assert_int_equal(sigaltstack(NULL, &after), 0);
    assert_ptr_equal(after.ss_sp, before.ss_sp);
    assert_int_equal(after.ss_flags, before.ss_flags);
}

static void test_restored(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct sigaction action, ignore = {.sa_handler = SIG_IGN};
    assert_int_equal(sigaction(SIGUSR1, &ignore, NULL), 0);
    assert_int_equal(signals_open(&st), PLM_OK);
    signals_close();
    assert_int_equal(sigaction(SIGUSR1, NULL, &action), 0);
    assert_true(action.sa_handler == SIG_IGN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_request), cmocka_unit_test(test_own_stack), cmocka_unit_test(test_restored)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
