/* plm report: pages with the curves of runs. */
#include <argp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/utf8.h"
#include "tools/command.h"
#include "tools/report.h"

enum { RUNS = 64 };

struct arguments {
    const char *out, *title;
    char **runs; /* (n) */
    int n;
};

/* DIR, or NAME=DIR. */
struct named_run {
    char *dir, *name;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'o': a->out = arg; return 0;
    case 't': a->title = arg; return 0;
    case ARGP_KEY_ARGS:
        a->runs = state->argv + state->next;
        a->n = state->argc - state->next;
        state->next = state->argc;
        if (a->n > RUNS)
            argp_error(state, "%d runs, expected at most %d", a->n, RUNS);
        if (a->n > 1 && !a->out)
            argp_error(state, "--out FILE.html is required with several runs");
        return 0;
    case ARGP_KEY_NO_ARGS: argp_error(state, "RUN is required"); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"out", 'o', "FILE", 0, "the page (default, with one run: report.html in its directory)", 0},
    {"title", 't', "TEXT", 0, "the page's heading (default: the names of the runs)", 0},
    {0},
};
static const struct argp parser = {options, parse, "RUN...",
    "Write one HTML page with the curves, evaluations, mixtures and samples of runs, for any browser and without a network. RUN is the run directory of plm pretrain, "
    "sft or align, which may be going on; NAME=DIR gives it a name. Several runs share the charts.\v"
    "Example: plm report base=runs/first longer=runs/second --out compare.html", 0, 0, 0};

/* The last `parts` components of a path: "a/b/run", 2 gives "b/run". */
static const char *path_tail(const char *path, int parts)
{
    const char *p = path + strlen(path);
    while (p > path) {
        if (p[-1] == '/' && --parts == 0)
            break;
        p--;
    }
    return p;
}

static int split(struct named_run *run, char *arg, struct plm_status *st)
{
    struct stat info;
    char *equals = strchr(arg, '=');
    const bool named = equals && equals > arg && stat(arg, &info) != 0;
    run->dir = strdup(named ? equals + 1 : arg);
    run->name = named ? strndup(arg, (size_t)(equals - arg)) : NULL;
    if (!run->dir || (named && !run->name))
        return status_no_memory(st, strlen(arg), "the name of a run");
    for (size_t n = strlen(run->dir); n > 1 && run->dir[n - 1] == '/'; n--)
        run->dir[n - 1] = 0;
    return PLM_OK;
}

/* Without a name of its own a run is called by the end of its path, as short as tells the runs apart. "." and ".." say nothing: they are resolved first. */
static int name_run(struct named_run *runs, int n, int i, struct plm_status *st)
{
    char full[PATH_MAX];
    if (runs[i].name)
        return PLM_OK;
    const char *path = realpath(runs[i].dir, full) ? full : runs[i].dir;
    for (int parts = 1; parts <= 8; parts++) {
        const char *tail = path_tail(path, parts);
        bool unique = true;
        for (int k = 0; k < n; k++) {
            char other[PATH_MAX];
            const char *p = realpath(runs[k].dir, other) ? other : runs[k].dir;
            unique = unique && (k == i || !strcmp(p, path) || strcmp(path_tail(p, parts), tail) != 0);
        }
        runs[i].name = unique || parts == 8 ? strdup(tail) : NULL;
        if (runs[i].name)
            return PLM_OK;
    }
    return status_no_memory(st, strlen(path), "the name of a run");
}

static int read_runs(const struct arguments *a, struct named_run *runs, json_t *out, struct plm_status *st)
{
    int code = PLM_OK;
    for (int i = 0; i < a->n && !code; i++)
        code = split(&runs[i], a->runs[i], st);
    for (int i = 0; i < a->n && !code; i++) {
        json_t *run = NULL;
        code = name_run(runs, a->n, i, st);
        if (!code)
            code = report_run_read(runs[i].dir, runs[i].name, &run, st);
        if (!code && json_array_append_new(out, run))
            code = status_no_memory(st, 0, "the runs");
    }
    return code;
}

static void default_title(char title[512], const struct named_run *runs, int n)
{
    int at = 0;
    for (int i = 0; i < n && at < 400; i++)
        at += snprintf(title + at, 512 - (size_t)at, "%s%.*s", i ? ", " : "", (int)utf8_valid_prefix(runs[i].name, strnlen(runs[i].name, 80)), runs[i].name);
}

int command_report(int argc, char **argv)
{
    struct arguments a = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    struct plm_status st = {0};
    struct named_run runs[RUNS] = {{0}};
    json_t *data = json_array();
    char title[512], out[PATH_MAX];
    size_t bytes = 0;
    int code = read_runs(&a, runs, data, &st);
    if (!code) {
        default_title(title, runs, a.n);
        if (!a.out && snprintf(out, sizeof out, "%s/report.html", runs[0].dir) >= (int)sizeof out)
            code = status_set(&st, PLM_ELIMIT, "the path '%.100s...' is too long", runs[0].dir);
        if (!code)
            code = report_page_write(a.out ? a.out : out, a.title ? a.title : title, data, &bytes, &st);
    }
    if (!code)
        printf("%s: %d run%s, %.2f MB\n", a.out ? a.out : out, a.n, a.n == 1 ? "" : "s", (double)bytes / 1e6);
    json_decref(data);
    for (int i = 0; i < a.n; i++) {
        free(runs[i].dir);
        free(runs[i].name);
    }
    return code ? command_fail(&st) : 0;
}
