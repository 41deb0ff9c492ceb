/* Standard input, output and error of the program: there, and what was printed is written or the exit status says that
 * it is not. One mechanism for all commands. */
#ifndef TOOLS_STANDARD_STREAMS_H
#define TOOLS_STANDARD_STREAMS_H

/* Call once, first in main. A stream that the program was started without (closed descriptors) fails when it is used,
 * and no file that is opened later takes its place. Output that cannot be written (full disk, quota, closed pipe) ends
 * the program with a message on standard error and STATUS_ERROR: in a pipe that nobody reads at once, else at the end,
 * also when argp ends the program. Where the caller ignores SIGPIPE, writing to such a pipe fails like to a full disk. */
void standard_streams_open(void);

#endif
