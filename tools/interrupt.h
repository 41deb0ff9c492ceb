/* Ctrl-C as a flag. */
#ifndef TOOLS_INTERRUPT_H
#define TOOLS_INTERRUPT_H

#include <signal.h>

/* From now on the first SIGINT sets the returned flag (cleared here), and a second ends the process as it always does. */
const volatile sig_atomic_t *interrupt_catch(void);

/* SIGINT ends the process again. */
void interrupt_release(void);

#endif
