/* What a model writes, as valid UTF-8 at every moment: tokens end within characters. */
#ifndef TOOLS_TEXT_STREAM_H
#define TOOLS_TEXT_STREAM_H

#include <stdio.h>

#include "infer/base/status.h"

/* Begin with {0}. */
struct text_stream {
    char held[4]; /* (n_held) the beginning of a character */
    size_t n_held;
};

/* Write n bytes and flush. The beginning of a character waits for the rest; what can be no character becomes U+FFFD. PLM_EIO when the
 * file does not take it. */
int text_stream_put(struct text_stream *s, FILE *f, const char *bytes, size_t n, struct plm_status *st);

/* The text is over: a character that is not complete becomes U+FFFD. */
int text_stream_end(struct text_stream *s, FILE *f, struct plm_status *st);

#endif
