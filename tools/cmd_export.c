/* plm export: a model as a GGUF file. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "tools/arguments.h"
#include "tools/command.h"
#include "tools/open_model.h"
#include "train/export.h"

struct arguments {
    const char *model, *out, *name;
    struct export_type type;
};

static const struct argp_option options[] = {
    {"out", 'o', "FILE", 0, "the GGUF file to write (required)", 0},
    {"type", 't', "TYPE", 0, "of the matrices: f32, f16 (default), bf16, q8_0, q4_0, q4_k, q6_k, or q4_k_m (q4_k with q6_k where it matters most)", 0},
    {"name", 'n', "NAME", 0, "general.name (default: the file's name)", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'o': a->out = arg; return 0;
    case 'n': a->name = arg; return 0;
    case 't':
        if (!export_type_by_name(&a->type, arg))
            argp_error(state, "--type '%s' is unknown; expected %s", arg, export_type_names);
        return 0;
    case ARGP_KEY_ARG: argument_only(state, "MODEL", arg, &a->model); return 0;
    case ARGP_KEY_END:
        if (!a->model || !a->out)
            argp_error(state, "MODEL and --out FILE are required");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {options, parse, "MODEL",
    "Export a model to GGUF (architecture plm). " MODEL_HELP "\vExample: plm export build/quickstart/run --type q8_0 --out model-q8_0.gguf", 0, 0, 0};

int command_export(int argc, char **argv)
{
    struct arguments a = {0};
    struct plm_status st = {0};
    export_type_by_name(&a.type, "f16");
    argp_parse(&parser, argc, argv, 0, NULL, &a);
    char path[PATH_MAX];
    struct plm_model *model = NULL;
    struct export_summary summary;
    const char *slash = strrchr(a.out, '/');
    int code = open_model(&model, a.model, path, &st);
    if (!code)
        code = export_gguf(model, &a.type, a.name ? a.name : slash ? slash + 1 : a.out, a.out, &summary, &st);
    plm_model_close(model);
    if (code)
        return command_fail(&st);
    printf("%s: %s from %s, %d tensors (", a.out, a.type.name, path, summary.n_tensors);
    const char *separator = "";
    for (int t = 0; t < DTYPE_COUNT; t++)
        if (summary.n_of_type[t]) {
            printf("%s%d %s", separator, summary.n_of_type[t], dtype_info((enum dtype)t)->name);
            separator = ", ";
        }
    printf("), %.2f MB\nsha256 %s\n", (double)summary.bytes / 1e6, summary.sha256);
    if (summary.n_fallback)
        printf("%d matrices have rows that are no multiple of %d and are stored in another type: %s\n", summary.n_fallback,
               dtype_info(a.type.type)->block_elements, summary.fallbacks);
    return 0;
}
