#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "infer/base/log.h"
#include "infer/base/status.h"

static void messages_gain_context_on_the_way_up(void **state)
{
    (void)state;
    struct plm_status st = {0};
    assert_int_equal(status_set(&st, PLM_EFORMAT, "byte %d is wrong", 7), PLM_EFORMAT);
    assert_int_equal(status_prefix(&st, "shard '%s'", "x.h5"), PLM_EFORMAT);
    assert_string_equal(st.message, "shard 'x.h5': byte 7 is wrong");
    assert_int_equal(status_set(NULL, PLM_EIO, "nobody listens"), PLM_EIO);
    for (int i = 0; i < 500; i++)
        status_prefix(&st, "again and again"); /* cut, never overrun */
    assert_true(strlen(st.message) < sizeof st.message);
}

static void every_code_has_a_name(void **state)
{
    (void)state;
    for (int code = PLM_OK; code <= PLM_EINTERNAL; code++)
        assert_string_not_equal(plm_code_name(code), plm_code_name(-1));
}

static void remember(void *user, enum log_level level, const char *line)
{
    if (level == LOG_WARN)
        strcpy(user, line);
}

static void log_lines_go_to_the_sink(void **state)
{
    (void)state;
    char seen[2048] = "";
    log_set_sink(remember, seen);
    log_warn("%d records skipped", 3);
    log_debug("below the level");
    log_set_sink(NULL, NULL);
    assert_string_equal(seen, "3 records skipped");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(messages_gain_context_on_the_way_up), cmocka_unit_test(every_code_has_a_name),
                                       cmocka_unit_test(log_lines_go_to_the_sink)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
