/* What `plm score` scores: answers of a rollout beside their tasks, or rows that carry prompt, answer and reference themselves. */
#ifndef TOOLS_SCORE_ROWS_H
#define TOOLS_SCORE_ROWS_H

#include "train/align/task.h"

struct score_input {
    struct row_set tasks;
    struct answer_set answers;
};
void score_input_free(struct score_input *in);

struct score_rows_options {
    const char *tasks;    /* the tasks of an answers' file; NULL: the rows carry everything */
    const char *text;     /* the answer's text, with {field} for a field of the row (lists of texts are joined by lines); NULL: completion,
                           * response or output where the row has one, else its answer (a row scored with its own solution) */
    const json_t *fields; /* renamed fields (conversation.h) */
    int64_t limit;        /* the first so many rows; 0: all */
};

/* A malformed row is an error: FILE:LINE. Zero-initialise in; free it also after an error. */
int score_rows_read(struct score_input *in, const char *path, const struct score_rows_options *o, struct plm_status *st);

/* template with {field} replaced, malloc'ed in *text; any other brace stands for itself. PLM_EFORMAT for a field the row does not have. */
int score_expand(const char *template, const json_t *row, char **text, struct plm_status *st);

#endif
