/* plm plan: memory before anything runs, of a model or of a training run. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "infer/model/session.h"
#include "tools/arguments.h"
#include "tools/cache_options.h"
#include "tools/command.h"
#include "tools/open_model.h"
#include "train/checkpoint.h"
#include "train/curriculum.h"
#include "train/matmul.h"
#include "train/step.h"

struct arguments {
    const char *what;
    int batch, ranks;
    struct plm_session_options session;
};

static const struct argp_option options[] = {
    {"batch", 'b', "N", 0, "sequences that run together (default 1)", 0},
    {"ranks", 'r', "N", 0, "processes of a training run (default 1)", 0},
    {"threads", 't', "N", 0, "threads; 0: one per processor (default)", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &a->session; return 0;
    case 'b': a->batch = (int)argument_range(state, "batch", arg, 1, 1 << 16); return 0;
    case 'r': a->ranks = (int)argument_range(state, "ranks", arg, 1, 1 << 20); return 0;
    case 't': a->session.n_threads = argument_whole(state, "threads", arg); return 0;
    case ARGP_KEY_ARG: argument_only(state, "MODEL or CONFIG", arg, &a->what); return 0;
    case ARGP_KEY_END:
        if (!a->what)
            argp_error(state, "MODEL or CONFIG is required");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cache_argp, 0, "Cache:", 1}, {0}};

static const struct argp parser = {options, parse, "MODEL|CONFIG.json",
    "Print the memory that running a model, or training as a configuration says, will take, without taking it. " MODEL_HELP "\v"
    "Example: plm plan model-q8_0.gguf --context 4096 --cache-type f16", children, 0, 0};

static void line(const char *what, double bytes) { printf("  %-28s %12.2f MiB\n", what, bytes / 1048576); }

/* Bytes of the weights as they lie in the file; they are mapped, and read in as they are used. */
static double weight_bytes(const struct plm_model *m)
{
    struct model_weights weights = m->weights;
    double bytes = 0;
    for (int i = 0; i < m->table.n_tensors; i++) {
        const struct weight *w = weights_slot(&weights, &m->table.tensors[i]);
        bytes += (double)dtype_row_bytes(w->type, w->cols) * (double)w->rows;
    }
    return bytes;
}

static int plan_model(const struct arguments *a, struct plm_status *st)
{
    struct plm_model *model;
    struct sequence_options so;
    size_t engine = 0, sequence = 0;
    int code = sequence_options_by_name(&so, &a->session, st);
    if (code)
        return code;
    code = open_model(&model, a->what, NULL, st);
    if (code)
        return code;
    const struct engine_options eo = {.n_threads = a->session.n_threads, .max_batch = a->batch, .context = a->session.context, .policies = so.policy.policy != POLICY_FULL};
    code = engine_measure(model, &eo, &so, &engine, &sequence, st);
    if (!code) {
        const double weights = weight_bytes(model), caches = (double)sequence * a->batch;
        printf("%s: %.2f M parameters, context %d, %d sequence%s\n", a->what, (double)model->table.parameters / 1e6,
               a->session.context ? a->session.context : plm_model_context_length(model), a->batch, a->batch == 1 ? "" : "s");
        line("weights (mapped)", weights);
        line("caches", caches);
        line("buffers", (double)engine);
        line("all", weights + caches + (double)engine);
    }
    plm_model_close(model);
    return code;
}

static int plan_training(const struct arguments *a, struct plm_status *st)
{
    struct run_config c;
    struct step_memory m;
    struct matmul matmul;
    matmul_select(&matmul);
    int code = run_config_load(&c, a->what, NULL, 0, st), longest = 0;
    struct model_config model = {0};
    if (!code)
        model = c.model;
    if (!code && c.model_path)
        code = checkpoint_config(c.model_path, &model, st);
    if (!code)
        code = run_config_check_world(&c, a->ranks, st);
    for (int i = 0; i < c.n_phases && !code; i++)
        longest = c.phases[i].seq_len > longest ? c.phases[i].seq_len : longest;
    if (!code)
        code = step_measure(&m, &model, c.micro_batch, longest, a->ranks, &matmul.ops, c.threads > 0 ? c.threads : threads_available(), st);
    if (!code) {
        printf("%s: %lld steps, %.2f M tokens, %d rank%s; memory of each rank\n", a->what, (long long)c.total_steps, (double)c.total_tokens / 1e6, a->ranks,
               a->ranks == 1 ? "" : "s");
        line("weights", (double)m.weights);
        line("gradients", (double)m.gradients);
        line("optimizer state", 2 * (double)m.weights);
        line("activations", (double)m.activations);
        line("all", 3 * (double)m.weights + (double)m.gradients + (double)m.activations);
    }
    run_config_free(&c);
    return code;
}

int command_plan(int argc, char **argv)
{
    struct arguments a = {.batch = 1, .ranks = 1};
    struct plm_status st = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    const size_t n = strlen(a.what);
    const bool training = n > 5 && !strcmp(a.what + n - 5, ".json");
    return (training ? plan_training(&a, &st) : plan_model(&a, &st)) ? command_fail(&st) : 0;
}
