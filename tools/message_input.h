/* Messages typed at a terminal or read from a file or pipe. */
#ifndef TOOLS_MESSAGE_INPUT_H
#define TOOLS_MESSAGE_INPUT_H

#include "infer/base/status.h"

struct message_input;

/* From standard input. At a terminal with line editing and history, in the terminal's UTF-8; several lines pasted
 * together are one message. */
int message_input_open(struct message_input **out, struct plm_status *st);
void message_input_close(struct message_input *in);

/* The next message, malloc'ed; NULL in *message at the end of the input. A message is a line without its end (a
 * newline, or CR and newline: CR, TAB and everything else in it is text), or all lines from one that begins with three
 * double quotes to one that ends with them. A byte order mark at the beginning is dropped; NUL and what is not UTF-8
 * become U+FFFD. */
int message_input_next(struct message_input *in, char **message, struct plm_status *st);

#endif
