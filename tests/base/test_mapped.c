#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/mapped.h"

static void maps_files_and_names_what_it_cannot(void **state)
{
    (void)state;
    char path[] = "mapped-XXXXXX";
    struct plm_status st = {0};
    struct mapped_file m;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(mapped_open(&m, path, &st), PLM_OK); /* empty */
    assert_null(m.data);
    assert_int_equal(m.size, 0);
    mapped_close(&m);
    assert_int_equal(write(fd, "hello", 5), 5);
    assert_int_equal(mapped_open(&m, path, &st), PLM_OK);
    assert_int_equal(m.size, 5);
    assert_memory_equal(m.data, "hello", 5);
    mapped_close(&m);
    close(fd);
    remove(path);
    assert_int_equal(mapped_open(&m, path, &st), PLM_EIO);
    assert_non_null(strstr(st.message, path));
    assert_int_equal(mapped_open(&m, ".", &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "regular file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(maps_files_and_names_what_it_cannot)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
