/* Texts of a command line: options that may be given several times. */
#ifndef TOOLS_TEXT_LIST_H
#define TOOLS_TEXT_LIST_H

#include <argp.h>
#include <stdbool.h>

#include "infer/base/status.h"

struct text_list {
    char **items; /* (n), NUL-terminated */
    int n;
};

/* How the help of an option says that text_unescape reads it. */
#define ESCAPES_HELP "\\n is a newline, \\t a tab, \\\\ a backslash"

/* \n, \t and \\ in place. */
char *text_unescape(char *text);

/* TEXT_ANY: as it stands; TEXT_RAW: the same, but an empty one is a usage error; TEXT_ESCAPED: that, and \n, \t and
 * \\ are read. */
enum text_rule { TEXT_ANY, TEXT_RAW, TEXT_ESCAPED };

/* Add the argument of --NAME. */
void text_list_argument(struct text_list *l, const char *arg, const char *name, enum text_rule rule,
                        struct argp_state *state);

/* Add every line of a file ("-": standard input) that is not empty, as it stands, without its end (a newline, or CR and
 * newline); a byte order mark is dropped. A NUL is an error. */
int text_list_read(struct text_list *l, const char *path, struct plm_status *st);

/* Add a whole file ("-": standard input) as one text, without a byte order mark and one newline at its end. A NUL in it
 * is an error. */
int text_list_read_whole(struct text_list *l, const char *path, struct plm_status *st);

void text_list_free(struct text_list *l);

#endif
