/* Unit tests as a scorer: the answer's program followed by the task's tests, run in the sandbox. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "train/align/sandbox.h"
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

/* The end of the program as a phrase: the last line it wrote to standard error says why most often. */
static void explain(const struct scorer *s, struct sandbox_result *r, char why[160])
{
    size_t n = r->error_bytes;
    while (n > 0 && (r->errors[n - 1] == '\n' || r->errors[n - 1] == '\r'))
        n--;
    r->errors[n] = 0;
    const char *newline = memrchr(r->errors, '\n', n), *last = newline ? newline + 1 : r->errors;
    if (r->end == SANDBOX_TIMEOUT)
        snprintf(why, 160, "not over after %g s", s->timeout_s);
    else if (r->end == SANDBOX_SIGNALLED)
        snprintf(why, 160, "ended by signal %d%s%.100s", r->status, *last ? ": " : "", last);
    else if (r->status)
        snprintf(why, 160, "ended with status %d%s%.120s", r->status, *last ? ": " : "", last);
    else
        snprintf(why, 160, "ended before its tests were over");
}

/* The program with its tests behind it; proof "": none. malloc'ed. */
static char *make_program(const char *text, const char *tests, const char *proof, size_t *bytes)
{
    const char *code;
    size_t n;
    scorer_code(text, &code, &n);
    FILE *f;
    char *program = NULL;
    if (!(f = open_memstream(&program, bytes)))
        return NULL;
    fwrite(code, 1, n, f);
    fprintf(f, "\n%s\n", tests);
    if (*proof)
        fprintf(f, "import os as _os, sys as _sys\n_sys.stdout.flush(); _os.write(1, b'\\n%s\\n')\n", proof);
    if (ferror(f) | fclose(f)) {
        free(program);
        return NULL;
    }
    return program;
}

int scorer_run_tests(const struct scorer *s, const struct row *task, const char *text, struct verdict *v, struct plm_status *st)
{
    *v = (struct verdict){.outcome = OUTCOME_MISSING};
    if (!task->tests)
        return status_set(st, PLM_EINVAL, "the task has no \"tests\" to run");
    /* A program that ends itself with status 0 before the tests are over must not pass: the last line says a number that only it can know. */
    unsigned char secret[16];
    char proof[2 * sizeof secret + 1] = "";
    if (s->prove) {
        if (getrandom(secret, sizeof secret, 0) != sizeof secret)
            return status_set(st, PLM_EIO, "the system gives no random numbers");
        for (size_t i = 0; i < sizeof secret; i++)
            snprintf(proof + 2 * i, 3, "%02x", secret[i]);
    }
    size_t bytes;
    char *program = make_program(text, task->tests, proof, &bytes);
    if (!program)
        return status_no_memory(st, strlen(text) + strlen(task->tests), "a program");
    struct sandbox_limits limits = sandbox_limits_default();
    limits.timeout_s = s->timeout_s;
    limits.child.memory_bytes = s->memory_bytes;
    limits.child.processes = s->processes;
    struct sandbox_result r;
    int code = sandbox_run(&r, s->program.argv, program, bytes, &limits, st);
    free(program);
    if (code)
        return code;
    v->outcome = r.end == SANDBOX_TIMEOUT ? OUTCOME_TIMEOUT : r.end == SANDBOX_SIGNALLED ? OUTCOME_CRASH : OUTCOME_SCORED;
    v->missing = r.missing;
    v->score = r.end == SANDBOX_EXITED && r.status == 0 && (!s->prove || memmem(r.output, r.output_bytes, proof, strlen(proof)));
    if (v->score == 0)
        explain(s, &r, v->why);
    sandbox_result_free(&r);
    return PLM_OK;
}
