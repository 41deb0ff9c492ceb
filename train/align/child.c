#include "train/align/child.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "infer/base/log.h"
#include "train/align/confine.h"

#define STACK_BYTES (128 << 10) /* of the child until it executes */
#define CONFINED_PATH "/usr/local/bin:/usr/bin:/bin"
#define NAMESPACES (CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

extern char **environ;

const char *child_guard_name(enum child_guard guard)
{
    return guard == CHILD_NAMESPACES ? "namespaces (no network, read-only files)" : guard == CHILD_FILTER ? "a system call filter" :
           "another user";
}

/* ---- what it runs, where, and with which environment ---- */

static bool find_program(const char *name, const char *search, char path[512])
{
    if (strchr(name, '/')) {
        snprintf(path, 512, "%s", name);
        return strlen(name) < 512;
    }
    while (*search) {
        const size_t n = strcspn(search, ":");
        if (n > 0 && n + 1 + strlen(name) < 512) {
            snprintf(path, 512, "%.*s/%s", (int)n, search, name);
            struct stat s;
            if (access(path, X_OK) == 0 && stat(path, &s) == 0 && S_ISREG(s.st_mode))
                return true;
        }
        search += n + (search[n] == ':');
    }
    return false;
}

struct environment {
    char **variables; /* NULL-terminated */
    char own[3][300];
};

static int environment_make(struct environment *e, const char *directory, struct plm_status *st)
{
    size_t n = 0, inherited = 0;
    while (!directory && environ && environ[inherited])
        inherited++;
    e->variables = calloc(inherited + 8, sizeof *e->variables);
    if (!e->variables)
        return status_no_memory(st, (inherited + 8) * sizeof *e->variables, "an environment");
    if (directory) {
        e->variables[n++] = (char *)"PATH=" CONFINED_PATH;
        e->variables[n++] = (char *)"LANG=C.UTF-8";
        e->variables[n++] = (char *)"OMP_NUM_THREADS=1"; /* numerical libraries start a thread per processor, and reserve memory for each */
        e->variables[n++] = (char *)"OPENBLAS_NUM_THREADS=1";
        snprintf(e->own[0], sizeof e->own[0], "HOME=%s", directory);
        snprintf(e->own[1], sizeof e->own[1], "TMPDIR=%s", directory);
        e->variables[n++] = e->own[0];
        e->variables[n++] = e->own[1];
    } else {
        for (size_t i = 0; i < inherited; i++)
            if (strncmp(environ[i], "PYTHONUNBUFFERED=", 17) != 0)
                e->variables[n++] = environ[i];
        e->variables[n++] = (char *)"PYTHONUNBUFFERED=1"; /* print() must reach us line by line */
    }
    return PLM_OK;
}

/* An empty directory, given to the user the child becomes (0: our own); one that this machine has no place for becomes 65534. */
static int directory_make(char directory[256], uint32_t *uid, struct plm_status *st)
{
    const char *base = getenv("TMPDIR");
    if (!base || *base != '/' || strlen(base) > 200)
        base = "/tmp";
    snprintf(directory, 256, "%s/plm-child-XXXXXX", base);
    if (!mkdtemp(directory)) {
        *directory = 0;
        return status_set(st, PLM_EIO, "cannot make a directory for a program under '%s': %s; set TMPDIR to one that can be written", base,
                          strerror(errno));
    }
    if (*uid && chown(directory, *uid, *uid)) {
        *uid = 65534;
        if (chown(directory, *uid, *uid))
            *uid = 0;
    }
    return PLM_OK;
}

static int remove_entry(const char *path, const struct stat *s, int type, struct FTW *ftw)
{
    (void)s, (void)ftw;
    return type == FTW_DP || type == FTW_D ? rmdir(path) : unlink(path);
}

static int open_entry(const char *path, const struct stat *s, int type, struct FTW *ftw)
{
    (void)s, (void)ftw;
    return type == FTW_D || type == FTW_DNR ? chmod(path, 0700), 0 : 0;
}

static void directory_drop(const char *directory)
{
    if (!*directory || rmdir(directory) == 0)
        return;
    nftw(directory, open_entry, 16, FTW_PHYS);
    if (nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS))
        log_warn("cannot remove '%s', the directory of a program that has ended: %s", directory, strerror(errno));
}

/* ---- starting ---- */

/* Namespaces of our own right, else inside a user namespace, else none: the first that the kernel allows. */
static pid_t clone_child(struct confine_plan *p, unsigned char *stack)
{
    static const int tries[] = {NAMESPACES, NAMESPACES | CLONE_NEWUSER, 0};
    const uint32_t uid = p->uid;
    pid_t pid = -1;
    for (int i = p->confine ? 0 : 2; i < 3 && pid < 0; i++) {
        p->namespaces = i < 2;
        p->user_namespace = i == 1;
        p->uid = i == 1 ? 0 : uid;
        p->missing = p->confine && i == 2 ? CHILD_NAMESPACES : 0;
        p->error = 0;
        pid = clone(confine_and_exec, stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | SIGCHLD | tries[i], p);
    }
    return pid;
}

static int launch(struct child *c, const struct child_options *o, const int ends[3], uint32_t uid, struct plm_status *st)
{
    char path[512], mount_options[128];
    const char *search = o->confine ? CONFINED_PATH : getenv("PATH");
    if (!find_program(o->argv[0], search ? search : CONFINED_PATH, path))
        return status_set(st, PLM_EIO, "cannot start '%.200s': there is no such program in %s", o->argv[0], search ? search : CONFINED_PATH);
    struct environment e;
    int code = environment_make(&e, o->confine ? c->directory : NULL, st);
    if (code)
        return code;
    unsigned char *stack = malloc(STACK_BYTES);
    if (!stack) {
        free(e.variables);
        return status_no_memory(st, STACK_BYTES, "a child's stack");
    }
    snprintf(mount_options, sizeof mount_options, "mode=0777,nr_inodes=10000,size=%lld",
             (long long)(o->limits.file_bytes > 0 ? o->limits.file_bytes : INT64_C(1) << 30));
    struct confine_plan plan = {.path = path, .argv = (char *const *)(uintptr_t)o->argv, .envp = e.variables,
        .fds = {ends[0], ends[1], ends[2]}, .n_fds = 3 + o->n_extra, .confine = o->confine, .uid = uid, .directory = o->confine ? c->directory : NULL,
        .directory_mount = mount_options, .outer_uid = geteuid(), .outer_gid = getegid(), .limits = o->limits};
    memcpy(plan.fds + 3, o->extra, (size_t)o->n_extra * sizeof *o->extra);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* no handler may run in the child: it would run in our memory */
    const pid_t pid = clone_child(&plan, stack);
    const int error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    free(stack);
    free(e.variables);
    if (pid < 0)
        return status_set(st, PLM_EIO, "cannot start '%.200s': %s", o->argv[0], strerror(error));
    if (plan.error) {
        waitpid(pid, NULL, 0);
        return status_set(st, PLM_EIO, "cannot start '%.200s' (%s): it could not %s: %s", o->argv[0], path, plan.step, strerror(plan.error));
    }
    c->pid = pid;
    c->missing = plan.missing;
    c->exit_fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return PLM_OK;
}

int child_input(const char *input, size_t n, int *fd, struct plm_status *st)
{
    *fd = memfd_create("input", MFD_CLOEXEC);
    if (*fd < 0)
        return status_set(st, PLM_EIO, "cannot make a file in memory: %s", strerror(errno));
    for (size_t at = 0; at < n;) {
        const ssize_t w = write(*fd, input + at, n - at);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0) {
            status_set(st, PLM_EIO, "cannot write %zu bytes to a file in memory: %s", n, strerror(errno));
            close(*fd);
            *fd = -1;
            return PLM_EIO;
        }
        at += (size_t)w;
    }
    lseek(*fd, 0, SEEK_SET);
    return PLM_OK;
}

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

int child_start(struct child *c, const struct child_options *o, struct plm_status *st)
{
    int pipes[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}};
    *c = (struct child){.in = -1, .out = -1, .err = -1, .exit_fd = -1};
    int code = PLM_OK;
    for (int i = o->input >= 0; i < 3 && !code; i++)
        if (pipe2(pipes[i], O_CLOEXEC))
            code = status_set(st, PLM_EIO, "cannot make a pipe: %s", strerror(errno));
    /* one user per running child: what the limit of processes counts, and what signals and files of others are kept from */
    uint32_t uid = o->confine && geteuid() == 0 ? UINT32_C(0x40000000) + (uint32_t)syscall(SYS_gettid) : 0;
    const bool change_user = uid != 0;
    if (!code && o->confine)
        code = directory_make(c->directory, &uid, st);
    const int ends[3] = {o->input >= 0 ? o->input : pipes[0][0], pipes[1][1], pipes[2][1]};
    if (!code)
        code = launch(c, o, ends, uid, st);
    c->in = pipes[0][1], c->out = pipes[1][0], c->err = pipes[2][0];
    close_end(&pipes[0][0]);
    close_end(&pipes[1][1]);
    close_end(&pipes[2][1]);
    if (code) {
        child_stop(c, NULL);
        return code;
    }
    if (change_user && !uid)
        c->missing |= CHILD_USER;
    for (int i = 0; i < 3; i++) {
        const int fd = i == 0 ? c->in : i == 1 ? c->out : c->err;
        if (fd >= 0)
            fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    }
    return PLM_OK;
}

/* ---- running and ending ---- */

ssize_t child_write(struct child *c, const char *data, size_t n)
{
    sigset_t pipe_only, before, pending;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    const ssize_t written = write(c->in, data, n);
    const int error = errno;
    if (written < 0 && error == EPIPE && !sigismember(&pending, SIGPIPE)) {
        const struct timespec now = {0, 0};
        sigtimedwait(&pipe_only, NULL, &now);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (written >= 0)
        return written;
    return error == EAGAIN || error == EINTR ? 0 : -1;
}

bool child_ended(const struct child *c)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == c->pid;
}

void child_kill(const struct child *c)
{
    if (c->pid <= 0)
        return;
    kill(-c->pid, SIGKILL); /* while it is not reaped its number, and its group's, cannot be anybody else's */
    kill(c->pid, SIGKILL);
}

void child_stop(struct child *c, int *status)
{
    int ended = -1;
    if (c->pid > 0) {
        child_kill(c);
        while (waitpid(c->pid, &ended, 0) < 0)
            if (errno != EINTR) {
                ended = -1;
                break;
            }
        c->pid = 0;
        if (status)
            *status = ended;
    }
    close_end(&c->in);
    close_end(&c->out);
    close_end(&c->err);
    close_end(&c->exit_fd);
    directory_drop(c->directory);
    *c->directory = 0;
}
