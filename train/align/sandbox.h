/* Run an untrusted program to its end, or to a limit, or until somebody has seen enough of it. */
#ifndef TRAIN_ALIGN_SANDBOX_H
#define TRAIN_ALIGN_SANDBOX_H

#include "train/align/child.h"

struct sandbox_limits {
    double timeout_s;        /* wall clock */
    struct child_limits child; /* cpu_s 0: the timeout */
    enum child_confine confine;
    const char *const *paths; /* more that it may read (child_options) */
    size_t output_bytes;     /* of what it prints on each of its streams, the last so many are kept */
};
/* 10 s, 1 GiB of memory, 64 MiB of files, 64 processes, 64 open files, 64 KiB of output. */
struct sandbox_limits sandbox_limits_default(void);

enum sandbox_end {
    SANDBOX_EXITED,
    SANDBOX_SIGNALLED,
    SANDBOX_TIMEOUT,
    SANDBOX_STOPPED /* it ran when it was finished with */,
    SANDBOX_MEMORY,
    SANDBOX_FILES /* it and its descendants took more than they may */
};

struct sandbox_result {
    enum sandbox_end end;
    int status;              /* of exit, or the number of the signal */
    double seconds;
    char *output, *errors;   /* NUL-terminated, of standard output and error; owned */
    size_t output_bytes, error_bytes;
    bool output_cut;         /* more was printed on either than kept */
    bool memory_full;        /* some process of it was killed for want of memory */
    unsigned missing;        /* guards the kernel does not give (enum child_guard); confined weakly */
};
void sandbox_result_free(struct sandbox_result *r);

struct sandbox_program {
    const char *const *argv; /* NULL-terminated */
    const char *input;       /* its standard input */
    size_t input_bytes;
    int n_extra, extra[CHILD_EXTRA]; /* descriptors it gets as 3, 4, ...; the caller closes its own */
};

/* Run a program confined (child.h), and kill whatever is left when it ends. PLM_EIO when it cannot be started, or not
 * be confined as asked. May be called by several threads at a time. */
int sandbox_run(struct sandbox_result *r, const struct sandbox_program *p, const struct sandbox_limits *limits,
                struct plm_status *st);

/* The same in three steps, for one thread: start; follow it until it has ended, or the time is up, or (`until` >= 0)
 * that descriptor can be read, which is not before the program has ended when only the program could make it so; and
 * finish, which kills what is left. */
struct sandbox;
int sandbox_start(struct sandbox **out, const struct sandbox_program *p, const struct sandbox_limits *limits,
                  struct plm_status *st);
void sandbox_follow(struct sandbox *s, int until);
void sandbox_wait_end(struct sandbox *s, int ms); /* of a program that is known to be ending */
void sandbox_finish(struct sandbox *s, struct sandbox_result *r);

#endif
