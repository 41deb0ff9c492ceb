/* A child process that cannot outlive its caller: its own session, no descriptors but its standard three, killed as a whole, also when the
 * thread that started it dies. Safe to start from a process with many threads and with pinned or registered memory (MPI): nothing is
 * copied, and between clone and exec only system calls are made. */
#ifndef TRAIN_ALIGN_CHILD_H
#define TRAIN_ALIGN_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "infer/base/status.h"
#include "train/align/cgroup.h"
#include "train/align/scratch.h"

struct child_limits {
    double cpu_s;          /* 0 in any of these: no limit */
    int64_t memory_bytes;  /* of a confined child and its descendants together (see child_excess); and the address space
                              of each process */
    int64_t file_bytes;    /* each file, and the working directory as a whole */
    int processes;         /* with threads */
    int open_files;
};

/* What keeps a confined child from the rest of the machine. */
enum child_guard {
    CHILD_NAMESPACES =
        1, /* own processes, no network, nothing of the file system but what an interpreter needs, read-only (root.h) */
    CHILD_FILTER = 2, /* seccomp: a list of allowed system calls (filter.h) */
    CHILD_USER = 4,   /* without namespaces, of a trainer that is root: another user, who owns nothing */
    CHILD_FILES = 8, /* without namespaces: Landlock keeps it from other files, and from the memory and signals of other
                        processes */
};
const char *child_guard_name(enum child_guard guard);

enum { CHILD_EXTRA = 2 };

enum child_confine {
    CHILD_FREE,     /* the caller's directory and environment, PYTHONUNBUFFERED=1 added */
    CHILD_CONFINED, /* untrusted: namespaces and filter or an error; an empty working directory, a minimal environment
                     */
    CHILD_WEAK,     /* the same where this machine has it; else whatever it has, and child.missing says what not */
};

struct child_options {
    const char *const *argv;    /* NULL-terminated; argv[0] is looked up in PATH */
    enum child_confine confine;
    const char *const
        *paths; /* confined: more directories that it may read, NULL-terminated, absolute, without links; NULL: none */
    bool count_memory; /* confined: limit the memory of all its processes together, by a control group where that can be
                        */
    struct child_limits limits;
    bool outlives;              /* free: not killed when the thread that started it dies */
    int input;                  /* a descriptor to read from; -1: a pipe, see child.in */
    int n_extra, extra[CHILD_EXTRA]; /* more descriptors of the caller's, which become 3, 4, ... */
};

struct child {
    pid_t pid;              /* 0: none runs */
    int in, out, err;       /* our ends of its pipes, not blocking, closed at exec; -1: closed */
    int exit_fd;            /* readable when it has ended; -1: this kernel has no such thing */
    unsigned missing;       /* guards (a set of enum child_guard) that were asked for and not to be had */
    bool counted;           /* a control group limits the memory of all its processes */
    struct child_limits limits;
    struct child *keeper;   /* confined, without a process namespace: ends its descendants when we are killed */
    struct scratch scratch; /* confined, without namespaces: its working directory */
    struct cgroup group;
};

/* An input as a file in memory, to be closed by the caller: nobody has to feed a pipe while the program prints. */
int child_input(const char *input, size_t n, int *fd, struct plm_status *st);

/* PLM_EIO when the program cannot be started (not found, not executable), or not be confined: no child then. Writing to
 * child.in may raise SIGPIPE: use child_write. The calling thread must be the one that stops it. */
int child_start(struct child *c, const struct child_options *o, struct plm_status *st);

/* Write what the pipe takes now: bytes written, 0 when it is full, -1 when nobody reads any more. */
ssize_t child_write(struct child *c, const char *data, size_t n);

/* Has it ended (it is not reaped yet)? */
bool child_ended(const struct child *c);

/* Does a confined child with its descendants use more than its limits, where the kernel does not see to it? To be asked
 * now and then. */
enum child_excess { CHILD_WITHIN, CHILD_TOO_MUCH_MEMORY, CHILD_TOO_MANY_BYTES };
enum child_excess child_excess(const struct child *c);

/* Kill it and what is left of its descendants; it is still to be stopped. */
void child_kill(const struct child *c);

/* Kill what is left of it and of its descendants, wait, close, remove its directory. *status: as waitpid's (-1 when somebody else reaped
 * it), NULL allowed. Nothing happens when none runs. */
void child_stop(struct child *c, int *status);

#endif
