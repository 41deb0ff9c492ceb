/* plm: the program. Finds the subcommand and hands over; only here and in argp does the process end. */
#include <stdio.h>
#include <string.h>

#include "tools/command.h"

static const struct command commands[] = {
    {"tokenizer", "train a byte-level BPE, encode and decode", command_tokenizer},
    {"data", "turn text into shards, and look into shards", command_data},
    {"pretrain", "pretrain a model, alone or under mpirun", command_pretrain},
    {"export", "write a model as GGUF", command_export},
    {"generate", "continue a text", command_generate},
    {"logits", "the logits of a list of tokens", command_logits},
    {"verify", "compute a reference case with the trainer", command_verify},
    {"bench", "measure the machine and the kernels", command_bench},
    {NULL, NULL, NULL},
};

static const char *current = "plm";

int command_fail(const struct plm_status *st)
{
    fprintf(stderr, "plm %s: error: %s\n", current, st->message);
    return 1;
}

static void usage(FILE *out)
{
    fprintf(out, "usage: plm COMMAND [ARGUMENT...]\n\ncommands:\n");
    for (const struct command *c = commands; c->name; c++)
        fprintf(out, "  %-10s %s\n", c->name, c->summary);
    fprintf(out, "\nplm COMMAND --help says more. Example:\n  plm generate model.gguf --prompt 'The hacker' -n 64\n");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        usage(stdout);
        return 0;
    }
    for (const struct command *c = commands; c->name; c++)
        if (!strcmp(c->name, argv[1])) {
            static char name[32]; /* how argp calls the program in usage messages */
            snprintf(name, sizeof name, "plm %s", c->name);
            current = c->name;
            argv[1] = name;
            return c->run(argc - 1, argv + 1);
        }
    fprintf(stderr, "plm: error: no command '%s'; plm --help lists them\n", argv[1]);
    return 2;
}
