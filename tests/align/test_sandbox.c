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
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "train/align/sandbox.h"

#if defined(__SANITIZE_ADDRESS__)
#define RUNS_UNDER_SANITIZER true
#elif defined(__has_feature)
#define RUNS_UNDER_SANITIZER __has_feature(address_sanitizer)
#else
#define RUNS_UNDER_SANITIZER false
#endif

static char self[512], self_directory[512];
static enum child_confine confine = CHILD_CONFINED; /* what the tests ask for */

/* A copy of the text in which "123456" is a number of this run's own: another run of this test may go on beside it. */
static char *own(const char *text)
{
    static char copy[8][1400];
    static int next;
    char *out = copy[next++ % 8], number[16];
    static pid_t first;
    first = first ? first : getpid();
    snprintf(number, sizeof number, "%06d", 100000 + (int)(first % 900000));
    snprintf(out, sizeof copy[0], "%s", text);
    for (char *at = out; (at = strstr(at, "123456")); at += 6)
        memcpy(at, number, 6);
    return out;
}

static int run_program(struct sandbox_result *r, const char *const *argv, const char *input, size_t n,
                       const struct sandbox_limits *limits, struct plm_status *st)
{
    const struct sandbox_program p = {.argv = argv, .input = input, .input_bytes = n};
    return sandbox_run(r, &p, limits, st);
}

static int run_script(struct sandbox_result *r, const char *text, const struct sandbox_limits *limits)
{
    const char *script = own(text);
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
    l.confine = confine;
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
static bool process_exists(const char *text)
{
    const char *word = own(text);
    for (int i = 0; i < 3000 && find_process(word); i++)
        usleep(10000);
    return find_process(word);
}

static void programs_run_to_their_end(void **state)
{
    (void)state;
    struct sandbox_result r;
    const struct sandbox_limits l = quick(60);
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
    const struct sandbox_limits l = quick(60);
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
    snprintf(path, sizeof path, "%.*s/file", (int)strcspn(directory + 3, "\n"), directory + 3);
    assert_int_equal(access(path, F_OK), -1);
    sandbox_result_free(&r);
}

static void time_is_limited(void **state)
{
    (void)state;
    struct sandbox_result r;
    struct sandbox_limits l = quick(0.3);
    run_script(&r, "echo begun; sleep 1234561", &l);
    assert_true(r.end == SANDBOX_TIMEOUT && r.seconds < 60);
    assert_string_equal(r.output, "begun\n");
    assert_false(process_exists("1234561"));
    sandbox_result_free(&r);
    run_script(&r, "exec yes", &l); /* a flood */
    assert_true(r.end == SANDBOX_TIMEOUT && r.seconds < 60 && r.output_cut && r.output_bytes == l.output_bytes);
    sandbox_result_free(&r);
    run_script(&r, "exec >&- 2>&-; sleep 1234562", &l); /* closed streams are no end */
    assert_true(r.end == SANDBOX_TIMEOUT && r.seconds < 60);
    sandbox_result_free(&r);
    run_script(&r, "trap '' TERM INT HUP XCPU; while :; do :; done", &l);
    assert_int_equal(r.end, SANDBOX_TIMEOUT);
    sandbox_result_free(&r);
    l = quick(600);
    l.child.cpu_s = 0.5; /* rounded up to 1 s */
    run_script(&r, "trap '' XCPU; while :; do :; done", &l);
    assert_true(r.end == SANDBOX_SIGNALLED && r.status == SIGKILL);
    sandbox_result_free(&r);
}

/* A program that leaves processes behind, which hold its output open: it has ended, and so have they. */
static void nothing_is_left_over(void **state)
{
    (void)state;
    struct sandbox_result r;
    const struct sandbox_limits l = quick(60);
    run_script(&r, "sleep 1234563 & (sleep 1234564 &) ; (setsid sleep 1234565 &) ; (trap '' HUP TERM; sleep 1234566) & echo ended", &l);
    assert_true(r.end == SANDBOX_EXITED && r.seconds < 60);
    assert_string_equal(r.output, "ended\n");
    sandbox_result_free(&r);
    assert_false(process_exists("1234563") || process_exists("1234564") || process_exists("1234565") || process_exists("1234566"));
}

static void memory_files_and_processes_are_limited(void **state)
{
    (void)state;
    struct sandbox_result r;
    struct sandbox_limits l = quick(60);
    l.child.memory_bytes = 64 << 20;
    run_script(&r, "x=$(head -c 100000000 /dev/zero | tr '\\0' a); echo ${#x}", &l);
    assert_null(strstr(r.output, "100000000"));
    sandbox_result_free(&r);
    l = quick(60);
    l.child.file_bytes = 1 << 20;
    run_script(&r, "head -c 5000000 /dev/zero > f 2>/dev/null; wc -c < f", &l);
    const long written = strtol(r.output, NULL, 10);
    assert_true(written > 0 && written <= 1 << 20);
    sandbox_result_free(&r);
    l = quick(60);
    l.child.processes = 12;
    run_script(&r, "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; echo ALL", &l);
    if (!(r.missing & CHILD_USER)) /* root that cannot be another user is not limited */
        assert_null(strstr(r.output, "ALL"));
    sandbox_result_free(&r);
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Its root holds what an interpreter needs, and nothing in it can be written but its own directory. */
static void the_root_is_empty(void **state)
{
    (void)state;
    if (confine == CHILD_WEAK)
        return;
    struct sandbox_result r;
    const struct sandbox_limits l = quick(60);
    char cwd[400], script[1200];
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(script, sizeof script,
             "for f in '%s' '%s' /root /home /var /sys /etc/passwd; do [ -e \"$f\" ] && echo \"SEES $f\"; done\n"
             "for d in / /usr /usr/bin /dev /etc /proc; do (echo x > $d/sandbox-escape) 2>/dev/null && echo \"WRITES "
             "$d\"; done\n"
             "ls /proc | grep -c '^[0-9]'; echo x > /tmp/sandbox-escape-123456; ls -d /*",
             strcmp(cwd, "/") ? cwd : "/home", self);
    run_script(&r, script, &l);
    assert_null(strstr(r.output, "SEES"));
    assert_null(strstr(r.output, "WRITES"));
    assert_int_equal(access(own("/tmp/sandbox-escape-123456"), F_OK), -1);
    assert_in_range(strtol(r.output, NULL, 10), 0, 4); /* itself, ls, grep; none where /proc cannot be mounted */
    const char *lines[32];
    size_t n = 0;
    for (char *line = strtok(strchr(r.output, '\n'), "\n"); line && n < 32; line = strtok(NULL, "\n"))
        lines[n++] = line;
    static const char *const known[] = {"/bin",    "/dev",  "/etc",  "/lib", "/lib32", "/lib64",
                                        "/libx32", "/proc", "/sbin", "/tmp", "/usr"};
    for (size_t i = 0; i < n; i++)
        if (!bsearch(&lines[i], known, sizeof known / sizeof *known, sizeof *known, compare_lines))
            fail_msg("its root has %s", lines[i]);
    sandbox_result_free(&r);
}

/* Without namespaces: Landlock. */
static void other_files_are_out_of_reach(void **state)
{
    (void)state;
    struct sandbox_result r;
    const struct sandbox_limits l = quick(60);
    FILE *f = fopen(own("/tmp/sandbox-secret-123456"), "w");
    assert_non_null(f);
    fputs("secret", f);
    fclose(f);
    chmod(own("/tmp/sandbox-secret-123456"), 0666);
    run_script(&r,
               "cat /tmp/sandbox-secret-123456; (echo x > /tmp/sandbox-escape-123456); (echo y >> /tmp/sandbox-secret-123456); head -c 1 "
               "/proc/$PPID/maps; echo in > f; cat f",
               &l);
    const bool missing = r.missing & CHILD_FILES;
    if (!missing) {
        assert_string_equal(r.output, "in\n");
        assert_int_equal(access(own("/tmp/sandbox-escape-123456"), F_OK), -1);
    }
    unlink(own("/tmp/sandbox-secret-123456"));
    unlink(own("/tmp/sandbox-escape-123456"));
    sandbox_result_free(&r);
}

/* Four processes each below the limit, together above it: the kernel ends one of them, or we end all. */
static void memory_is_limited_as_a_whole(void **state)
{
    (void)state;
    struct sandbox_result r;
    struct sandbox_limits l = quick(60);
    const char *const paths[] = {self_directory, NULL}, *const argv[] = {self, "eat", NULL};
    const struct sandbox_program p = {.argv = argv, .input = ""};
    struct plm_status st = {0};
    l.paths = paths;
    l.child.memory_bytes = 160 << 20;
    if (RUNS_UNDER_SANITIZER) /* which reserve terabytes; and skip() would leave a copy of the test */
        return;
    if (sandbox_run(&r, &p, &l, &st))
        fail_msg("%s", st.message);
    assert_null(strstr(r.output, "ATE ALL"));
    assert_true(r.end == SANDBOX_MEMORY || r.memory_full);
    sandbox_result_free(&r);
}

static void files_are_limited_as_a_whole(void **state)
{
    (void)state;
    struct sandbox_result r;
    struct sandbox_limits l = quick(60);
    l.child.file_bytes = 1 << 20;
    run_script(&r,
               "for i in 1 2 3 4 5 6 7 8; do head -c 900000 /dev/zero > f$i || exit 1; done; while :; do sleep 1; done",
               &l);
    assert_true(r.end == SANDBOX_FILES || (r.end == SANDBOX_EXITED && r.status == 1));
    sandbox_result_free(&r);
}

static void what_cannot_start_is_named(void **state)
{
    (void)state;
    struct sandbox_result r;
    const struct sandbox_limits l = quick(60);
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
    const pid_t parent = getppid();
    int pair[2], pipes[2];
    printf("%s %s", inet ? "INET" : "-", local ? "LOCAL" : "-");
    printf(" %s", socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ? "NO-PAIR" : "pair");
    printf(" %s", unshare(CLONE_NEWUSER) ? "-" : "UNSHARE");
    printf(" %s", getpid() != getsid(0) || setsid() >= 0 ? "SESSION" : "-");
    printf(" %s", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0) == -1 ? "-" : "CLONE");
    printf(" %s", geteuid() == 0 ? "ROOT" : "-");
    /* whoever started it, by every call that names a process; in a process namespace of its own there is nobody (0) */
    const struct rlimit none = {0, 0};
    const unsigned long one = 1;
    char memory[64];
    snprintf(memory, sizeof memory, "/proc/%d/mem", parent);
    siginfo_t info = {.si_signo = SIGCONT, .si_code = SI_QUEUE};
    printf(" %s", parent > 0 && kill(parent, 0) == 0 ? "KILL" : "-");
    printf(" %s", parent > 0 && syscall(SYS_tkill, parent, 0) == 0 ? "TKILL" : "-");
    printf(" %s", parent > 0 && syscall(SYS_rt_sigqueueinfo, parent, 0, &info) == 0 ? "QUEUE" : "-");
    printf(" %s", parent > 0 && syscall(SYS_rt_tgsigqueueinfo, parent, parent, 0, &info) == 0 ? "TGQUEUE" : "-");
    printf(" %s", pipe(pipes) == 0 && fcntl(pipes[0], F_SETOWN, parent ? parent : 1) == 0 ? "OWNER" : "-");
    printf(" %s", parent > 0 && syscall(SYS_prlimit64, parent, RLIMIT_CORE, &none, NULL) == 0 ? "LIMIT" : "-");
    printf(" %s", parent > 0 && syscall(SYS_sched_setaffinity, parent, sizeof one, &one) == 0 ? "AFFINITY" : "-");
    printf(" %s", parent > 0 && setpriority(PRIO_PROCESS, (id_t)parent, 19) == 0 ? "PRIORITY" : "-");
    printf(" %s", parent > 0 && syscall(SYS_pidfd_open, parent, 0) >= 0 ? "PIDFD" : "-");
    printf(" %s", parent > 0 && syscall(SYS_ptrace, 0x4206 /* PTRACE_SEIZE */, parent, 0, 0) == 0 ? "TRACE" : "-");
    printf(" %s", parent > 0 && open(memory, O_RDONLY) >= 0 ? "MEMORY" : "-");
    printf(" %s", prctl(PR_SET_PDEATHSIG, 0) == 0 ? "OUTLIVES" : "-");
    printf(" %s", syscall(SYS_memfd_create, "m", 0) >= 0 ? "MEMFD" : "-");
    printf(" %s\n", shmget(1, 4096, IPC_CREAT) >= 0 ? "SHM" : "-");
}

/* Four processes that each take a part of the memory, and hold it until they are ended. */
static void eat(void)
{
    const size_t n = 60 << 20;
    int full[2];
    char byte = 1, all[4];
    if (pipe(full))
        return;
    for (int i = 0; i < 4; i++)
        if (fork() == 0) {
            volatile char *p = malloc(n);
            for (size_t k = 0; p && k < n; k += 512)
                p[k] = 1;
            if (p && write(full[1], &byte, 1) == 1)
                pause();
            _exit(1);
        }
    int eaten = 0, killed = 0;
    for (int i = 0; i < 1000 && !killed; i++) { /* when all of it is held, whoever watches has the time to see it */
        struct pollfd p = {full[0], POLLIN, 0};
        if (poll(&p, 1, 10) > 0 && read(full[0], all, 1) == 1)
            eaten++;
        killed = waitpid(-1, NULL, WNOHANG) > 0;
    }
    eaten -= killed;
    printf(eaten == 4 ? "ATE ALL\n" : "hungry\n");
}

static void check_inside(void)
{
    struct sandbox_result r;
    struct sandbox_limits l = quick(60);
    l.child.memory_bytes = 0; /* sanitizers reserve terabytes */
    struct plm_status st = {0};
    const char *const argv[] = {self, "inside", NULL}, *const paths[] = {self_directory, NULL};
    l.paths = paths;
    if (run_program(&r, argv, "", 0, &l, &st)) {
        if (strstr(st.message, "Permission denied"))
            return; /* another user cannot reach the directory of this test */
        fail_msg("%s", st.message);
    }
    if (!(r.missing & (CHILD_FILTER | CHILD_FILES)))
        assert_string_equal(r.output, "- - pair - - - - - - - - - - - - - - - - - -\n");
    sandbox_result_free(&r);
}

static void the_rest_of_the_machine_is_out_of_reach(void **state)
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
    const struct sandbox_limits l = quick(60);
    run_script(&r, "mkdir -p a/b; echo x > a/b/c; chmod 0 a; pwd", &l);
    assert_true(r.missing & CHILD_NAMESPACES);
    r.output[strcspn(r.output, "\n")] = 0;
    assert_int_equal(access(r.output, F_OK), -1); /* its directory is removed with what was in it */
    sandbox_result_free(&r);
}

/* What was asked for is not to be had: nothing runs, and it says what to do. */
static void less_is_refused(void **state)
{
    (void)state;
    struct sandbox_result r;
    struct sandbox_limits l = quick(60);
    l.confine = CHILD_CONFINED;
    static const char *const shell[] = {"sh", "-s", NULL};
    struct plm_status st = {0};
    assert_int_equal(run_program(&r, shell, "echo x", 6, &l, &st), PLM_EIO);
    assert_non_null(strstr(st.message, "get namespaces"));
    assert_non_null(strstr(st.message, "\"confine\": \"weak\""));
    assert_null(r.output);
}

/* A directory whose owner was killed is removed by the next who makes one; one that is in use stays. */
static void stale_directories_are_removed(void **state)
{
    (void)state;
    struct scratch kept;
    uint32_t uid = 0;
    struct plm_status st = {0};
    int path[2];
    char stale[256] = "";
    assert_int_equal(scratch_make(&kept, &uid, &st), PLM_OK);
    assert_int_equal(pipe(path), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        struct scratch s;
        uint32_t own = 0;
        if (scratch_make(&s, &own, NULL) || write(path[1], s.path, sizeof s.path) != sizeof s.path)
            _exit(1);
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(read(path[0], stale, sizeof stale), sizeof stale);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(access(stale, F_OK), 0);
    struct scratch next;
    assert_int_equal(scratch_make(&next, &uid, &st), PLM_OK);
    assert_int_equal(access(stale, F_OK), -1);
    assert_int_equal(access(kept.path, F_OK), 0);
    scratch_drop(&next);
    scratch_drop(&kept);
    assert_int_equal(close(path[0]) | close(path[1]), 0);
}

/* Whoever starts it is killed: so is it, with all of its descendants. */
static void it_dies_with_its_owner(void **state)
{
    (void)state;
    int started[2];
    char byte;
    assert_int_equal(pipe(started), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        static const char *const shell[] = {"sh", "-s", NULL};
        struct sandbox *s;
        const struct sandbox_program p = {.argv = shell,
                                          .input = own("sleep 1234567 & echo x >&3; sleep 1234568"),
                                          .input_bytes = 41,
                                          .n_extra = 1,
                                          .extra = {started[1]}};
        const struct sandbox_limits l = quick(600);
        if (sandbox_start(&s, &p, &l, NULL) == PLM_OK)
            sandbox_follow(s, -1);
        _exit(1);
    }
    close(started[1]);
    assert_int_equal(read(started[0], &byte, 1), 1);
    close(started[0]);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_false(process_exists("1234567") || process_exists("1234568"));
}

static void a_common_user_is_protected_as_well(void **state)
{
    (void)state;
    static void (*const checks[])(void **) = {programs_run_to_their_end,
                                              the_environment_is_empty,
                                              nothing_is_left_over,
                                              the_root_is_empty,
                                              the_rest_of_the_machine_is_out_of_reach,
                                              memory_is_limited_as_a_whole,
                                              NULL};
    if (geteuid() == 0)
        in_a_copy(become_common, checks);
}

static void limits_hold_without_namespaces(void **state)
{
    (void)state;
    static void (*const checks[])(void **) = {less_is_refused,
                                              says_what_is_missing,
                                              it_dies_with_its_owner,
                                              programs_run_to_their_end,
                                              the_environment_is_empty,
                                              time_is_limited,
                                              nothing_is_left_over,
                                              memory_files_and_processes_are_limited,
                                              other_files_are_out_of_reach,
                                              files_are_limited_as_a_whole,
                                              the_rest_of_the_machine_is_out_of_reach,
                                              NULL};
    const enum child_confine before = confine;
    confine = CHILD_WEAK;
    in_a_copy(forbid_namespaces, checks);
    confine = before;
}

static void become_common_without_namespaces(void)
{
    become_common();
    forbid_namespaces();
}

/* The weakest case: the same user, no namespaces, no control group. */
static void a_common_user_without_namespaces(void **state)
{
    (void)state;
    static void (*const checks[])(void **) = {less_is_refused,
                                              says_what_is_missing,
                                              nothing_is_left_over,
                                              other_files_are_out_of_reach,
                                              files_are_limited_as_a_whole,
                                              memory_is_limited_as_a_whole,
                                              the_rest_of_the_machine_is_out_of_reach,
                                              NULL};
    const enum child_confine before = confine;
    confine = CHILD_WEAK;
    if (geteuid() == 0)
        in_a_copy(become_common_without_namespaces, checks);
    confine = before;
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
        const struct sandbox_limits l = quick(60);
        char script[64], want[32];
        snprintf(script, sizeof script, "echo %d > f; cat f; exit %d", lane->number * 100 + i, i);
        snprintf(want, sizeof want, "%d\n", lane->number * 100 + i);
        lane->ok = run_program(&r, shell, script, strlen(script), &l, NULL) == PLM_OK && r.end == SANDBOX_EXITED &&
                   r.status == i && !strcmp(r.output, want);
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
    if (argc > 1) {
        (strcmp(argv[1], "eat") ? inside : eat)();
        fflush(stdout);
        _exit(0); /* the leak sanitizer, which would trace this process now, may not */
    }
    if (!realpath("/proc/self/exe", self))
        return 99;
    /* Where this user gets no namespaces the rest is still tested. */
    struct sandbox_result r;
    struct plm_status st = {0};
    const struct sandbox_limits l = quick(60);
    static const char *const nothing[] = {"true", NULL};
    if (run_program(&r, nothing, "", 0, &l, &st)) {
        print_message("%s\n", st.message);
        confine = CHILD_WEAK;
    } else {
        sandbox_result_free(&r);
    }
    snprintf(self_directory, sizeof self_directory, "%.*s", (int)(strrchr(self, '/') - self), self);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(programs_run_to_their_end),
        cmocka_unit_test(the_environment_is_empty),
        cmocka_unit_test(time_is_limited),
        cmocka_unit_test(nothing_is_left_over),
        cmocka_unit_test(memory_files_and_processes_are_limited),
        cmocka_unit_test(the_root_is_empty),
        cmocka_unit_test(what_cannot_start_is_named),
        cmocka_unit_test(the_rest_of_the_machine_is_out_of_reach),
        cmocka_unit_test(memory_is_limited_as_a_whole),
        cmocka_unit_test(files_are_limited_as_a_whole),
        cmocka_unit_test(it_dies_with_its_owner),
        cmocka_unit_test(stale_directories_are_removed),
        cmocka_unit_test(a_common_user_without_namespaces),
        cmocka_unit_test(a_common_user_is_protected_as_well),
        cmocka_unit_test(limits_hold_without_namespaces),
        cmocka_unit_test(threads_run_side_by_side),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
