/* plm plan: memory before anything runs, of a model or of a training run. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "infer/model/forward.h"
#include "infer/model/prefill.h"
#include "infer/model/session.h"
#include "tools/arguments.h"
#include "tools/cache_options.h"
#include "tools/command.h"
#include "tools/open_model.h"
#include "train/checkpoint.h"
#include "train/curriculum.h"
#include "train/matmul.h"
#include "train/step.h"

#define CONVERTED_BYTES 2.5 /* two digits, their scale and their sum */
#define LOGIT_BYTES 12.0 /* of each token of the vocabulary, in a session: its logit and the place to sort it in */

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

static bool is_training(const struct arguments *a)
{
    const size_t n = strlen(a->what);
    return n > 5 && !strcmp(a->what + n - 5, ".json");
}

static void note_unused(const struct arguments *a)
{
    static const char training[] = "on a training run, whose configuration says it all";
    const struct plm_session_options *s = &a->session;
    if (!is_training(a)) {
        if (a->ranks > 1)
            argument_unused("ranks", "on a model: it is for the configuration of a training run");
        return;
    }
    if (a->batch > 1)
        argument_unused("batch", training);
    if (s->n_threads)
        argument_unused("threads", training);
    if (s->context)
        argument_unused("context", training);
    if (s->cache_type)
        argument_unused("cache-type", training);
    if (s->cache_policy)
        argument_unused("cache-policy", training);
    if (s->dense)
        argument_unused("dense", training);
}

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
    case ARGP_KEY_SUCCESS: note_unused(a); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cache_argp, 0, "Cache:", 1}, {0}};

static const struct argp parser = {options, parse, "MODEL|CONFIG.json",
    "Print the memory that running a model, or training as a configuration says, will take, without taking it. " MODEL_HELP "\v"
    "Example: plm plan model-q8_0.gguf --context 4096 --cache-type f16", children, 0, 0};

static void line(const char *what, double bytes) { printf("  %-28s %12.2f MiB\n", what, bytes / 1048576); }

/* Kilobytes that a file of /proc gives for a field such as "VmRSS:", as bytes; 0 where there is no such file. */
static double proc_memory(const char *path, const char *field)
{
    char text[256];
    double kib = 0;
    FILE *f = fopen(path, "r");
    while (f && fgets(text, sizeof text, f))
        if (!strncmp(text, field, strlen(field)))
            kib = strtod(text + strlen(field), NULL);
    if (f)
        fclose(f);
    return 1024 * kib;
}

static double own_memory(const char *field) { return proc_memory("/proc/self/status", field); }

/* Bytes of the files the weights are mapped from: all of their pages are read in as a model runs. */
static double mapped_bytes(const struct plm_model *m, const char *path)
{
    struct stat info;
    double bytes = 0;
    for (int i = 0; i < m->safetensors.n_files; i++)
        bytes += (double)m->safetensors.files[i].file.size;
    return m->gguf && stat(path, &info) == 0 ? (double)info.st_size : bytes;
}

/* What matrix products pack into besides the engine's buffers: a place of each thread, or with quantised weights one for all rows that
 * are taken together, CONVERTED_BYTES for each number. */
static double product_bytes(const struct plm_model *m, int64_t context, int threads)
{
    const struct model_config *c = &m->config;
    struct model_weights weights = m->weights;
    const double packed = (double)ops_select(OPS_BEST)->gemm_scratch_bytes();
    const double squares = (double)(context < FORWARD_MLP_ROWS ? context : FORWARD_MLP_ROWS) * c->intermediate_size;
    const double others = (double)(context < PREFILL_CHUNK ? context : PREFILL_CHUNK) * c->hidden_size;
    bool plain = false, quantized = false;
    for (int i = 0; i < m->table.n_tensors; i++)
        if (m->table.tensors[i].n_dims == 2)
            *(dtype_is_quantized(weights_slot(&weights, &m->table.tensors[i])->type) ? &quantized : &plain) = true;
    return packed * (plain ? threads : 0) + (quantized ? CONVERTED_BYTES * (squares > others ? squares : others) : 0);
}

/* How rotary positions are scaled, where they are. */
static void print_rope(const struct rope_scaling *s)
{
    if (s->type != ROPE_UNSCALED)
        printf("  rotary scaling %s, factor %g, cos and sin times %.4g, logits times %.4g\n", rope_scaling_name(s), (double)s->factor,
               rope_magnitude(s), s->logit_factor > 0 ? (double)s->logit_factor : 1);
}

/* What a process needs before it computes is taken from this one, which opens the model as any other does: its code and libraries,
 * the tokenizer and the tables. The rest is measured by the layout passes of the engine. */
static int plan_model(const struct arguments *a, struct plm_status *st)
{
    char path[PATH_MAX];
    struct plm_model *model;
    struct sequence_options so;
    size_t engine = 0, sequence = 0;
    const double program = own_memory("VmRSS:"), heap = own_memory("RssAnon:");
    int code = sequence_options_by_name(&so, &a->session, st);
    if (code)
        return code;
    code = open_model(&model, a->what, path, st);
    if (code)
        return code;
    const double tables = own_memory("RssAnon:") - heap, opening = own_memory("VmHWM:");
    const struct engine_options eo = {.n_threads = a->session.n_threads, .max_batch = a->batch, .context = a->session.context,
        .dense = a->session.dense, .policies = so.policy.policy != POLICY_FULL};
    code = engine_measure(model, &eo, &so, &engine, &sequence, st);
    if (!code) {
        const int context = a->session.context ? a->session.context : plm_model_context_length(model);
        const int threads = a->session.n_threads > 0 ? a->session.n_threads : threads_available();
        const double weights = mapped_bytes(model, path), caches = (double)sequence * a->batch;
        const double buffers = (double)engine + LOGIT_BYTES * plm_model_vocab_size(model) + product_bytes(model, context, threads);
        const double all = program + tables + weights + caches + buffers;
        printf("%s: %.2f M parameters, context %d, %d sequence%s\n", a->what, (double)model->table.parameters / 1e6, context, a->batch,
               a->batch == 1 ? "" : "s");
        print_rope(&model->config.rope_scaling);
        line("weights (mapped)", weights);
        line("caches", caches);
        line("buffers", buffers);
        line("tokenizer and tables", tables);
        line("program and libraries", program);
        line("all", all > opening ? all : opening);
        line("available on this machine", proc_memory("/proc/meminfo", "MemAvailable:"));
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
    return (is_training(&a) ? plan_training(&a, &st) : plan_model(&a, &st)) ? command_fail(&st) : 0;
}
