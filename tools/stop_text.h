/* Text that grows piece by piece and ends before the first of some stop strings, also when one spans pieces. */
#ifndef TOOLS_STOP_TEXT_H
#define TOOLS_STOP_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "infer/base/status.h"

struct stop_text {
    const char *const *stops; /* (n_stops), none empty */
    int n_stops;
    char *data; /* bytes so far, free with free(); after a stop string those before it */
    size_t length, capacity;
};

/* Add n bytes. *stopped: a stop string ends in them, and the text was cut before it (the earliest where several end). */
int stop_text_add(struct stop_text *t, const char *bytes, size_t n, bool *stopped, struct plm_status *st);

/* Bytes at the front of the text that no stop string can begin in any more: what may be shown. */
size_t stop_text_certain(const struct stop_text *t);

/* Forget the first n bytes. */
void stop_text_drop(struct stop_text *t, size_t n);

#endif
