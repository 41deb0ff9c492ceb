/* Unit tests as a scorer: of Python programs a judge runs them beside the answer's process, of others they follow the
 * answer's program. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/align/judge.h"
#include "train/align/scorer_kinds.h"

/* A fence at p: three backticks (or tildes) that begin a line, spaces before them allowed. */
static bool is_fence(const char *text, const char *p)
{
    if (strncmp(p, "```", 3) != 0 && strncmp(p, "~~~", 3) != 0)
        return false;
    while (p > text && (p[-1] == ' ' || p[-1] == '\t'))
        p--;
    return p == text || p[-1] == '\n';
}

void scorer_code(const char *text, const char **begin, size_t *bytes)
{
    *begin = text;
    *bytes = strlen(text);
    const char *open = NULL;
    for (const char *p = text; *p; p++) {
        if (!is_fence(text, p))
            continue;
        const char *line = p + strcspn(p, "\n");
        if (open) {
            const char *end = p;
            while (end > open && (end[-1] == ' ' || end[-1] == '\t'))
                end--;
            *bytes = (size_t)(end - open);
            open = NULL;
        } else {
            *begin = open = line + (*line == '\n');
            *bytes = strlen(open);
        }
        if (!*line)
            break;
        p = line;
    }
}

/* The last line it wrote to standard error says why most often. */
static const char *last_error_line(struct sandbox_result *r)
{
    size_t n = r->error_bytes;
    while (n > 0 && (r->errors[n - 1] == '\n' || r->errors[n - 1] == '\r'))
        n--;
    r->errors[n] = 0;
    const char *newline = memrchr(r->errors, '\n', n);
    return newline ? newline + 1 : r->errors;
}

/* The end of the program as a phrase. */
static void explain(const struct scorer *s, struct sandbox_result *r, char why[160])
{
    const char *last = last_error_line(r);
    if (r->end == SANDBOX_MEMORY || r->memory_full)
        snprintf(why, 160, "took more than the %lld MiB of memory (memory_mib) that it and its processes have%s%.60s",
                 (long long)(s->memory_bytes >> 20), *last ? ": " : "", last);
    else if (r->end == SANDBOX_FILES)
        snprintf(why, 160, "wrote more than %lld MiB of files",
                 (long long)(sandbox_limits_default().child.file_bytes >> 20));
    else if (r->end == SANDBOX_TIMEOUT)
        snprintf(why, 160, "not over after %g s", s->timeout_s);
    else if (r->end == SANDBOX_SIGNALLED)
        snprintf(why, 160, "ended by signal %d%s%.100s", r->status, *last ? ": " : "", last);
    else if (r->status)
        snprintf(why, 160, "ended with status %d%s%.120s", r->status, *last ? ": " : "", last);
    else
        snprintf(why, 160, "ended before its tests were over");
}

static enum outcome outcome_of(const struct sandbox_result *r)
{
    return r->end == SANDBOX_TIMEOUT                                 ? OUTCOME_TIMEOUT
           : r->end >= SANDBOX_MEMORY || r->end == SANDBOX_SIGNALLED ? OUTCOME_CRASH
                                                                     : OUTCOME_SCORED;
}

/* Python: the judge runs the tests, beside the answer's process. */
static int run_judged(const struct scorer *s, struct judge *judge, const struct row *task, const char *text,
                      const struct sandbox_limits *limits, struct verdict *v, struct plm_status *st)
{
    const char *prompt = task->n_messages ? task->messages[task->n_messages - 1].content : "", *shown;
    struct judge_task t = {.python = s->program.argv, .tests = task->tests};
    size_t shown_bytes;
    scorer_code(text, &t.answer, &t.answer_bytes);
    scorer_code(prompt, &shown, &shown_bytes);
    char *copy = strndup(shown, shown_bytes);
    if (!copy)
        return status_no_memory(st, shown_bytes, "a prompt");
    t.prompt = copy;
    struct judgement j;
    const int code = judge_answer(judge, &t, limits, &j, st);
    free(copy);
    if (code)
        return code;
    v->outcome = outcome_of(&j.result);
    v->missing = j.result.missing;
    v->score = j.passed;
    if (!j.passed &&
        (j.program_ended || j.result.memory_full || j.result.end == SANDBOX_TIMEOUT || j.result.end >= SANDBOX_MEMORY))
        explain(s, &j.result, v->why);
    else
        snprintf(v->why, sizeof v->why, "%s", j.why);
    sandbox_result_free(&j.result);
    return PLM_OK;
}

/* Another language: the program with its tests behind it, which decide by the status. */
static int run_whole(const struct scorer *s, const struct row *task, const char *text,
                     const struct sandbox_limits *limits, struct verdict *v, struct plm_status *st)
{
    const char *code;
    size_t n;
    scorer_code(text, &code, &n);
    char *program;
    const int bytes = asprintf(&program, "%.*s\n%s\n", (int)n, code, task->tests);
    if (bytes < 0)
        return status_no_memory(st, n + strlen(task->tests), "a program");
    const struct sandbox_program p = {.argv = s->program.argv, .input = program, .input_bytes = (size_t)bytes};
    struct sandbox_result r;
    const int failed = sandbox_run(&r, &p, limits, st);
    free(program);
    if (failed)
        return failed;
    v->outcome = outcome_of(&r);
    v->missing = r.missing;
    v->score = r.end == SANDBOX_EXITED && r.status == 0;
    if (v->score == 0)
        explain(s, &r, v->why);
    sandbox_result_free(&r);
    return PLM_OK;
}

int scorer_run_tests(const struct scorer *s, struct judge *judge, const struct row *task, const char *text,
                     struct verdict *v, struct plm_status *st)
{
    *v = (struct verdict){.outcome = OUTCOME_MISSING};
    if (!task->tests)
        return status_set(st, PLM_EINVAL, "the task has no \"tests\" to run");
    struct sandbox_limits limits = sandbox_limits_default();
    limits.timeout_s = s->timeout_s;
    limits.child.memory_bytes = s->memory_bytes;
    limits.child.processes = s->processes;
    limits.confine = s->confine;
    limits.paths = s->paths;
    if (s->judged)
        return run_judged(s, judge, task, text, &limits, v, st);
    return run_whole(s, task, text, &limits, v, st);
}
