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

/* \n, \t and \\ in place. */
char *text_unescape(char *text);

/* Add the argument of --NAME. escaped: an empty one is a usage error, and \n, \t and \\ are read. */
void text_list_argument(struct text_list *l, const char *arg, const char *name, bool escaped, struct argp_state *state);

/* Add every line of a file that is not empty. */
int text_list_read(struct text_list *l, const char *path, struct plm_status *st);

void text_list_free(struct text_list *l);

#endif
