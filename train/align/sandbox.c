#include "train/align/sandbox.h"
#include "infer/base/clock.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define TICK_MS 20 /* how often to look for the end of a child where the kernel does not tell */

struct sandbox_limits sandbox_limits_default(void)
{
    return (struct sandbox_limits){.timeout_s = 10, .output_bytes = 64 << 10,
        .child = {.memory_bytes = INT64_C(1) << 30, .file_bytes = 64 << 20, .processes = 64, .open_files = 64}};
}

/* The input as a file in memory: nobody has to feed a pipe while the program prints. */
static int input_file(const char *input, size_t n, int *fd, struct plm_status *st)
{
    *fd = memfd_create("input", MFD_CLOEXEC);
    if (*fd < 0)
        return status_set(st, PLM_EIO, "cannot make a file in memory: %s", strerror(errno));
    for (size_t at = 0; at < n;) {
        const ssize_t w = write(*fd, input + at, n - at);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0) {
            status_set(st, PLM_EIO, "cannot write %zu bytes to a file in memory: %s", n, strerror(errno));
            close(*fd);
            return PLM_EIO;
        }
        at += (size_t)w;
    }
    lseek(*fd, 0, SEEK_SET);
    return PLM_OK;
}

struct capture {
    int *fd; /* -1 at its end */
    char *text;      /* (2 * keep): the last bytes are the ones that say how it went */
    size_t n, keep;
    bool cut;
};

static void capture_trim(struct capture *c)
{
    if (c->n > c->keep) {
        memmove(c->text, c->text + c->n - c->keep, c->keep);
        c->n = c->keep;
        c->cut = true;
    }
}

/* Read what is there. A flood is bounded per call, so that the clock is looked at in between. */
static void capture_read(struct capture *c)
{
    char block[16384];
    for (int i = 0; i < 64 && *c->fd >= 0; i++) {
        const ssize_t n = read(*c->fd, block, sizeof block);
        if (n < 0)
            return;
        if (n == 0) {
            close(*c->fd);
            *c->fd = -1;
            return;
        }
        for (size_t at = 0; at < (size_t)n;) {
            size_t take = 2 * c->keep - c->n;
            take = take < (size_t)n - at ? take : (size_t)n - at;
            memcpy(c->text + c->n, block + at, take);
            c->n += take;
            at += take;
            if (c->n == 2 * c->keep)
                capture_trim(c);
        }
    }
}

/* Until it ended: false when the time was up first. */
static bool follow(struct child *child, struct capture *streams, double deadline)
{
    for (;;) {
        const double left = deadline - seconds_now();
        if (child_ended(child))
            return true;
        if (left <= 0)
            return false;
        struct pollfd fds[3] = {{child->out, POLLIN, 0}, {child->err, POLLIN, 0}, {child->exit_fd, POLLIN, 0}};
        int wait_ms = left > 3600 ? 3600000 : (int)ceil(left * 1000);
        if (child->exit_fd < 0 && wait_ms > TICK_MS)
            wait_ms = TICK_MS;
        poll(fds, 3, wait_ms);
        capture_read(&streams[0]);
        capture_read(&streams[1]);
    }
}

int sandbox_run(struct sandbox_result *r, const char *const *argv, const char *input, size_t input_bytes, const struct sandbox_limits *limits,
                struct plm_status *st)
{
    *r = (struct sandbox_result){0};
    struct child_options o = {.argv = argv, .confine = true, .limits = limits->child};
    if (!(o.limits.cpu_s > 0))
        o.limits.cpu_s = limits->timeout_s;
    const size_t keep = limits->output_bytes ? limits->output_bytes : 1;
    r->output = malloc(2 * keep + 1);
    r->errors = malloc(2 * keep + 1);
    int code = r->output && r->errors ? PLM_OK : status_no_memory(st, 4 * keep, "the output of a program");
    if (!code)
        code = input_file(input, input_bytes, &o.input, st);
    if (code) {
        sandbox_result_free(r);
        return code;
    }
    struct child child;
    const double start = seconds_now();
    code = child_start(&child, &o, st);
    close(o.input);
    if (code) {
        sandbox_result_free(r);
        return code;
    }
    struct capture streams[2] = {{&child.out, r->output, 0, keep, false}, {&child.err, r->errors, 0, keep, false}};
    const bool ended = follow(&child, streams, start + limits->timeout_s);
    capture_read(&streams[0]); /* what it printed last */
    capture_read(&streams[1]);
    int status;
    r->missing = child.missing;
    child_stop(&child, &status);
    r->seconds = seconds_now() - start;
    r->end = !ended ? SANDBOX_TIMEOUT : WIFSIGNALED(status) ? SANDBOX_SIGNALLED : SANDBOX_EXITED;
    r->status = r->end == SANDBOX_SIGNALLED ? WTERMSIG(status) : r->end == SANDBOX_EXITED ? WEXITSTATUS(status) : 0;
    capture_trim(&streams[0]);
    capture_trim(&streams[1]);
    r->output_bytes = streams[0].n;
    r->error_bytes = streams[1].n;
    r->output[r->output_bytes] = r->errors[r->error_bytes] = 0;
    r->output_cut = streams[0].cut || streams[1].cut;
    return PLM_OK;
}

void sandbox_result_free(struct sandbox_result *r)
{
    free(r->output);
    free(r->errors);
    *r = (struct sandbox_result){0};
}
