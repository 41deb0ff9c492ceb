/* plm export, plm quantize, plm import: a model as a GGUF file or a Hugging Face directory, whatever it was before. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/open_model.h"
#include "train/export.h"

struct arguments {
    const char *model, *out, *name, *type_name;
    bool hf;
    bool out_argument; /* the output is the second argument, not an option */
    int64_t shard_bytes;
    struct export_type type;
};

#define SHARD_OPTION {"shard-size", 's', "SIZE", 0, "split the weights into files of at most this size, such as 5GB (default: one file)", 0}
#define TYPES "f32, f16, bf16, q8_0, q4_0, q4_k, q6_k, or q4_k_m (q4_k with q6_k where it matters most)"

static const struct argp_option export_options[] = {
    {"out", 'o', "PATH", 0, "the GGUF file or directory to write (required)", 0},
    {"format", 'f', "FORMAT", 0, "gguf (default), or hf: a Hugging Face directory", 0},
    {"type", 't', "TYPE", 0, "of the matrices in GGUF (default f16): " TYPES "; of all tensors in a directory (default bf16): f32, f16 or bf16", 0},
    {"name", 'n', "NAME", 0, "general.name of a GGUF file (default: the file's name)", 0},
    SHARD_OPTION,
    {0},
};

static const struct argp_option quantize_options[] = {
    {"type", 't', "TYPE", 0, "of the matrices (default q4_k_m): " TYPES, 0},
    {"name", 'n', "NAME", 0, "general.name (default: the file's name)", 0},
    {0},
};

static const struct argp_option import_options[] = {
    {"type", 't', "TYPE", 0, "f32 (default: nothing is rounded), f16 or bf16", 0},
    SHARD_OPTION,
    {0},
};

/* "5GB", "200MiB", "1000": bytes. */
static int64_t argument_size(struct argp_state *state, const char *arg)
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"", 1}, {"B", 1}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}};
    char *end;
    const double number = strtod(arg, &end);
    for (size_t i = 0; i < sizeof units / sizeof *units && end != arg; i++)
        if (!strcmp(end, units[i].name) && number * units[i].bytes >= 1 && number * units[i].bytes < 9e18)
            return (int64_t)(number * units[i].bytes);
    argp_error(state, "--shard-size is '%s', expected a size such as 5GB, 200MB or 64MiB", arg);
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'o': a->out = arg; return 0;
    case 'n': a->name = arg; return 0;
    case 't': a->type_name = arg; return 0;
    case 's': a->shard_bytes = argument_size(state, arg); return 0;
    case 'f':
        a->hf = !strcmp(arg, "hf");
        if (!a->hf && strcmp(arg, "gguf") != 0)
            argp_error(state, "--format '%s' is unknown; expected gguf or hf", arg);
        return 0;
    case ARGP_KEY_ARG:
        if (a->out_argument && a->model)
            argument_only(state, "output", arg, &a->out);
        else
            argument_only(state, "MODEL", arg, &a->model);
        return 0;
    case ARGP_KEY_END:
        if (!a->model || !a->out)
            argp_error(state, a->out_argument ? "a model and the output are required" : "MODEL and --out PATH are required");
        if (a->type_name && !export_type_by_name(&a->type, a->type_name))
            argp_error(state, "--type '%s' is unknown; expected %s", a->type_name, export_type_names);
        if (!a->type_name && a->hf && !a->out_argument)
            export_type_by_name(&a->type, "bf16");
        if (a->hf && !dtype_info(a->type.type)->safetensors_name)
            argp_error(state, "--type '%s': a directory holds f32, f16 or bf16; quantised weights go into GGUF", a->type.name);
        if (a->shard_bytes && !a->hf)
            argp_error(state, "--shard-size is for --format hf: a GGUF file is one file");
        if (a->name && a->hf)
            argument_unused("name", "with --format hf: a directory holds no name");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp export_parser = {export_options, parse, "MODEL",
    "Write a model for other programs: a GGUF file (architecture plm) or a Hugging Face directory. " MODEL_HELP "\v"
    "Examples:\n  plm export build/quickstart/run --type q8_0 --out model-q8_0.gguf\n"
    "  plm export model.gguf --format hf --shard-size 2GB --out model-hf", 0, 0, 0};

static const struct argp quantize_parser = {quantize_options, parse, "MODEL OUT.gguf",
    "Write a model as a GGUF file of another type; the same as plm export MODEL --out OUT.gguf. " MODEL_HELP "\v"
    "Example: plm quantize model-f16.gguf model-q4_k_m.gguf --type q4_k_m", 0, 0, 0};

static const struct argp import_parser = {import_options, parse, "MODEL DIR",
    "Make a directory that training can start from, in the Hugging Face layout, of any model; quantised weights are widened. Every weight is "
    "checked. " MODEL_HELP "\v"
    "Example:\n  plm import model-q8_0.gguf start\n"
    "  plm pretrain config.json --set 'model={\"path\": \"start\"}' --set tokenizer=start/tokenizer.json", 0, 0, 0};

static void print_summary(const struct arguments *a, const char *from, const struct export_summary *s)
{
    printf("%s: %s from %s, %d tensors\n", a->out, a->type.name, from, s->n_tensors);
    for (int t = 0; t < DTYPE_COUNT; t++)
        if (s->n_of_type[t])
            printf("  %-6s %6d tensors %16lld bytes\n", dtype_info((enum dtype)t)->name, s->n_of_type[t], (long long)s->bytes_of_type[t]);
    if (s->n_fallback)
        printf("  %d matrices have rows that are no multiple of %d and are stored in another type: %s\n", s->n_fallback,
               dtype_info(a->type.type)->block_elements, s->fallbacks);
    for (int i = 0; i < s->n_files; i++) {
        const struct export_file *f = &s->files[i];
        printf("  %s: ", f->name);
        if (f->n_tensors)
            printf("%d tensors, ", f->n_tensors);
        printf("%lld bytes, sha256 %s\n", (long long)f->bytes, f->sha256);
    }
    printf("  %lld bytes in all (%.2f MB)\n", (long long)s->bytes, (double)s->bytes / 1e6);
}

/* Are the weights rounded already? */
static bool is_quantized(const struct plm_model *m)
{
    struct model_weights weights = m->weights;
    bool quantized = false;
    for (int i = 0; i < m->table.n_tensors; i++)
        quantized |= dtype_is_quantized(weights_slot(&weights, &m->table.tensors[i])->type);
    return quantized;
}

static int run(struct arguments *a)
{
    struct plm_status st = {0};
    char path[PATH_MAX];
    struct plm_model *model = NULL;
    struct model_card card = {0};
    struct export_summary summary = {0};
    const char *slash = strrchr(a->out, '/'), *name = a->name ? a->name : slash ? slash + 1 : a->out;
    int code = open_model(&model, a->model, path, &st);
    if (!code)
        code = model_card_read(&card, model, path, &st);
    if (!code)
        code = a->hf ? export_hf(model, &card, a->type.type, a->shard_bytes, a->out, &summary, &st)
                     : export_gguf(model, &card, &a->type, name, a->out, &summary, &st);
    if (!code) {
        print_summary(a, path, &summary);
        if (is_quantized(model) && dtype_is_quantized(a->type.type))
            printf("  the model was quantised before: quantise from the original for the best quality\n");
        if (!model->tokenizer)
            printf("  without a tokenizer: the model came without one\n");
        puts(a->hf ? "  transformers loads it with trust_remote_code=True: README.md there shows how and names the remote code"
                   : "  llama.cpp needs -fa off: its graph of this architecture stops with flash attention");
    }
    export_summary_free(&summary);
    model_card_free(&card);
    plm_model_close(model);
    return code ? command_fail(&st) : 0;
}

int command_export(int argc, char **argv)
{
    struct arguments a = {0};
    export_type_by_name(&a.type, "f16");
    argp_parse(&export_parser, argc, argv, 0, NULL, &a);
    return run(&a);
}

int command_quantize(int argc, char **argv)
{
    struct arguments a = {.out_argument = true};
    export_type_by_name(&a.type, "q4_k_m");
    argp_parse(&quantize_parser, argc, argv, 0, NULL, &a);
    return run(&a);
}

int command_import(int argc, char **argv)
{
    struct arguments a = {.out_argument = true, .hf = true};
    export_type_by_name(&a.type, "f32");
    argp_parse(&import_parser, argc, argv, 0, NULL, &a);
    return run(&a);
}
