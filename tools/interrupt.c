#include "tools/interrupt.h"

static volatile sig_atomic_t interrupted; /* a signal handler reaches nothing else */

static void on_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

const volatile sig_atomic_t *interrupt_catch(void)
{
    const struct sigaction on = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    interrupted = 0;
    sigaction(SIGINT, &on, NULL);
    return &interrupted;
}

void interrupt_release(void)
{
    signal(SIGINT, SIG_DFL);
}
