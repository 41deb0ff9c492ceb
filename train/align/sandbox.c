#include "train/align/sandbox.h"
#include "infer/base/clock.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TICK_MS 20  /* how often to look for the end of a child where the kernel does not tell */
#define WATCH_MS 50 /* and at what it uses, where the kernel does not count it */

struct sandbox_limits sandbox_limits_default(void)
{
    return (struct sandbox_limits){.timeout_s = 10, .output_bytes = 64 << 10, .confine = CHILD_CONFINED,
        .child = {.memory_bytes = INT64_C(1) << 30, .file_bytes = 64 << 20, .processes = 64, .open_files = 64}};
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

struct sandbox {
    struct child child;
    struct capture streams[2];
    double start, deadline, watched;
    bool timeout;
    enum child_excess excess;
};

/* The descriptor that is waited for has something to say, or is closed. */
static bool readable(int fd)
{
    struct pollfd p = {fd, POLLIN, 0};
    return fd >= 0 && poll(&p, 1, 0) > 0;
}

void sandbox_follow(struct sandbox *s, int until)
{
    bool killed = false;
    for (;;) {
        const double left = s->deadline - seconds_now();
        const bool ended = child_ended(&s->child);
        if (readable(until) || (ended && until < 0))
            return;
        if (left <= 0) {
            s->timeout = true;
            return;
        }
        if (ended && !killed) { /* what it left behind would keep its ends of pipes open */
            child_kill(&s->child);
            killed = true;
        }
        struct pollfd fds[4] = {{s->child.out, POLLIN, 0},
                                {s->child.err, POLLIN, 0},
                                {until, POLLIN, 0},
                                {ended ? -1 : s->child.exit_fd, POLLIN, 0}};
        int wait_ms = left > 3600 ? 3600000 : (int)ceil(left * 1000);
        const bool watch = !ended && (!s->child.counted || *s->child.scratch.path);
        if (watch && wait_ms > WATCH_MS)
            wait_ms = WATCH_MS;
        if (s->child.exit_fd < 0 && wait_ms > TICK_MS)
            wait_ms = TICK_MS;
        poll(fds, 4, wait_ms);
        if (watch && seconds_now() - s->watched > WATCH_MS * 1e-3) {
            s->excess = child_excess(&s->child);
            if (s->excess)
                return;
            s->watched = seconds_now();
        }
        capture_read(&s->streams[0]);
        capture_read(&s->streams[1]);
    }
}

int sandbox_start(struct sandbox **out, const struct sandbox_program *p, const struct sandbox_limits *limits,
                  struct plm_status *st)
{
    struct sandbox *s = *out = calloc(1, sizeof *s);
    if (!s)
        return status_no_memory(st, sizeof *s, "a sandbox");
    struct child_options o = {.argv = p->argv, .confine = limits->confine, .paths = limits->paths, .count_memory = true,
                              .limits = limits->child, .n_extra = p->n_extra};
    memcpy(o.extra, p->extra, sizeof o.extra);
    if (!(o.limits.cpu_s > 0))
        o.limits.cpu_s = limits->timeout_s;
    const size_t keep = limits->output_bytes ? limits->output_bytes : 1;
    s->streams[0] = (struct capture){&s->child.out, malloc(2 * keep + 1), 0, keep, false};
    s->streams[1] = (struct capture){&s->child.err, malloc(2 * keep + 1), 0, keep, false};
    int code =
        s->streams[0].text && s->streams[1].text ? PLM_OK : status_no_memory(st, 4 * keep, "the output of a program");
    if (!code && !(code = child_input(p->input, p->input_bytes, &o.input, st))) {
        s->start = s->watched = seconds_now();
        s->deadline = s->start + limits->timeout_s;
        code = child_start(&s->child, &o, st);
        close(o.input);
    }
    if (code) {
        free(s->streams[0].text);
        free(s->streams[1].text);
        free(s);
        *out = NULL;
    }
    return code;
}

void sandbox_wait_end(struct sandbox *s, int ms)
{
    struct pollfd exit = {s->child.exit_fd, POLLIN, 0};
    if (s->child.exit_fd >= 0)
        poll(&exit, 1, ms);
    else
        for (int i = 0; i * TICK_MS < ms && !child_ended(&s->child); i++)
            poll(NULL, 0, TICK_MS);
}

void sandbox_finish(struct sandbox *s, struct sandbox_result *r)
{
    int status;
    const bool ended = child_ended(&s->child);
    capture_read(&s->streams[0]); /* what it printed last */
    capture_read(&s->streams[1]);
    *r = (struct sandbox_result){.missing = s->child.missing};
    r->memory_full = s->child.counted && cgroup_was_full(&s->child.group);
    child_stop(&s->child, &status);
    r->seconds = seconds_now() - s->start;
    r->end = s->excess == CHILD_TOO_MUCH_MEMORY ? SANDBOX_MEMORY
             : s->excess                        ? SANDBOX_FILES
             : s->timeout                       ? SANDBOX_TIMEOUT
             : !ended                           ? SANDBOX_STOPPED
             : WIFSIGNALED(status)              ? SANDBOX_SIGNALLED
                                                : SANDBOX_EXITED;
    r->status = r->end == SANDBOX_SIGNALLED ? WTERMSIG(status) : r->end == SANDBOX_EXITED ? WEXITSTATUS(status) : 0;
    capture_trim(&s->streams[0]);
    capture_trim(&s->streams[1]);
    r->output = s->streams[0].text, r->output_bytes = s->streams[0].n;
    r->errors = s->streams[1].text, r->error_bytes = s->streams[1].n;
    r->output[r->output_bytes] = r->errors[r->error_bytes] = 0;
    r->output_cut = s->streams[0].cut || s->streams[1].cut;
    free(s);
}

int sandbox_run(struct sandbox_result *r, const struct sandbox_program *p, const struct sandbox_limits *limits,
                struct plm_status *st)
{
    *r = (struct sandbox_result){0};
    struct sandbox *s;
    const int code = sandbox_start(&s, p, limits, st);
    if (!code) {
        sandbox_follow(s, -1);
        sandbox_finish(s, r);
    }
    return code;
}

void sandbox_result_free(struct sandbox_result *r)
{
    free(r->output);
    free(r->errors);
    *r = (struct sandbox_result){0};
}
