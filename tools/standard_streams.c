#include "tools/standard_streams.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/exit_status.h"

static pid_t program; /* signal handlers and atexit reach nothing else */

/* A process that was forked and has not become another program yet ends as it always does. */
static void on_closed_pipe(int number)
{
    static const char message[] = "plm: error: the output cannot be written: nobody reads the pipe any more\n";
    if (getpid() != program) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    const ssize_t said = write(STDERR_FILENO, message, sizeof message - 1);
    (void)said; /* standard error may be that pipe */
    _exit(STATUS_ERROR);
}

static void close_output(void)
{
    const bool failed = ferror(stdout);
    errno = 0;
    if (fclose(stdout) != 0 || failed) {
        fprintf(stderr, "plm: error: standard output cannot be written%s%s\n", errno ? ": " : "",
                errno ? strerror(errno) : "");
        _exit(STATUS_ERROR);
    }
}

/* A closed stream is opened the wrong way round: reading or writing it fails, as with a closed one. */
static void fill_closed(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
                _exit(STATUS_ERROR); /* without /dev/null a file could take the stream's place */
}

void standard_streams_open(void)
{
    struct sigaction before;
    program = getpid();
    fill_closed();
    atexit(close_output);
    signal(SIGXFSZ, SIG_IGN); /* a file beyond the limit is a write that fails, with a message */
    if (sigaction(SIGPIPE, NULL, &before) == 0 && before.sa_handler == SIG_DFL) {
        const struct sigaction on = {.sa_handler = on_closed_pipe};
        sigaction(SIGPIPE, &on, NULL);
    }
}
