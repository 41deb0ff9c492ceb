#include "train/align/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "train/align/filter.h"
#include "train/align/root.h"

/* Inside a user namespace the child is this user ("nobody"), whoever it is outside. */
#define INNER_UID "65534"

/* ---- namespaces ---- */

__attribute__((no_sanitize("address", "undefined")))
static bool write_file(const char *path, const char *text, size_t n)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    const bool ok = fd >= 0 && write(fd, text, n) == (ssize_t)n;
    if (fd >= 0)
        close(fd);
    return ok;
}

__attribute__((no_sanitize("address", "undefined")))
static size_t put_number(char *text, uint32_t value)
{
    char digits[10];
    size_t n = 0;
    int count = 0;
    do
        digits[count++] = (char)('0' + value % 10);
    while (value /= 10);
    while (count)
        text[n++] = digits[--count];
    return n;
}

/* The keeper knows it before its program runs. */
__attribute__((no_sanitize("address", "undefined")))
static bool tell_keeper(int keeper)
{
    char line[16];
    size_t n = put_number(line, (uint32_t)syscall(SYS_getpid));
    line[n++] = '\n';
    return write(keeper, line, n) == (ssize_t)n;
}

__attribute__((no_sanitize("address", "undefined")))
static bool write_map(const char *path, uint32_t outer)
{
    static const char inner[] = INNER_UID " ";
    char text[32];
    size_t n = 0;
    for (const char *p = inner; *p; p++)
        text[n++] = *p;
    n += put_number(text + n, outer);
    text[n++] = ' ';
    text[n++] = '1';
    return write_file(path, text, n);
}

/* ---- limits ---- */

__attribute__((no_sanitize("address", "undefined")))
static void limit(int resource, int64_t value)
{
    const struct rlimit r = {(rlim_t)value, (rlim_t)value};
    if (value > 0)
        syscall(SYS_prlimit64, 0, resource, &r, NULL);
}

__attribute__((no_sanitize("address", "undefined")))
static void set_limits(const struct child_limits *l)
{
    const struct rlimit none = {0, 0};
    limit(RLIMIT_CPU, (int64_t)l->cpu_s + (l->cpu_s > (double)(int64_t)l->cpu_s)); /* soft and hard alike: SIGKILL, which cannot be caught */
    limit(RLIMIT_AS, l->memory_bytes);
    limit(RLIMIT_FSIZE, l->file_bytes);
    limit(RLIMIT_NPROC, l->processes);
    limit(RLIMIT_NOFILE, l->open_files);
    syscall(SYS_prlimit64, 0, RLIMIT_CORE, &none, NULL);
}

/* ---- the child ---- */

__attribute__((no_sanitize("address", "undefined")))
static bool place_descriptors(const struct confine_plan *p)
{
    int high[3 + CHILD_EXTRA]; /* above all, so that no dup2 overwrites one that is still needed */
    for (int i = 0; i < p->n_fds; i++)
        if ((high[i] = fcntl(p->fds[i], F_DUPFD, p->n_fds)) < 0)
            return false;
    for (int i = 0; i < p->n_fds; i++)
        if (dup2(high[i], i) < 0)
            return false;
    if (syscall(SYS_close_range, (unsigned)p->n_fds, ~0U, 0U) == 0)
        return true;
    struct rlimit r;
    const rlim_t end = getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < 1 << 20 ? r.rlim_cur : 1 << 20;
    for (rlim_t fd = (rlim_t)p->n_fds; fd < end; fd++)
        close((int)fd);
    return true;
}

__attribute__((no_sanitize("address", "undefined")))
static bool become(uint32_t uid)
{
    /* not the C library's functions: those change all threads of the process */
    return syscall(SYS_setgroups, 0, NULL) == 0 && syscall(SYS_setresgid, uid, uid, uid) == 0 &&
           syscall(SYS_setresuid, uid, uid, uid) == 0;
}

/* All of them, now and after any exec: also of one that stays root, in this or in its own user namespace. */
__attribute__((no_sanitize("address", "undefined")))
static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {0};
    for (int i = 0; i < 64 && prctl(PR_CAPBSET_DROP, i, 0, 0, 0) == 0; i++)
        continue;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    syscall(SYS_capset, &header, none);
}

__attribute__((no_sanitize("address", "undefined")))
static void failed(struct confine_plan *p, const char *step)
{
    p->error = errno;
    p->step = step;
    syscall(SYS_exit_group, 127);
}

__attribute__((no_sanitize("address", "undefined")))
int confine_and_exec(void *plan)
{
    struct confine_plan *p = plan;
    const struct sigaction fallback = {.sa_handler = SIG_DFL};
    for (int s = 1; s < NSIG; s++)
        if (s != SIGKILL && s != SIGSTOP)
            sigaction(s, &fallback, NULL);
    setsid();
    if (!p->outlives)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (p->confine)
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (p->user_namespace &&
        !(write_file("/proc/self/setgroups", "deny", 4) && write_map("/proc/self/uid_map", p->outer_uid) &&
          write_map("/proc/self/gid_map", p->outer_gid)))
        failed(p, "become a user of its user namespace");
    const char *step = p->namespaces ? root_make(p->paths, p->directory_mount) : NULL;
    if (step)
        failed(p, step);
    if (!p->namespaces && p->directory && chdir(p->directory))
        failed(p, "enter its directory");
    if (p->cgroup >= 0 && write(p->cgroup, "0", 1) != 1)
        failed(p, "join its control group");
    if (p->keeper >= 0 && !tell_keeper(p->keeper))
        failed(p, "tell its keeper who it is");
    if (!place_descriptors(p))
        failed(p, "connect its standard streams");
    set_limits(&p->limits);
    if (p->confine) {
        if (p->uid && !become(p->uid)) {
            if (p->namespaces) /* it would be the user of the trainer, or root */
                failed(p, "become a user who owns nothing");
            p->missing |= CHILD_USER;
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* changing the user cleared it */
        if (!p->namespaces && !root_restrict(p->paths, p->directory))
            p->missing |= CHILD_FILES;
        drop_capabilities();
        if (filter_install(p->namespaces)) {
            if (!p->weak)
                failed(p, "filter its system calls (seccomp)");
            p->missing |= CHILD_FILTER;
        }
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(p->path, p->argv, p->envp);
    failed(p, "start");
    return 127;
}
