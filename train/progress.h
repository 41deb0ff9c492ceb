/* What a person sees of a run: one status line, redrawn in place, on a terminal; plain lines elsewhere. */
#ifndef TRAIN_PROGRESS_H
#define TRAIN_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "infer/base/log.h"

struct progress {
    pthread_mutex_t lock; /* log lines come from any thread */
    FILE *out;          /* NULL: silent (ranks other than 0) */
    bool terminal;
    int64_t every;      /* steps between plain lines */
    double redraw_at;   /* monotonic seconds before which the status line is left alone */
    bool drawn;         /* a status line is on the screen */
    char line[512];     /* the last status */
};

struct progress_status {
    const char *phase;
    int64_t step, total_steps;     /* steps done, including this one */
    int64_t tokens, total_tokens;
    double loss, learning_rate, grad_norm;
    double tokens_per_second;      /* 0: not known yet */
};

/* `every` is log.every_steps. Under a launcher the output is a pipe; PLM_TERMINAL in the environment says that a terminal reads it. */
void progress_open(struct progress *p, FILE *out, int64_t every);

/* Show a step: at most ten times a second on a terminal, every `every` steps and at the last step elsewhere. */
void progress_update(struct progress *p, const struct progress_status *s);

/* One line of its own (an evaluation, a checkpoint), above the status line. */
void progress_note(struct progress *p, const char *fmt, ...) PLM_PRINTF(2, 3);

/* A sink for log_set_sink with user = the progress, so that log lines do not run into the status line. */
void progress_log_sink(void *user, enum log_level level, const char *line);

/* Leave the last status on a line of its own. */
void progress_close(struct progress *p);

/* The status as text, cut to `width` columns (0: not cut); used by progress_update. Returns out. */
char *progress_format(const struct progress_status *s, int width, char *out, size_t size);

#endif
