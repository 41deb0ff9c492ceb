/* A child process that cannot outlive its caller: its own session, no descriptors but its standard three, killed as a whole, also when the
 * thread that started it dies. Safe to start from a process with many threads and with pinned or registered memory (MPI): nothing is
 * copied, and between clone and exec only system calls are made. */
#ifndef TRAIN_ALIGN_CHILD_H
#define TRAIN_ALIGN_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "infer/base/status.h"

struct child_limits {
    double cpu_s;          /* 0 in any of these: no limit */
    int64_t memory_bytes;  /* address space of each process */
    int64_t file_bytes;    /* each file, and the working directory as a whole */
    int processes;         /* with threads */
    int open_files;
};

/* What keeps a confined child from the rest of the machine. Which of these the kernel allows is found out at each start. */
enum child_guard {
    CHILD_NAMESPACES = 1, /* own processes, no network, file system read-only but for its directory */
    CHILD_FILTER = 2,     /* seccomp: no sockets, no tracing, no mounting, no leaving the session */
    CHILD_USER = 4,       /* of a trainer that is root: another user, who owns nothing */
};
const char *child_guard_name(enum child_guard guard);

enum { CHILD_EXTRA = 2 };

struct child_options {
    const char *const *argv;    /* NULL-terminated; argv[0] is looked up in PATH */
    bool confine;               /* untrusted: all guards, an empty working directory that is removed, a minimal environment. Else the
                                 * caller's directory and environment, PYTHONUNBUFFERED=1 added */
    struct child_limits limits;
    int input;                  /* a descriptor to read from; -1: a pipe, see child.in */
    int n_extra, extra[CHILD_EXTRA]; /* more descriptors of the caller's, which become 3, 4, ... */
};

struct child {
    pid_t pid;              /* 0: none runs */
    int in, out, err;       /* our ends of its pipes, not blocking, closed at exec; -1: closed */
    int exit_fd;            /* readable when it has ended; -1: this kernel has no such thing */
    unsigned missing;       /* guards (a set of enum child_guard) that were asked for and not to be had */
    char directory[256];    /* confined: its working directory */
};

/* An input as a file in memory, to be closed by the caller: nobody has to feed a pipe while the program prints. */
int child_input(const char *input, size_t n, int *fd, struct plm_status *st);

/* PLM_EIO when the program cannot be started (not found, not executable): no child then. Writing to child.in may raise SIGPIPE: use
 * child_write. The calling thread must be the one that stops it. */
int child_start(struct child *c, const struct child_options *o, struct plm_status *st);

/* Write what the pipe takes now: bytes written, 0 when it is full, -1 when nobody reads any more. */
ssize_t child_write(struct child *c, const char *data, size_t n);

/* Has it ended (it is not reaped yet)? */
bool child_ended(const struct child *c);

/* Kill it and what is left of its descendants; it is still to be stopped. */
void child_kill(const struct child *c);

/* Kill what is left of it and of its descendants, wait, close, remove its directory. *status: as waitpid's (-1 when somebody else reaped
 * it), NULL allowed. Nothing happens when none runs. */
void child_stop(struct child *c, int *status);

#endif
