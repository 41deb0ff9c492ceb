/* The lock of a directory: who has it, who waits, and what a killed holder leaves. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/directory_lock.h"
#include "infer/base/log.h"

static char directory[] = "locked-XXXXXX";

/* A child that takes the lock, says so through a pipe, and keeps it until it is told or killed. */
static pid_t start_holder(int *told)
{
    int said[2], wait[2];
    assert_int_equal(pipe(said) | pipe(wait), 0);
    const pid_t child = fork();
    if (child == 0) {
        int lock;
        char byte = 0;
        close(wait[1]);
        _exit(directory_lock(&lock, directory, 0, NULL) || write(said[1], "x", 1) != 1 || read(wait[0], &byte, 1) < 0);
    }
    char byte;
    assert_int_equal(read(said[0], &byte, 1), 1);
    close(said[0]), close(said[1]), close(wait[0]);
    *told = wait[1];
    return child;
}

static void one_holder_at_a_time(void **state)
{
    (void)state;
    struct plm_status st = {0};
    int told, lock;
    const pid_t child = start_holder(&told);
    char process[64];
    snprintf(process, sizeof process, "process %ld on ", (long)child);
    assert_int_equal(directory_lock(&lock, directory, 0.05, &st), PLM_EINVAL);
    assert_int_equal(lock, -1);
    assert_non_null(strstr(st.message, process)); /* who it is */
    assert_non_null(strstr(st.message, "did not end within 0.05 s"));
    close(told);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(directory_lock(&lock, directory, 0, &st), PLM_OK);
    directory_unlock(lock);
}

static int told_while_waiting = -1;

/* The first message of the one that waits lets the holder go. */
static void let_go(void *ctx, enum log_level level, const char *message)
{
    (void)ctx, (void)level;
    if (strstr(message, "waiting for") && told_while_waiting >= 0) {
        close(told_while_waiting);
        told_while_waiting = -1;
    }
}

static void a_holder_that_ends_is_waited_for(void **state)
{
    (void)state;
    struct plm_status st = {0};
    int lock;
    const pid_t child = start_holder(&told_while_waiting);
    log_set_sink(let_go, NULL);
    const int code = directory_lock(&lock, directory, 1e9, &st);
    log_set_sink(NULL, NULL);
    assert_int_equal(code, PLM_OK);
    assert_int_equal(waitpid(child, NULL, 0), child);
    directory_unlock(lock);
}

static void a_killed_holder_holds_nothing(void **state)
{
    (void)state;
    struct plm_status st = {0};
    int told, lock;
    const pid_t child = start_holder(&told);
    kill(child, SIGKILL);
    assert_int_equal(directory_lock(&lock, directory, 1e9, &st), PLM_OK);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(told);
    directory_unlock(lock);
}

static void links_are_not_followed(void **state)
{
    (void)state;
    struct plm_status st = {0};
    int lock;
    char path[64];
    snprintf(path, sizeof path, "%s/.lock", directory);
    unlink(path);
    assert_int_equal(symlink("victim", path), 0);
    assert_int_equal(directory_lock(&lock, directory, 0, &st), PLM_EIO);
    assert_int_not_equal(access("victim", F_OK), 0);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(directory_lock(&lock, directory, 0, &st), PLM_EIO);
    assert_int_equal(directory_lock(&lock, "no/such/directory", 0, &st), PLM_EIO);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_holder_at_a_time), cmocka_unit_test(a_holder_that_ends_is_waited_for),
        cmocka_unit_test(a_killed_holder_holds_nothing), cmocka_unit_test(links_are_not_followed),
    };
    if (!mkdtemp(directory))
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char path[64];
    snprintf(path, sizeof path, "%s/.lock", directory);
    unlink(path);
    rmdir(directory);
    return failed;
}
