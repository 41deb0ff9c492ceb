/* How the program ends. */
#ifndef TOOLS_EXIT_STATUS_H
#define TOOLS_EXIT_STATUS_H

enum exit_status {
    STATUS_DONE = 0,            /* also: nothing was left to do */
    STATUS_ERROR = 1,           /* with a message on standard error; also output that cannot be written */
    STATUS_USAGE = 2,           /* the command line is wrong */
    STATUS_LEARNED_NOTHING = 3, /* a job came to its end, but no update changed the weights */
    STATUS_SIGNAL = 128         /* + the signal's number: stopped with the state saved, or ended by it */
};

#endif
