#include "train/progress.h"
#include "infer/base/clock.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define REDRAW_SECONDS 0.1
#define CLEAR_LINE "\r\033[K"

static int terminal_width(FILE *out)
{
    struct winsize size;
    return ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

static void format_duration(double seconds, char *out, size_t size)
{
    if (!(seconds >= 0 && seconds < 1e8)) {
        snprintf(out, size, "-");
        return;
    }
    int s = (int)(seconds + 0.5);
    if (s >= 86400)
        snprintf(out, size, "%dd%02dh", s / 86400, s % 86400 / 3600);
    else if (s >= 3600)
        snprintf(out, size, "%dh%02dm", s / 3600, s % 3600 / 60);
    else
        snprintf(out, size, "%dm%02ds", s / 60, s % 60);
}

/* Cut to `width` columns without splitting a UTF-8 sequence (a phase may have any name). */
static void cut_columns(char *text, int width)
{
    int columns = 0;
    for (char *p = text; *p; p++) {
        if (((unsigned char)*p & 0xc0) != 0x80 && columns++ == width) {
            *p = 0;
            return;
        }
        if ((unsigned char)*p < 0x20)
            *p = ' ';
    }
}

char *progress_format(const struct progress_status *s, int width, char *out, size_t size)
{
    char eta[32];
    double left = s->tokens_per_second > 0 ? (double)(s->total_tokens - s->tokens) / s->tokens_per_second : NAN;
    format_duration(left, eta, sizeof eta);
    snprintf(out, size, "%s  step %lld/%lld  loss %.4f  lr %.2e  |g| %.3f  %.0f tok/s  ETA %s", s->phase,
             (long long)s->step, (long long)s->total_steps, s->loss, s->learning_rate, s->grad_norm, s->tokens_per_second,
             eta);
    cut_columns(out, width > 0 ? width : (int)size);
    return out;
}

void progress_open(struct progress *p, FILE *out, int64_t every)
{
    *p = (struct progress){.lock = PTHREAD_MUTEX_INITIALIZER, .out = out, .terminal = out && (isatty(fileno(out)) || getenv("PLM_TERMINAL")),
                           .every = every > 0 ? every : 1};
}

void progress_update(struct progress *p, const struct progress_status *s)
{
    if (!p->out)
        return;
    bool last = s->step >= s->total_steps;
    if (!p->terminal) {
        if (s->step % p->every == 0 || last) {
            pthread_mutex_lock(&p->lock);
            fprintf(p->out, "%s\n", progress_format(s, 0, p->line, sizeof p->line));
            fflush(p->out);
            pthread_mutex_unlock(&p->lock);
        }
        return;
    }
    double now = seconds_now();
    if (now < p->redraw_at && !last)
        return;
    p->redraw_at = now + REDRAW_SECONDS;
    pthread_mutex_lock(&p->lock);
    /* one column is left free: a full line would make some terminals wrap */
    fprintf(p->out, CLEAR_LINE "%s", progress_format(s, terminal_width(p->out) - 1, p->line, sizeof p->line));
    fflush(p->out);
    p->drawn = true;
    pthread_mutex_unlock(&p->lock);
}

static void clear_status(struct progress *p)
{
    if (p->drawn)
        fputs(CLEAR_LINE, p->out);
}

static void redraw_status(struct progress *p)
{
    if (p->drawn) {
        cut_columns(p->line, terminal_width(p->out) - 1);
        fputs(p->line, p->out);
    }
    fflush(p->out);
}

void progress_note(struct progress *p, const char *fmt, ...)
{
    if (!p->out)
        return;
    va_list args;
    va_start(args, fmt);
    pthread_mutex_lock(&p->lock);
    clear_status(p);
    vfprintf(p->out, fmt, args);
    fputc('\n', p->out);
    redraw_status(p);
    pthread_mutex_unlock(&p->lock);
    va_end(args);
}

void progress_log_sink(void *user, enum log_level level, const char *line)
{
    static const char *const names[] = {"debug: ", "", "warning: ", "error: "};
    struct progress *p = user;
    if (p->out)
        progress_note(p, "%s%s", names[level], line);
    else if (level >= LOG_WARN) /* a silent rank's warnings still matter */
        fprintf(stderr, "%s%s\n", names[level], line);
}

void progress_close(struct progress *p)
{
    if (p->out && p->drawn)
        fputc('\n', p->out);
    if (p->out)
        fflush(p->out);
    p->out = NULL;
    p->drawn = false;
}
