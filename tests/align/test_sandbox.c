/* The sandbox: what programs print and how they end, the limits, and that nothing of them is left over. Programs are shell scripts, or this
 * test itself called with a word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "train/align/sandbox.h"

static char self[512];

static int run_program(struct sandbox_result *r, const char *const *argv, const char *input, size_t n, const struct sandbox_limits *limits,
                       struct plm_status *st)
{
    const struct sandbox_program p = {.argv = argv, .input = input, .input_bytes = n};
    return sandbox_run(r, &p, limits, st);
}

static int run_script(struct sandbox_result *r, const char *script, const struct sandbox_limits *limits)
{
    static const char *const shell[] = {"sh", "-s", NULL};
    struct plm_status st = {0};
    const int code = run_program(r, shell, script, strlen(script), limits, &st);
    if (code)
        fail_msg("%s", st.message);
    return code;
}

static struct sandbox_limits quick(double timeout_s)
{
    struct sandbox_limits l = sandbox_limits_default();
    l.timeout_s = timeout_s;
    return l;
}

static bool find_process(const char *word)
{
    DIR *proc = opendir("/proc");
    bool found = false;
    for (struct dirent *e; proc && !found && (e = readdir(proc));) {
        char path[300], line[4096];
        snprintf(path, sizeof path, "/proc/%s/cmdline", e->d_name);
        FILE *f = *e->d_name >= '0' && *e->d_name <= '9' ? fopen(path, "r") : NULL;
        if (!f)
            continue;
        const size_t n = fread(line, 1, sizeof line, f);
        fclose(f);
        found = memmem(line, n, word, strlen(word)) != NULL;
    }
    if (proc)
        closedir(proc);
    return found;
}

/* Does a process whose command line has this word stay? (Without a namespace of its own, what was killed takes a moment to die.) */
static bool process_exists(const char *word)
{
    for (int i = 0; i < 200 && find_process(word); i++)
        usleep(10000);
    return find_process(word);
}

static void programs_run_to_their_end(void **state)
{
    (void)state;
    struct sandbox_result r;
    const struct sandbox_limits l = quick(20);
    run_script(&r, "echo out; echo err >&2; exit 7", &l);
    assert_true(r.end == SANDBOX_EXITED && r.status == 7 && !r.output_cut);
    assert_string_equal(r.output, "out\n");
    assert_string_equal(r.errors, "err\n");
    sandbox_result_free(&r);
    static const char *const cat[] = {"cat", NULL};
    struct plm_status st = {0};
    const size_t n = 1 << 20;
    char *big = malloc(n);
    for (size_t i = 0; i < n; i++)
        big[i] = (char)('a' + i % 23);
    assert_int_equal(run_program(&r, cat, big, n, &l, &st), PLM_OK);
    assert_true(r.end == SANDBOX_EXITED && r.status == 0 && r.output_cut && r.output_bytes == l.output_bytes);
    assert_memory_equal(r.output, big + n - l.output_bytes, l.output_bytes); /* the end of it is kept */
    sandbox_result_free(&r);
    free(big);
    assert_int_equal(run_program(&r, cat, "", 0, &l, &st), PLM_OK);
    assert_true(r.output_bytes == 0 && r.status == 0);
    sandbox_result_free(&r);
}

static void the_environment_is_empty(void **state)
{
    (void)state;
    struct sandbox_result r;
    const struct sandbox_limits l = quick(20);
    setenv("TEST_SECRET", "visible", 1);
    const int fd = open("/dev/null", O_WRONLY);
    assert_int_equal(dup2(fd, 9), 9); /* not closed at exec */
    run_script(&r, "env; (: >&9) 2>/dev/null && echo STILL; ls -A; echo x > file && cat file; pwd", &l);
    close(fd);
    close(9);
    assert_null(strstr(r.output, "SECRET"));
    assert_null(strstr(r.output, "STILL"));
    assert_non_null(strstr(r.output, "PATH="));
    const char *directory = strstr(r.output, "\nx\n/"); /* nothing listed before the file was made */
    assert_non_null(directory);
    assert_null(strstr(r.output, "\nfile\n"));
    char path[300];
    snprintf(path, sizeof path, "%.*s", (int)strcspn(directory + 3, "\n"), directory + 3);
    assert_int_equal(access(path, F_OK), -1);
    sandbox_result_free(&r);
}

static void time_is_limited(void **state)
{
    (void)state;
    struct sandbox_result r;
    struct sandbox_limits l = quick(0.3);
    run_script(&r, "echo begun; sleep 1234561", &l);
    assert_true(r.end == SANDBOX_TIMEOUT && r.seconds < 5);
    assert_string_equal(r.output, "begun\n");
    assert_false(process_exists("1234561"));
    sandbox_result_free(&r);
    run_script(&r, "exec yes", &l); /* a flood */
    assert_true(r.end == SANDBOX_TIMEOUT && r.seconds < 5 && r.output_cut && r.output_bytes == l.output_bytes);
    sandbox_result_free(&r);
    run_script(&r, "exec >&- 2>&-; sleep 1234562", &l); /* closed streams are no end */
    assert_true(r.end == SANDBOX_TIMEOUT && r.seconds < 5);
    sandbox_result_free(&r);
    run_script(&r, "trap '' TERM INT HUP XCPU; while :; do :; done", &l);
    assert_int_equal(r.end, SANDBOX_TIMEOUT);
    sandbox_result_free(&r);
    l = quick(20);
    l.child.cpu_s = 0.5; /* rounded up to 1 s */
    run_script(&r, "trap '' XCPU; while :; do :; done", &l);
    assert_true(r.end == SANDBOX_SIGNALLED && r.status == SIGKILL && r.seconds < 15);
    sandbox_result_free(&r);
}

/* A program that leaves processes behind, which hold its output open: it has ended, and so have they. */
static void nothing_is_left_over(void **state)
{
    (void)state;
    struct sandbox_result r;
    const struct sandbox_limits l = quick(20);
    run_script(&r, "sleep 1234563 & (sleep 1234564 &) ; (setsid sleep 1234565 &) ; (trap '' HUP TERM; sleep 1234566) & echo ended", &l);
    assert_true(r.end == SANDBOX_EXITED && r.seconds < 10);
    assert_string_equal(r.output, "ended\n");
    sandbox_result_free(&r);
    assert_false(process_exists("1234563") || process_exists("1234564") || process_exists("1234565") || process_exists("1234566"));
}

static void memory_files_and_processes_are_limited(void **state)
{
    (void)state;
    struct sandbox_result r;
    struct sandbox_limits l = quick(30);
    l.child.memory_bytes = 64 << 20;
    run_script(&r, "x=$(head -c 100000000 /dev/zero | tr '\\0' a); echo ${#x}", &l);
    assert_null(strstr(r.output, "100000000"));
    sandbox_result_free(&r);
    l = quick(30);
    l.child.file_bytes = 1 << 20;
    run_script(&r, "head -c 5000000 /dev/zero > f 2>/dev/null; wc -c < f", &l);
    const long written = strtol(r.output, NULL, 10);
    assert_true(written > 0 && written <= 1 << 20);
    sandbox_result_free(&r);
    l = quick(30);
    l.child.processes = 12;
    run_script(&r, "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; echo ALL", &l);
    if (!r.missing || geteuid()) /* root without another user is not limited */
        assert_null(strstr(r.output, "ALL"));
    sandbox_result_free(&r);
}

static void files_elsewhere_stay(void **state)
{
    (void)state;
    struct sandbox_result r;
    const struct sandbox_limits l = quick(20);
    char cwd[400], script[1000];
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(script, sizeof script, "echo x > '%s/sandbox-escape' 2>/dev/null; echo x > /tmp/sandbox-escape; echo $$; ls /proc | grep -c '^[0-9]'", cwd);
    run_script(&r, script, &l);
    if (!(r.missing & CHILD_NAMESPACES)) {
        assert_int_equal(access("sandbox-escape", F_OK), -1);
        assert_int_equal(access("/tmp/sandbox-escape", F_OK), -1);
        assert_int_equal(strtol(r.output, NULL, 10), 1); /* it sees its own processes only */
    }
    sandbox_result_free(&r);
}

static void what_cannot_start_is_named(void **state)
{
    (void)state;
    struct sandbox_result r;
    const struct sandbox_limits l = quick(20);
    struct plm_status st = {0};
    static const char *const nothing[] = {"no-such-program", NULL}, *const no_program[] = {"/dev/null", NULL};
    assert_int_equal(run_program(&r, nothing, "", 0, &l, &st), PLM_EIO);
    assert_non_null(strstr(st.message, "cannot start 'no-such-program'"));
    assert_null(r.output);
    assert_int_equal(run_program(&r, no_program, "", 0, &l, &st), PLM_EIO);
    assert_non_null(strstr(st.message, "'/dev/null'"));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child of either */
    assert_int_equal(errno, ECHILD);
}

/* ---- what this test does when a sandbox runs it ---- */

static void inside(void)
{
    const bool inet = socket(AF_INET, SOCK_STREAM, 0) >= 0, local = socket(AF_UNIX, SOCK_STREAM, 0) >= 0;
    int pair[2];
    printf("%s %s", inet ? "INET" : "-", local ? "LOCAL" : "-");
    printf(" %s", socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ? "NO-PAIR" : "pair");
    printf(" %s", unshare(CLONE_NEWUSER) ? "-" : "UNSHARE");
    printf(" %s", getpid() != getsid(0) || setsid() >= 0 ? "SESSION" : "-");
    printf(" %s", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0) == -1 ? "-" : "CLONE");
    printf(" %s", getppid() > 1 && kill(getppid(), 0) == 0 ? "PARENT" : "-");
    printf(" %s\n", geteuid() == 0 ? "ROOT" : "-");
}

static void check_inside(void)
{
    struct sandbox_result r;
    struct sandbox_limits l = quick(20);
    l.child.memory_bytes = 0; /* sanitizers reserve terabytes */
    struct plm_status st = {0};
    const char *const argv[] = {self, "inside", NULL};
    if (run_program(&r, argv, "", 0, &l, &st)) {
        if (strstr(st.message, "Permission denied"))
            return; /* another user cannot reach the directory of this test */
        fail_msg("%s", st.message);
    }
    if (!(r.missing & CHILD_FILTER))
        assert_string_equal(r.output, "- - pair - - - - -\n");
    sandbox_result_free(&r);
}

static void the_network_is_out_of_reach(void **state)
{
    (void)state;
    check_inside();
}

/* In a forked copy of the test, since it cannot be taken back: become a common user, or forbid namespaces, and go through it again. */
static void in_a_copy(void (*prepare)(void), void (*const *checks)(void **))
{
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) {
        prepare();
        for (; *checks; checks++)
            (*checks)(NULL);
        _exit(0); /* a failed check ends the copy with another status */
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void become_common(void)
{
    if (chdir("/") || setresgid(12345, 12345, 12345) || setresuid(12345, 12345, 12345))
        _exit(99);
    prctl(PR_SET_DUMPABLE, 1); /* as of a process that began as this user: its maps are its own */
}

static void forbid_namespaces(void)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_NEWNS, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = sizeof f / sizeof *f, .filter = f};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        _exit(99);
}

static void says_what_is_missing(void **state)
{
    (void)state;
    struct sandbox_result r;
    const struct sandbox_limits l = quick(20);
    run_script(&r, "mkdir -p a/b; echo x > a/b/c; chmod 0 a; pwd", &l);
    assert_true(r.missing & CHILD_NAMESPACES);
    r.output[strcspn(r.output, "\n")] = 0;
    assert_int_equal(access(r.output, F_OK), -1); /* its directory is removed with what was in it */
    sandbox_result_free(&r);
}

static void a_common_user_is_protected_as_well(void **state)
{
    (void)state;
    static void (*const checks[])(void **) = {programs_run_to_their_end, the_environment_is_empty, nothing_is_left_over, files_elsewhere_stay,
                                              the_network_is_out_of_reach, NULL};
    if (geteuid() == 0)
        in_a_copy(become_common, checks);
}

static void limits_hold_without_namespaces(void **state)
{
    (void)state;
    static void (*const checks[])(void **) = {says_what_is_missing, programs_run_to_their_end, the_environment_is_empty, time_is_limited,
                                              nothing_is_left_over, memory_files_and_processes_are_limited, the_network_is_out_of_reach, NULL};
    in_a_copy(forbid_namespaces, checks);
}

/* ---- side by side ---- */

struct lane {
    pthread_t thread;
    int number;
    bool ok;
};

static void *run_lane(void *argument)
{
    struct lane *lane = argument;
    static const char *const shell[] = {"sh", "-s", NULL};
    lane->ok = true;
    for (int i = 0; i < 6 && lane->ok; i++) {
        struct sandbox_result r;
        const struct sandbox_limits l = quick(30);
        char script[64], want[32];
        snprintf(script, sizeof script, "echo %d > f; cat f; exit %d", lane->number * 100 + i, i);
        snprintf(want, sizeof want, "%d\n", lane->number * 100 + i);
        lane->ok = run_program(&r, shell, script, strlen(script), &l, NULL) == PLM_OK && r.end == SANDBOX_EXITED && r.status == i &&
                   !strcmp(r.output, want);
        sandbox_result_free(&r);
    }
    return NULL;
}

static void threads_run_side_by_side(void **state)
{
    (void)state;
    struct lane lanes[6] = {0};
    for (int i = 0; i < 6; i++) {
        lanes[i].number = i;
        assert_int_equal(pthread_create(&lanes[i].thread, NULL, run_lane, &lanes[i]), 0);
    }
    for (int i = 0; i < 6; i++) {
        pthread_join(lanes[i].thread, NULL);
        assert_true(lanes[i].ok);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "inside")) {
        inside();
        fflush(stdout);
        _exit(0); /* the leak sanitizer, which would trace this process now, may not */
    }
    if (!realpath("/proc/self/exe", self))
        return 99;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(programs_run_to_their_end), cmocka_unit_test(the_environment_is_empty), cmocka_unit_test(time_is_limited),
        cmocka_unit_test(nothing_is_left_over), cmocka_unit_test(memory_files_and_processes_are_limited), cmocka_unit_test(files_elsewhere_stay),
        cmocka_unit_test(what_cannot_start_is_named), cmocka_unit_test(the_network_is_out_of_reach),
        cmocka_unit_test(a_common_user_is_protected_as_well), cmocka_unit_test(limits_hold_without_namespaces),
        cmocka_unit_test(threads_run_side_by_side),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
