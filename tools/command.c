#include "tools/command.h"

#include <stdio.h>
#include <string.h>

#include "data/utf8.h"
#include "tools/exit_status.h"

static char current[64] = "plm"; /* the command that runs, for error messages: the program has one */

int command_fail(const struct plm_status *st)
{
    char shown[3 * sizeof st->message + 1]; /* what a message quotes may be cut within a character, or be no UTF-8 */
    int64_t replaced;
    shown[utf8_repair(st->message, strlen(st->message), shown, &replaced)] = 0;
    fprintf(stderr, "%s: error: %s\n", current, shown);
    return STATUS_ERROR;
}

static void usage(FILE *out, const struct command *table, const char *example)
{
    fprintf(out, "usage: %s COMMAND [ARGUMENT...]\n\ncommands:\n", current);
    for (const struct command *c = table; c->name; c++)
        fprintf(out, "  %-10s %s\n", c->name, c->summary);
    fprintf(out, "\n%s COMMAND --help says more.\n\nExample:\n  %s\n", current, example);
    if (!strcmp(current, "plm"))
        fputs("\nExit status: 0 done, 1 an error (also: the output cannot be written), 2 the command line is wrong, 3 a job came to its end but learned\n"
              "nothing, 128 + N ended or stopped by signal N (a pipe that nobody reads is output that cannot be\n"
              "written: 1). plm --version says what was built in.\n", out);
}

int command_dispatch(const struct command *table, const char *example, int argc, char **argv)
{
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "-?"))) {
        usage(stdout, table, example);
        return 0;
    }
    for (const struct command *c = table; argc > 1 && c->name; c++)
        if (!strcmp(argv[1], c->name)) {
            size_t n = strlen(current);
            snprintf(current + n, sizeof current - n, " %s", c->name);
            argv[1] = current; /* how argp calls the program in usage messages */
            return c->run(argc - 1, argv + 1);
        }
    if (argc > 1)
        fprintf(stderr, "%s: error: no command '%s'; %s --help lists them\n", current, argv[1], current);
    else
        usage(stderr, table, example);
    return STATUS_USAGE;
}
