/* What the configurations of all training jobs have in common. */
#ifndef TRAIN_RUN_SETTINGS_H
#define TRAIN_RUN_SETTINGS_H

#include <jansson.h>

#include "optim/adamw.h"
#include "train/settings.h"

/* "optimizer": {"beta1", "beta2", "eps", "weight_decay", "clip"}. Problems are remembered as the getters do. */
void settings_read_optimizer(struct section *root, struct adamw *adamw, double *clip);

/* "checkpoint": {"every_steps", "keep"} with these defaults, "log": {"every_steps"}, and "max_skipped_steps": after so many steps in a
 * row whose update was not applied the job ends with an error (default 10; 0: never). */
void settings_read_saving(struct section *root, int64_t every, int keep, int64_t *checkpoint_every, int *checkpoint_keep, int64_t *log_every,
                          int64_t *max_skipped);

/* "fields": an object from names to names (renamed fields of rows: data/conversation.h), every key of which is allowed. NULL when it is missing. */
const json_t *settings_read_fields(struct section *s);

/* Room for n entries of an array, zeroed, at least one; free it. NULL when out of memory, which is remembered. */
void *settings_entries(struct section *s, const char *key, int n, size_t size);

#endif
