#include "train/signals.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

static volatile sig_atomic_t stop_signal;
static const int numbers[] = {SIGINT, SIGTERM, SIGUSR1};
enum { N_SIGNALS = sizeof numbers / sizeof *numbers };
static struct sigaction previous[N_SIGNALS];
static bool installed;

/* oneDNN's generated code points the stack register into its workspace on the heap while it multiplies: a handler on the
 * current stack would overwrite what lies below. 64 KiB hold the kernel's frame with every vector and tile register. */
static char handler_stack[1 << 16];
static stack_t previous_stack;

static void on_stop(int number)
{
    stop_signal = number;
}

int signals_open(struct plm_status *st)
{
    if (installed)
        return status_set(st, PLM_EINVAL, "the signal handlers are installed already: one run at a time in a process");
    stop_signal = 0;
    const stack_t stack = {.ss_sp = handler_stack, .ss_size = sizeof handler_stack};
    if (sigaltstack(&stack, &previous_stack) != 0)
        return status_set(st, PLM_EINTERNAL, "cannot set a stack for signal handlers: %s", strerror(errno));
    for (int i = 0; i < N_SIGNALS; i++) {
        struct sigaction action = {.sa_handler = on_stop, .sa_flags = SA_RESTART | SA_ONSTACK};
        if (numbers[i] == SIGINT)
            action.sa_flags |= (int)SA_RESETHAND; /* the second SIGINT finds the default action */
        sigemptyset(&action.sa_mask);
        if (sigaction(numbers[i], &action, &previous[i]) != 0) {
            int error = errno;
            while (i-- > 0)
                sigaction(numbers[i], &previous[i], NULL);
            sigaltstack(&previous_stack, NULL);
            return status_set(st, PLM_EINTERNAL, "cannot handle signals: %s", strerror(error));
        }
    }
    installed = true;
    return PLM_OK;
}

int signals_stop_requested(void)
{
    return stop_signal;
}

void signals_close(void)
{
    if (!installed)
        return;
    for (int i = 0; i < N_SIGNALS; i++)
        sigaction(numbers[i], &previous[i], NULL);
    sigaltstack(&previous_stack, NULL);
    installed = false;
}
