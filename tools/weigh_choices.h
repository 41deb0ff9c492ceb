/* How likely given continuations of a prompt are. */
#ifndef TOOLS_WEIGH_CHOICES_H
#define TOOLS_WEIGH_CHOICES_H

#include "infer/plm.h"

struct weigh_options {
    const char *prompt;
    const char *const *choices; /* (n) */
    int n, context, threads;
    bool special, json;
};

/* Print the log-probability of every choice, in total, per token and per byte, and the best by each, as a table or one JSON object.
 * Prompt and choice are tokenised together; all are scored from the first token where one departs from the prompt's own. */
int weigh_choices(const struct plm_model *model, const struct weigh_options *o, struct plm_status *st);

#endif
