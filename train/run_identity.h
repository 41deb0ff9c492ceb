/* What tells one run from another, in words: which keys of two configurations differ, which sources of data changed,
 * what the ranks of a job were started with. */
#ifndef TRAIN_RUN_IDENTITY_H
#define TRAIN_RUN_IDENTITY_H

#include <jansson.h>

#include "train/comm.h"
#include "train/settings.h"

/* The first few values in which two JSON documents differ, as "a.b[2] was 1, is 2; ..."; empty when they do not. Of the
 * root only the members in `keys` (NULL: all but those in `free_keys`, NULL: all). `was` and `is` name the two sides
 * ("was", "is"). */
void json_difference(const json_t *before, const json_t *now, const char *const *keys, const char *const *free_keys,
                     const char *was, const char *is, char *out, size_t size);

/* PLM_EINVAL for a run of another configuration or data than it began with, naming what differs: run_dir/run.json
 * against the settings' `keys`, then the data's descriptions (objects of texts by source, NULL: not known).
 * `checkpoint` is named in the message. */
int run_identity_differs(const char *checkpoint, const char *run_dir, const struct settings *settings,
                         const char *const *keys, const json_t *data_before, const json_t *data_now,
                         struct plm_status *st);

/* Have all ranks the same text? PLM_EINVAL on all, with "rank R has another WHAT than rank 0: ...": the texts are JSON
 * documents and what differs is named. free_keys: members of the root in which ranks may differ. Collective; the first
 * call of a job, whatever it is. */
int ranks_agree(struct comm *comm, const char *what, const char *text, const char *const *free_keys,
                struct plm_status *st);

#endif
