/* Text that grows piece by piece and ends before the first of some stop strings, also when one spans pieces, or pieces
 * that are not shown. */
#ifndef TOOLS_STOP_TEXT_H
#define TOOLS_STOP_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "infer/base/status.h"

struct stop_text {
    const char *const *stops; /* (n_stops), none empty */
    int n_stops;
    char *data; /* bytes to be shown so far; after a stop string those before it */
    size_t length, capacity;
    char *tail;    /* (n_tail) the last bytes of the whole text, hidden ones too: a stop string may begin in them */
    size_t *shown; /* (n_tail) how many bytes of the shown text, from its very beginning, precede each of them */
    size_t n_tail, tail_capacity, dropped;
};
void stop_text_free(struct stop_text *t);

/* Begin another text with the same stop strings. */
void stop_text_clear(struct stop_text *t);

/* Add n bytes. *stopped: a stop string ends in them, and the text was cut before it (the earliest where several end).
 * Hidden bytes, such as those of a special token, take part in stop strings but are not shown. */
int stop_text_add(struct stop_text *t, const char *bytes, size_t n, bool hidden, bool *stopped, struct plm_status *st);

/* Bytes at the front of the text that no stop string can begin in any more: what may be shown. */
size_t stop_text_certain(const struct stop_text *t);

/* Forget the first n bytes. */
void stop_text_drop(struct stop_text *t, size_t n);

#endif
