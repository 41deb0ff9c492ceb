/* The chat template and the refinement template of a job: the files its configuration names, those that the model it starts from was trained with, or
 * the built-in ones. Checkpoints carry them, so that what continues or talks to the model uses the text it learned. */
#ifndef TRAIN_TEMPLATES_H
#define TRAIN_TEMPLATES_H

#include "infer/model/templates.h"
#include "train/trainer.h"

struct templates {
    struct chat_template *chat;
    struct refine_template *refine;
};

/* chat_path, refine_path: NULL for the model's own. Free with templates_close, also after an error. */
int templates_open(struct templates *t, const char *chat_path, const char *refine_path, const char *model_dir, struct plm_status *st);
void templates_close(struct templates *t);

/* Checkpoints of the job carry them from now on; they must live until trainer_close. */
void templates_keep(const struct templates *t, struct trainer *trainer);

#endif
