#include "train/align/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#endif

/* Inside a user namespace the child is this user ("nobody"), whoever it is outside. */
#define INNER_UID "65534"

/* ---- system call filter ---- */

#ifdef THIS_ARCH

static const int refused[] = {
    SYS_socket, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_unshare,
    SYS_setns, SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_io_uring_setup, SYS_keyctl, SYS_add_key, SYS_request_key, SYS_kexec_load,
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_reboot, SYS_swapon, SYS_swapoff, SYS_open_by_handle_at, SYS_setsid,
    SYS_setpgid, SYS_open_tree, SYS_move_mount, SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_mount_setattr, SYS_acct, SYS_settimeofday,
    SYS_clock_settime, SYS_adjtimex, SYS_sethostname, SYS_pidfd_open, SYS_pidfd_getfd, SYS_pidfd_send_signal,
};
enum { N_REFUSED = sizeof refused / sizeof *refused, NAMESPACE_FLAGS = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET |
       CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP };

#define LOAD(field) (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, field))
#define SKIP_UNLESS(op, value, n) (struct sock_filter)BPF_JUMP(BPF_JMP | (op) | BPF_K, (unsigned)(value), 0, n)
#define ANSWER(action) (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, (unsigned)(action))

/* own_processes: kill can only reach the child's own processes, and is allowed. */
__attribute__((no_sanitize("address", "undefined")))
static int install_filter(bool own_processes)
{
    struct sock_filter f[2 * N_REFUSED + 32];
    int n = 0;
    f[n++] = LOAD(arch);
    f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0);
    f[n++] = ANSWER(SECCOMP_RET_KILL_PROCESS);
    f[n++] = LOAD(nr);
#if defined(__x86_64__)
    f[n++] = SKIP_UNLESS(BPF_JGE, 0x40000000, 1); /* the x32 numbers */
    f[n++] = ANSWER(SECCOMP_RET_ERRNO | ENOSYS);
#endif
    for (int i = 0; i < N_REFUSED; i++) {
        const int nr = refused[i];
        f[n++] = SKIP_UNLESS(BPF_JEQ, nr, 1);
        f[n++] = ANSWER(SECCOMP_RET_ERRNO | EPERM);
    }
    f[n++] = SKIP_UNLESS(BPF_JEQ, SYS_clone3, 1); /* its flags are behind a pointer; libraries fall back to clone */
    f[n++] = ANSWER(SECCOMP_RET_ERRNO | ENOSYS);
    f[n++] = SKIP_UNLESS(BPF_JEQ, SYS_clone, 3);
    f[n++] = LOAD(args[0]);
    f[n++] = SKIP_UNLESS(BPF_JSET, NAMESPACE_FLAGS, 1);
    f[n++] = ANSWER(SECCOMP_RET_ERRNO | EPERM);
    f[n++] = LOAD(nr);
    if (!own_processes) { /* as the same user it could kill the trainer: only itself is left to it */
        f[n++] = SKIP_UNLESS(BPF_JEQ, SYS_kill, 1);
        f[n++] = ANSWER(SECCOMP_RET_ERRNO | EPERM);
        f[n++] = SKIP_UNLESS(BPF_JEQ, SYS_tkill, 1);
        f[n++] = ANSWER(SECCOMP_RET_ERRNO | EPERM);
        f[n++] = SKIP_UNLESS(BPF_JEQ, SYS_rt_sigqueueinfo, 1);
        f[n++] = ANSWER(SECCOMP_RET_ERRNO | EPERM);
        f[n++] = SKIP_UNLESS(BPF_JEQ, SYS_tgkill, 3);
        f[n++] = LOAD(args[0]);
        f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)syscall(SYS_getpid), 1, 0);
        f[n++] = ANSWER(SECCOMP_RET_ERRNO | EPERM);
    }
    f[n++] = ANSWER(SECCOMP_RET_ALLOW);
    const struct sock_fprog program = {.len = (unsigned short)n, .filter = f};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

#else
static int install_filter(bool own_processes)
{
    (void)own_processes;
    return -1;
}
#endif

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
static bool write_map(const char *path, uint32_t outer)
{
    static const char inner[] = INNER_UID " ";
    char text[32], digits[10];
    size_t n = 0;
    int count = 0;
    for (const char *p = inner; *p; p++)
        text[n++] = *p;
    do
        digits[count++] = (char)('0' + outer % 10);
    while (outer /= 10);
    while (count)
        text[n++] = digits[--count];
    text[n++] = ' ';
    text[n++] = '1';
    return write_file(path, text, n);
}

/* Linux 5.12; older kernels and C libraries do without a read-only file system. */
struct mount_attributes {
    uint64_t set, clear, propagation, user_namespace;
};
enum { ATTRIBUTE_READ_ONLY = 1, ATTRIBUTE_NO_SUID = 2 };

__attribute__((no_sanitize("address", "undefined")))
static bool arrange_mounts(struct confine_plan *p)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return false;
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL)) /* else it would see all processes of the machine */
        mount("none", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, "size=4k");
    struct mount_attributes a = {.set = ATTRIBUTE_READ_ONLY | ATTRIBUTE_NO_SUID};
    if (syscall(SYS_mount_setattr, AT_FDCWD, "/", 0x8000 /* AT_RECURSIVE */, &a, sizeof a))
        return false;
    return mount("none", p->directory, "tmpfs", MS_NOSUID | MS_NODEV, p->directory_mount) == 0;
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
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (p->user_namespace) {
        const bool mapped = write_file("/proc/self/setgroups", "deny", 4) && write_map("/proc/self/uid_map", p->outer_uid) &&
                            write_map("/proc/self/gid_map", p->outer_gid);
        if (!mapped)
            p->missing |= CHILD_NAMESPACES;
    }
    if (p->namespaces && !arrange_mounts(p))
        p->missing |= CHILD_NAMESPACES;
    if (p->directory && chdir(p->directory))
        failed(p, "enter its directory");
    if (!place_descriptors(p))
        failed(p, "connect its standard streams");
    set_limits(&p->limits);
    if (p->confine) {
        if (p->uid && !become(p->uid))
            p->missing |= CHILD_USER;
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* changing the user cleared it */
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (install_filter(p->namespaces))
            p->missing |= CHILD_FILTER;
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(p->path, p->argv, p->envp);
    failed(p, "start");
    return 127;
}
