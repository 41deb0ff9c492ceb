#include "train/align/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#endif

#ifdef THIS_ARCH

/* Numbers that C libraries of the supported systems do not all have; they are the same on all processors. */
enum { NR_CLOSE_RANGE = 436, NR_OPENAT2 = 437, NR_FACCESSAT2 = 439, NR_EPOLL_PWAIT2 = 441, NR_FUTEX_WAITV = 449,
       NR_FCHMODAT2 = 452, NR_LAST_KNOWN = 462 };

static const int allowed[] = {
    /* files: what may be opened is a matter of what is there, and of who asks */
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_preadv2,
    SYS_pwritev2, SYS_openat, NR_OPENAT2, SYS_close, NR_CLOSE_RANGE, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_lseek,
    SYS_dup, SYS_dup3, SYS_pipe2, SYS_flock, SYS_fsync, SYS_fdatasync, SYS_ftruncate, SYS_truncate, SYS_fallocate,
    SYS_fadvise64, SYS_getdents64, SYS_getcwd, SYS_chdir, SYS_fchdir, SYS_mkdirat, SYS_unlinkat, SYS_renameat2,
    SYS_linkat, SYS_symlinkat, SYS_readlinkat, SYS_fchmod, SYS_fchmodat, NR_FCHMODAT2, SYS_utimensat, SYS_umask,
    SYS_faccessat, NR_FACCESSAT2, SYS_statfs, SYS_fstatfs, SYS_sync_file_range, SYS_copy_file_range, SYS_sendfile,
    /* memory */
    SYS_mmap, SYS_mprotect, SYS_munmap, SYS_brk, SYS_mremap, SYS_madvise, SYS_msync, SYS_mincore, SYS_membarrier,
    SYS_rseq,
    /* itself */
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending, SYS_rt_sigsuspend, SYS_rt_sigtimedwait,
    SYS_sigaltstack, SYS_getpid, SYS_getppid, SYS_gettid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid,
    SYS_getresuid, SYS_getresgid, SYS_getgroups, SYS_getpgid, SYS_getsid, SYS_uname, SYS_sysinfo, SYS_times,
    SYS_getrusage, SYS_sched_yield, SYS_sched_getparam, SYS_sched_getscheduler, SYS_sched_get_priority_max,
    SYS_sched_get_priority_min, SYS_sched_getaffinity, SYS_getpriority, SYS_getcpu, SYS_getrandom,
    SYS_restart_syscall,
    /* processes and threads of its own */
    SYS_execve, SYS_wait4, SYS_waitid, SYS_exit, SYS_exit_group, SYS_futex, NR_FUTEX_WAITV, SYS_set_robust_list,
    SYS_set_tid_address,
    /* time */
    SYS_nanosleep, SYS_clock_nanosleep, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_getitimer,
    SYS_setitimer, SYS_timer_create, SYS_timer_settime, SYS_timer_gettime, SYS_timer_getoverrun, SYS_timer_delete,
    SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime,
    /* waiting, and talking to itself */
    SYS_ppoll, SYS_pselect6, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, NR_EPOLL_PWAIT2, SYS_eventfd2,
    SYS_signalfd4, SYS_socketpair, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_shutdown, SYS_getsockname,
    SYS_getpeername, SYS_getsockopt, SYS_setsockopt,
#ifdef SYS_renameat
    SYS_renameat,
#endif
#ifdef __x86_64__ /* the older names of the same */
    SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_pipe, SYS_dup2, SYS_fork, SYS_vfork, SYS_rename, SYS_mkdir,
    SYS_rmdir, SYS_creat, SYS_link, SYS_unlink, SYS_symlink, SYS_readlink, SYS_chmod, SYS_getdents, SYS_epoll_create,
    SYS_epoll_wait, SYS_eventfd, SYS_signalfd, SYS_alarm, SYS_pause, SYS_time, SYS_getpgrp, SYS_utime, SYS_utimes,
    SYS_futimesat, SYS_select, SYS_poll, SYS_arch_prctl, SYS_getrlimit,
#endif
};

/* Signals: of use within a process namespace only. */
static const int signals[] = {SYS_kill, SYS_tkill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo};

/* Calls of which only some arguments are allowed: `count` values of argument `argument`. */
static const struct {
    int number, argument, count;
    unsigned values[13];
} some[] = {
    {SYS_prlimit64, 0, 1, {0}}, /* itself */
    {SYS_sched_setaffinity, 0, 1, {0}},
    {SYS_ioctl, 1, 7, {0x5401 /* TCGETS */, 0x5413 /* TIOCGWINSZ */, 0x541B /* FIONREAD */, 0x5421 /* FIONBIO */,
                       0x5450 /* FIONCLEX */, 0x5451 /* FIOCLEX */, 0x540F /* TIOCGPGRP */}},
    /* not F_SETOWN and F_SETSIG, which send signals */
    {SYS_fcntl, 1, 12, {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW,
                        1032 /* F_GETPIPE_SZ */, 36 /* F_OFD_GETLK */, 37 /* F_OFD_SETLK */}},
    /* not PR_SET_PDEATHSIG: it ends with us */
    {SYS_prctl, 0, 9, {PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE, PR_GET_PDEATHSIG, PR_GET_NO_NEW_PRIVS,
                       PR_CAPBSET_READ, PR_GET_SECCOMP, PR_SET_TIMERSLACK, 0x53564d41 /* PR_SET_VMA */}},
};

enum { N_ALLOWED = sizeof allowed / sizeof *allowed, N_SIGNALS = sizeof signals / sizeof *signals,
       N_SOME = sizeof some / sizeof *some,
       NAMESPACE_FLAGS = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
                         CLONE_NEWCGROUP };

#define LOAD(field) \
    (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, field))
#define SKIP_UNLESS(op, value, n) (struct sock_filter)BPF_JUMP(BPF_JMP | (op) | BPF_K, (unsigned)(value), 0, n)
#define ANSWER(action) (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, (unsigned)(action))

__attribute__((no_sanitize("address", "undefined")))
static int put_some(struct sock_filter *f, int n, int i)
{
    const int length = some[i].count;
    f[n++] = SKIP_UNLESS(BPF_JEQ, some[i].number, (unsigned char)(2 * length + 2));
    f[n++] = LOAD(args[some[i].argument]); /* the low half: what the kernel looks at, these arguments being ints */
    for (int k = 0; k < length; k++) {
        f[n++] = SKIP_UNLESS(BPF_JEQ, some[i].values[k], 1);
        f[n++] = ANSWER(SECCOMP_RET_ALLOW);
    }
    f[n++] = ANSWER(SECCOMP_RET_ERRNO | EPERM);
    return n;
}

__attribute__((no_sanitize("address", "undefined")))
int filter_install(bool own_processes)
{
    struct sock_filter f[2 * (N_ALLOWED + N_SIGNALS) + N_SOME * 32 + 32];
    int n = 0;
    f[n++] = LOAD(arch);
    f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0);
    f[n++] = ANSWER(SECCOMP_RET_KILL_PROCESS);
    f[n++] = LOAD(nr);
    for (int i = 0; i < N_ALLOWED; i++) {
        f[n++] = SKIP_UNLESS(BPF_JEQ, allowed[i], 1);
        f[n++] = ANSWER(SECCOMP_RET_ALLOW);
    }
    for (int i = 0; i < N_SIGNALS && own_processes; i++) {
        f[n++] = SKIP_UNLESS(BPF_JEQ, signals[i], 1);
        f[n++] = ANSWER(SECCOMP_RET_ALLOW);
    }
    for (int i = 0; i < N_SOME; i++)
        n = put_some(f, n, i);
    f[n++] = SKIP_UNLESS(BPF_JEQ, SYS_clone, 4);
    f[n++] = LOAD(args[0]);
    f[n++] = SKIP_UNLESS(BPF_JSET, NAMESPACE_FLAGS, 1);
    f[n++] = ANSWER(SECCOMP_RET_ERRNO | EPERM);
    f[n++] = ANSWER(SECCOMP_RET_ALLOW);
    /* its flags are behind a pointer; libraries fall back to clone */
    f[n++] = SKIP_UNLESS(BPF_JEQ, SYS_clone3, 1);
    f[n++] = ANSWER(SECCOMP_RET_ERRNO | ENOSYS);
    /* what came later (and the x32 numbers): libraries know that it may not be there */
    f[n++] = SKIP_UNLESS(BPF_JGT, NR_LAST_KNOWN, 1);
    f[n++] = ANSWER(SECCOMP_RET_ERRNO | ENOSYS);
    f[n++] = ANSWER(SECCOMP_RET_ERRNO | EPERM);
    const struct sock_fprog program = {.len = (unsigned short)n, .filter = f};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

#else
int filter_install(bool own_processes)
{
    (void)own_processes;
    return -1;
}
#endif
