#include "tools/run_command.h"

#include <argp.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/exit_status.h"
#include "train/manifest.h"
#include "train/run_identity.h"

#define MAX_OVERRIDES 64

struct arguments {
    const char *config, *overrides[MAX_OVERRIDES];
    int n_overrides;
};

static const struct argp_option options[] = {
    {"set", 's', "KEY=VALUE", 0, "override a value of the configuration, such as seed=2 or phases.0.steps=1000; may be repeated", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 's':
        if (a->n_overrides == MAX_OVERRIDES)
            argp_error(state, "more than %d --set", MAX_OVERRIDES);
        a->overrides[a->n_overrides++] = arg;
        return 0;
    case ARGP_KEY_ARG: argument_only(state, "CONFIG", arg, &a->config); return 0;
    case ARGP_KEY_END:
        if (!a->config)
            argp_error(state, "CONFIG is required");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* The first digits of this program file's SHA-256: builds of one version may compute differently. "unknown" where the system does
 * not show it. */
static void program_build(char build[17])
{
    char hex[SHA256_HEX];
    struct plm_status ignored = {0};
    snprintf(build, 17, "%.16s", sha256_file("/proc/self/exe", hex, NULL, &ignored) ? "unknown" : hex);
}

/* The first thing the ranks say to each other, whatever the command: program, command and configuration. */
static int compare_ranks(struct comm *comm, const char *name, const struct arguments *a, struct plm_status *st)
{
    static const char *const own[] = {"threads", "log", NULL};
    struct settings *settings = NULL;
    char build[17];
    if (comm->size == 1)
        return PLM_OK;
    program_build(build);
    int code = settings_open_with(&settings, a->config, a->overrides, a->n_overrides, st);
    char *config = code ? NULL : settings_to_json(settings);
    json_t *root = config ? json_loads(config, 0, NULL) : NULL;
    if (root)
        json_object_set_new(root, "(command)",
                            json_pack("{s:s, s:s, s:s}", "name", name, "version", PLM_VERSION, "build", build));
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    settings_close(settings);
    free(config);
    json_decref(root);
    if (!code && !text)
        code = status_no_memory(st, 0, "what this rank was started with");
    const int differs = ranks_agree(comm, "configuration", text, own, code ? NULL : st);
    free(text);
    code = comm_agree(comm, code, st);
    return code ? code : differs;
}

int run_command(int argc, char **argv, const char *name, const char *doc, run_function *run)
{
    const struct argp parser = {options, parse, "CONFIG", doc, 0, 0, 0};
    struct arguments a = {0};
    struct plm_status st = {0};
    struct comm comm = {0};
    struct run_outcome out = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    if (comm_open(&comm, &st))
        return command_fail(&st);
    int code = compare_ranks(&comm, name, &a, &st);
    if (!code)
        code = run(a.config, a.overrides, a.n_overrides, &comm, &out, &st);
    int status = STATUS_DONE;
    if (code == PLM_ECOMM)
        comm_abort(&comm, &st); /* the others may wait for this rank; each of these messages is its own */
    if (code)
        status = comm.rank == 0 ? command_fail(&st) : STATUS_ERROR; /* the message is the same on every rank */
    else if (out.stopped_by) {
        if (comm.rank == 0)
            fprintf(stderr, "stopped after step %lld, which is saved; the same command continues\n", (long long)out.steps);
        status = STATUS_SIGNAL + out.stopped_by;
    } else if (!out.learned) {
        if (comm.rank == 0)
            fprintf(stderr, "nothing was learned: no update changed the weights in %lld steps (exit status %d)\n", (long long)out.steps,
                    STATUS_LEARNED_NOTHING);
        status = STATUS_LEARNED_NOTHING;
    }
    comm_close(&comm);
    return status;
}
