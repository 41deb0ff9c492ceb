/* A program of the user's as a scorer: one JSON object per line to it, one line with a score from it, one answer at a time. What it does
 * wrong costs one answer each; after a crash, a hang or a line out of step it is started anew, so that no score goes to another answer. */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "infer/base/log.h"
#include "infer/base/clock.h"
#include "train/align/child.h"
#include "train/align/scorer_kinds.h"

enum { LINE_BYTES = 65536, ERROR_BYTES = 1024, TICK_MS = 100 };

struct dialogue {
    const struct scorer *s;
    struct child child;
    char line[LINE_BYTES];     /* what it printed and was not used yet */
    size_t filled;
    char errors[ERROR_BYTES];  /* the last it wrote to standard error */
    size_t error_bytes;
    char message[400];         /* what went wrong with this answer */
};

static int start(struct dialogue *d, struct plm_status *st)
{
    const struct child_options o = {.argv = d->s->program.argv, .input = -1};
    d->filled = d->error_bytes = 0;
    return child_start(&d->child, &o, st);
}

/* The last line on standard error says why most often: the end of a traceback. */
static const char *last_error_line(struct dialogue *d)
{
    size_t n = d->error_bytes;
    while (n > 0 && (d->errors[n - 1] == '\n' || d->errors[n - 1] == '\r'))
        n--;
    d->errors[n < ERROR_BYTES ? n : ERROR_BYTES - 1] = 0;
    const char *newline = strrchr(d->errors, '\n');
    return newline ? newline + 1 : d->errors;
}

static void read_errors(struct dialogue *d)
{
    char block[4096];
    for (int i = 0; i < 64; i++) {
        const ssize_t n = read(d->child.err, block, sizeof block);
        if (n <= 0) {
            if (n == 0) {
                close(d->child.err);
                d->child.err = -1;
            }
            return;
        }
        const size_t take = (size_t)n < ERROR_BYTES - 1 ? (size_t)n : ERROR_BYTES - 1;
        const size_t keep = d->error_bytes + take > ERROR_BYTES - 1 ? ERROR_BYTES - 1 - take : d->error_bytes;
        memmove(d->errors, d->errors + d->error_bytes - keep, keep);
        memcpy(d->errors + keep, block + (size_t)n - take, take);
        d->error_bytes = keep + take;
    }
}

/* False: its output has ended. */
static bool read_output(struct dialogue *d)
{
    while (d->filled < LINE_BYTES) {
        const ssize_t n = read(d->child.out, d->line + d->filled, LINE_BYTES - d->filled);
        if (n > 0)
            d->filled += (size_t)n;
        else
            return n < 0 && (errno == EAGAIN || errno == EINTR);
    }
    return true;
}

static enum outcome crashed(struct dialogue *d)
{
    int status = 0;
    if (d->child.err >= 0)
        read_errors(d);
    /* its output is closed; give it a moment to end by itself, so that its status is its own */
    for (int i = 0; i < 20 && !child_ended(&d->child); i++)
        poll(NULL, 0, 10);
    child_stop(&d->child, &status);
    const char *why = last_error_line(d);
    if (WIFSIGNALED(status))
        snprintf(d->message, sizeof d->message, "the command ended by signal %d before it gave a score%s%.200s", WTERMSIG(status), *why ? ": " : "", why);
    else
        snprintf(d->message, sizeof d->message, "the command ended with status %d before it gave a score%s%.200s", WEXITSTATUS(status), *why ? ": " : "",
                 why);
    return OUTCOME_CRASH;
}

/* Send one request, receive one line: both sides at once, so that a full pipe on either side stops nothing. */
static enum outcome exchange(struct dialogue *d, const char *request, size_t n, double *score)
{
    const double deadline = seconds_now() + d->s->timeout_s;
    size_t sent = 0;
    if (d->filled > 0) { /* more lines than requests: whose score is this? */
        snprintf(d->message, sizeof d->message, "the command printed more than one line for an answer");
        child_stop(&d->child, NULL);
        return OUTCOME_MALFORMED;
    }
    for (;;) {
        const double left = deadline - seconds_now();
        if (left <= 0)
            break;
        struct pollfd fds[3] = {{d->child.out, POLLIN, 0}, {d->child.err, POLLIN, 0}, {sent < n ? d->child.in : -1, POLLOUT, 0}};
        const int wait_ms = left * 1000 < TICK_MS ? (int)ceil(left * 1000) : TICK_MS;
        poll(fds, 3, wait_ms);
        if (sent < n && fds[2].revents) {
            const ssize_t w = child_write(&d->child, request + sent, n - sent);
            if (w < 0)
                return crashed(d);
            sent += (size_t)w;
        }
        if (d->child.err >= 0)
            read_errors(d);
        const bool open = read_output(d);
        const char *newline = memchr(d->line, '\n', d->filled);
        if (newline && sent == n) {
            const size_t used = (size_t)(newline - d->line) + 1;
            const enum score_line kind = scorer_read_line(d->line, used - 1, score);
            if (kind == SCORE_LINE_OK || kind == SCORE_LINE_NO_SCORE) {
                memmove(d->line, d->line + used, d->filled - used);
                d->filled -= used;
            }
            if (kind == SCORE_LINE_OK)
                return OUTCOME_SCORED;
            snprintf(d->message, sizeof d->message, "the command printed '%.*s', expected {\"score\": x} or a number", used > 161 ? 160 : (int)used - 1,
                     d->line);
            if (kind == SCORE_LINE_RUBBISH)
                child_stop(&d->child, NULL);
            return OUTCOME_MALFORMED;
        }
        if (newline || d->filled == LINE_BYTES) {
            snprintf(d->message, sizeof d->message, newline ? "the command printed a line before it had read the answer" :
                     "the command printed a line of more than 65536 bytes");
            child_stop(&d->child, NULL);
            return OUTCOME_MALFORMED;
        }
        if (!open)
            return crashed(d);
    }
    child_stop(&d->child, NULL);
    snprintf(d->message, sizeof d->message, "the command gave no score within %g s; does it flush its output after each line?", d->s->timeout_s);
    return OUTCOME_TIMEOUT;
}

enum score_line scorer_read_line(const char *line, size_t n, double *score)
{
    json_t *v = json_loadb(line, n, JSON_DECODE_ANY, NULL);
    if (!v)
        return SCORE_LINE_RUBBISH;
    const json_t *number = json_is_object(v) ? json_object_get(v, "score") : v;
    const bool ok = json_is_number(number) && isfinite(json_number_value(number));
    const bool in_step = json_is_object(v) || json_is_number(v) || json_is_null(v);
    if (ok)
        *score = json_number_value(number);
    json_decref(v);
    return ok ? SCORE_LINE_OK : in_step ? SCORE_LINE_NO_SCORE : SCORE_LINE_RUBBISH;
}

/* The prompt as a text: what the user said last; earlier messages are in "messages". */
static char *request_line(const struct row *task, const struct answer *a, size_t *n)
{
    json_t *messages = json_array(), *o = json_object();
    for (int i = 0; i < task->n_messages; i++) {
        const struct chat_message *m = &task->messages[i];
        json_array_append_new(messages, json_pack("{s:s, s:s%}", "role", m->role, "content", m->content, m->content_bytes));
    }
    const struct chat_message *last = task->n_messages ? &task->messages[task->n_messages - 1] : NULL;
    json_object_set_new(o, "task", json_integer(a->task));
    json_object_set_new(o, "chain", json_integer(a->chain));
    json_object_set_new(o, "turn", json_integer(a->turn));
    json_object_set_new(o, "prompt", last ? json_stringn(last->content, last->content_bytes) : json_null());
    json_object_set_new(o, "messages", messages);
    json_object_set_new(o, "answer_text", json_string(a->text));
    json_object_set_new(o, "answer", task->answer ? json_string(task->answer) : json_null());
    char *text = json_object_get(o, "answer_text") ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    *n = text ? strlen(text) : 0;
    char *line = text ? realloc(text, *n + 2) : NULL;
    if (!line) {
        free(text);
        return NULL;
    }
    line[(*n)++] = '\n';
    return line;
}

int scorer_command_score(const struct scorer *s, const struct row_set *tasks, struct answer *answers, int64_t n, struct scorer_stats *stats,
                         struct plm_status *st)
{
    struct dialogue *d = calloc(1, sizeof *d);
    if (!d)
        return status_no_memory(st, sizeof *d, "the dialogue with a command");
    d->s = s;
    int code = n > 0 ? start(d, st) : PLM_OK;
    int restarts = 0;
    bool over = false;
    for (int64_t i = 0; i < n && !code; i++) {
        struct answer *a = &answers[i];
        a->scored = false;
        if (!over && d->child.pid == 0) {
            if (restarts == s->restarts) {
                over = true;
                log_warn("the scorer's command was started anew %d times; the %lld answers from here on stay without a score (\"restarts\")", restarts,
                         (long long)(n - i));
            } else {
                restarts++;
                code = start(d, st);
            }
        }
        if (code)
            break;
        if (over) {
            scorer_failed(stats, OUTCOME_MISSING, a, "the command had been started anew too often");
            continue;
        }
        size_t bytes;
        char *request = request_line(&tasks->rows[a->task], a, &bytes);
        if (!request) {
            code = status_no_memory(st, 0, "a request to the scorer's command");
            break;
        }
        const enum outcome outcome = exchange(d, request, bytes, &a->score);
        free(request);
        a->scored = outcome == OUTCOME_SCORED;
        if (a->scored)
            stats->scored++;
        else
            scorer_failed(stats, outcome, a, d->message);
    }
    child_stop(&d->child, NULL);
    free(d);
    return code;
}
