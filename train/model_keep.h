/* A model that outlives the checkpoint it was saved in: best models, and those at the end of a round. */
#ifndef TRAIN_MODEL_KEEP_H
#define TRAIN_MODEL_KEEP_H

#include "infer/base/status.h"

/* PARENT/NAME becomes the model in `checkpoint`, a directory RUN/step-N: its files but the optimizer's, as hard links where the file system has them, with a manifest of
 * their own. It stays when that checkpoint is pruned; one that was there before is replaced. */
int model_keep(const char *checkpoint, const char *parent, const char *name, struct plm_status *st);

#endif
