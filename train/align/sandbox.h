/* Run an untrusted program to its end, or to a limit. */
#ifndef TRAIN_ALIGN_SANDBOX_H
#define TRAIN_ALIGN_SANDBOX_H

#include "train/align/child.h"

struct sandbox_limits {
    double timeout_s;        /* wall clock */
    struct child_limits child; /* cpu_s 0: the timeout */
    size_t output_bytes;     /* of what it prints on each of its streams, the last so many are kept */
};
/* 10 s, 1 GiB of memory, 64 MiB of files, 64 processes, 64 open files, 64 KiB of output. */
struct sandbox_limits sandbox_limits_default(void);

enum sandbox_end { SANDBOX_EXITED, SANDBOX_SIGNALLED, SANDBOX_TIMEOUT };

struct sandbox_result {
    enum sandbox_end end;
    int status;              /* of exit, or the number of the signal */
    double seconds;
    char *output, *errors;   /* NUL-terminated, of standard output and error; owned */
    size_t output_bytes, error_bytes;
    bool output_cut;         /* more was printed on either than kept */
    unsigned missing;        /* guards the kernel does not give (enum child_guard) */
};
void sandbox_result_free(struct sandbox_result *r);

/* Run argv (NULL-terminated) with `input` as its standard input, confined (child.h), and kill whatever is left when it ends. PLM_EIO when
 * it cannot be started. May be called by several threads at a time. */
int sandbox_run(struct sandbox_result *r, const char *const *argv, const char *input, size_t input_bytes, const struct sandbox_limits *limits,
                struct plm_status *st);

#endif
