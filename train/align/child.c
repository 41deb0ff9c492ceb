#include "train/align/child.h"

#include <errno.h>
#include <fcntl.h>
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

#include "train/align/confine.h"
#include "train/align/usage.h"

#define STACK_BYTES (128 << 10) /* of the child until it executes */
#define CONFINED_PATH "/usr/local/bin:/usr/bin:/bin"
#define NAMESPACES (CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

extern char **environ;

const char *child_guard_name(enum child_guard guard)
{
    return guard == CHILD_NAMESPACES ? "namespaces (own processes, an empty root)"
           : guard == CHILD_FILTER   ? "a system call filter"
           : guard == CHILD_USER     ? "another user"
                                     : "protection of this user's files and of this process's memory (Landlock)";
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

static int environment_make(struct environment *e, struct plm_status *st)
{
    size_t inherited = 0;
    while (environ && environ[inherited])
        inherited++;
    e->variables = calloc(inherited + 9, sizeof *e->variables);
    return e->variables ? PLM_OK : status_no_memory(st, (inherited + 9) * sizeof *e->variables, "an environment");
}

/* Ours and one more; for a confined child nothing but what it needs, and its directory. */
static void environment_fill(struct environment *e, const char *directory)
{
    size_t n = 0;
    if (directory) {
        e->variables[n++] = (char *)"PATH=" CONFINED_PATH;
        e->variables[n++] = (char *)"LANG=C.UTF-8";
        e->variables[n++] = (char *)"PYTHONHASHSEED=0"; /* sets in one order, in every process and every run */
        e->variables[n++] = (char *)"OMP_NUM_THREADS=1"; /* numerical libraries start a thread per processor, and reserve memory for each */
        e->variables[n++] = (char *)"OPENBLAS_NUM_THREADS=1";
        snprintf(e->own[0], sizeof e->own[0], "HOME=%s", directory);
        snprintf(e->own[1], sizeof e->own[1], "TMPDIR=%s", directory);
        e->variables[n++] = e->own[0];
        e->variables[n++] = e->own[1];
    } else {
        for (size_t i = 0; environ && environ[i]; i++)
            if (strncmp(environ[i], "PYTHONUNBUFFERED=", 17) != 0)
                e->variables[n++] = environ[i];
        e->variables[n++] = (char *)"PYTHONUNBUFFERED=1"; /* print() must reach us line by line */
    }
    e->variables[n] = NULL;
}

/* ---- starting ---- */

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* How a child is kept from the rest: namespaces of our own right, else inside a user namespace, else (only when that is
 * enough) none. */
struct way {
    bool namespaces, user_namespace;
};

struct start {
    const struct child_options *o;
    const int *ends;
    const char *path;        /* of the program */
    struct environment e;
    unsigned char *stack;
    char mount_options[128];
    struct confine_plan plan;
};

/* True when it runs. Else plan.step and plan.error say what failed. */
static bool launch(struct child *c, struct start *s, struct way way, uint32_t uid)
{
    const struct child_options *o = s->o;
    struct confine_plan *p = &s->plan;
    *p = (struct confine_plan){.path = s->path,
                               .argv = (char *const *)(uintptr_t)o->argv,
                               .envp = s->e.variables,
                               .fds = {s->ends[0], s->ends[1], s->ends[2]},
                               .n_fds = 3 + o->n_extra,
                               .outlives = o->outlives,
                               .confine = o->confine != CHILD_FREE,
                               .weak = o->confine == CHILD_WEAK,
                               .namespaces = way.namespaces,
                               .user_namespace = way.user_namespace,
                               .uid = way.user_namespace ? 0 : uid,
                               .paths = o->paths,
                               .directory = *c->scratch.path ? c->scratch.path : NULL,
                               .directory_mount = s->mount_options,
                               .cgroup = c->group.procs,
                               .keeper = c->keeper ? c->keeper->in : -1,
                               .outer_uid = geteuid(),
                               .outer_gid = getegid(),
                               .limits = o->limits};
    memcpy(p->fds + 3, o->extra, (size_t)o->n_extra * sizeof *o->extra);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* no handler may run in the child: it would run in our memory */
    const pid_t pid = clone(confine_and_exec, s->stack + STACK_BYTES,
                            CLONE_VM | CLONE_VFORK | SIGCHLD | (way.namespaces ? NAMESPACES : 0) |
                                (way.user_namespace ? CLONE_NEWUSER : 0),
                            p);
    if (pid < 0) {
        p->error = errno;
        p->step = way.namespaces ? "get namespaces" : "start";
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (p->error) {
        if (pid > 0)
            waitpid(pid, NULL, 0);
        return false;
    }
    c->pid = pid;
    c->missing |= p->missing | (p->confine && !way.namespaces ? CHILD_NAMESPACES : 0);
    c->exit_fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return true;
}

static int not_confined(const struct start *s, struct plm_status *st)
{
    return status_set(
        st, PLM_EIO,
        "cannot confine '%.100s': it could not %s: %s. Programs of a model are run only behind namespaces (own processes, "
        "no network, an empty root) and a system call filter. Give this user namespaces (root; or sysctl "
        "user.max_user_namespaces, kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; in "
        "Docker --security-opt seccomp=unconfined --security-opt systempaths=unconfined), or set \"confine\": \"weak\" in "
        "the scorer to run them with less",
        s->o->argv[0], s->plan.step, strerror(s->plan.error));
}

/* Descendants of a child that has no process namespace do not end with it when we are killed: a shell reads the number of the
 * child's group, which none of them can leave, then waits for the end of a pipe that only we hold, and ends what is left. */
static int keeper_start(struct child *c, struct plm_status *st)
{
    static const char script[] = "read group && { read x; kill -s KILL -- -$group; rm -rf -- \"$0\"; }";
    const char *const argv[] = {"/bin/sh", "-c", script, c->scratch.path, NULL};
    const struct child_options o = {.argv = argv, .input = -1, .outlives = true};
    c->keeper = calloc(1, sizeof *c->keeper);
    return c->keeper ? child_start(c->keeper, &o, st) : status_no_memory(st, sizeof *c->keeper, "a keeper of a child");
}

/* The strongest way that this machine has; without namespaces only where the caller says that less will do. */
static int launch_best(struct child *c, struct start *s, struct plm_status *st)
{
    static const struct way ways[] = {{true, false}, {true, true}, {false, false}};
    const struct child_options *o = s->o;
    /* one user per running child: what the limit of processes counts, and from whom other children are kept */
    uint32_t uid = o->confine && geteuid() == 0 ? SCRATCH_FIRST_UID + (uint32_t)syscall(SYS_gettid) : 0;
    bool started = false;
    for (int i = o->confine ? 0 : 2; i < 3 && !started; i++) {
        const bool change_user = uid != 0 && ways[i].namespaces == false;
        if (i == 2 && o->confine == CHILD_CONFINED)
            return not_confined(s, st);
        if (i == 2 && o->confine) {
            int code = scratch_make(&c->scratch, &uid, st);
            if (!code)
                code = keeper_start(c, st);
            if (code)
                return code;
        }
        if (change_user && !uid)
            c->missing |= CHILD_USER;
        environment_fill(&s->e, !o->confine ? NULL : i == 2 ? c->scratch.path : "/tmp");
        started = launch(c, s, ways[i], uid);
        if (!started && ways[i].namespaces && s->plan.step && !strcmp(s->plan.step, "start"))
            break; /* it is the program that cannot be started, not its confinement */
    }
    if (started)
        return PLM_OK;
    return status_set(st, PLM_EIO, "cannot start '%.200s' (%s): it could not %s: %s%s", o->argv[0], s->path,
                      s->plan.step, strerror(s->plan.error),
                      o->confine && s->plan.error == ENOENT
                          ? "; a confined program sees /usr, /bin, /lib and the scorer's \"paths\""
                          : "");
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

int child_start(struct child *c, const struct child_options *o, struct plm_status *st)
{
    int pipes[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}};
    char path[512];
    const char *search = o->confine ? CONFINED_PATH : getenv("PATH");
    *c = (struct child){.in = -1, .out = -1, .err = -1, .exit_fd = -1, .group = {.procs = -1}, .scratch = {.lock = -1}};
    if (!find_program(o->argv[0], search ? search : CONFINED_PATH, path))
        return status_set(st, PLM_EIO, "cannot start '%.200s': there is no such program in %s", o->argv[0],
                          search ? search : CONFINED_PATH);
    int code = PLM_OK;
    for (int i = o->input >= 0; i < 3 && !code; i++)
        if (pipe2(pipes[i], O_CLOEXEC))
            code = status_set(st, PLM_EIO, "cannot make a pipe: %s", strerror(errno));
    const int ends[3] = {o->input >= 0 ? o->input : pipes[0][0], pipes[1][1], pipes[2][1]};
    struct start s = {.o = o, .ends = ends, .path = path, .stack = malloc(STACK_BYTES)};
    if (!code && !s.stack)
        code = status_no_memory(st, STACK_BYTES, "a child's stack");
    if (!code)
        code = environment_make(&s.e, st);
    snprintf(s.mount_options, sizeof s.mount_options, "mode=0777,nr_inodes=10000,size=%lld",
             (long long)(o->limits.file_bytes > 0 ? o->limits.file_bytes : INT64_C(1) << 30));
    c->limits = o->limits;
    if (!code && o->confine && o->limits.memory_bytes > 0)
        c->counted = o->count_memory && cgroup_make(&c->group, o->limits.memory_bytes, o->limits.processes);
    if (!code)
        code = launch_best(c, &s, st);
    free(s.stack);
    free(s.e.variables);
    c->in = pipes[0][1], c->out = pipes[1][0], c->err = pipes[2][0];
    close_end(&pipes[0][0]);
    close_end(&pipes[1][1]);
    close_end(&pipes[2][1]);
    if (code) {
        child_stop(c, NULL);
        return code;
    }
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

enum child_excess child_excess(const struct child *c)
{
    const struct child_limits *l = &c->limits;
    if (!c->counted && l->memory_bytes > 0 && usage_memory(c->pid) > l->memory_bytes)
        return CHILD_TOO_MUCH_MEMORY;
    if (*c->scratch.path && l->file_bytes > 0 && usage_files(c->scratch.path, c->pid) > l->file_bytes)
        return CHILD_TOO_MANY_BYTES;
    return CHILD_WITHIN;
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
    child_kill(c);
    if (c->keeper) { /* while the number of its group is still ours */
        child_stop(c->keeper, NULL);
        free(c->keeper);
        c->keeper = NULL;
    }
    if (c->pid > 0) {
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
    scratch_drop(&c->scratch);
    cgroup_drop(&c->group);
}
