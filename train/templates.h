/* The chat template and the refinement template of a job: the files its configuration names, those that the model it starts from was trained with, or
 * the built-in ones. Checkpoints carry them, so that what continues or talks to the model uses the text it learned. */
#ifndef TRAIN_TEMPLATES_H
#define TRAIN_TEMPLATES_H

#include "infer/text/chat_template.h"
#include "infer/text/refine_template.h"
#include "train/trainer.h"

#define CHAT_TEMPLATE_FILE "plm_chat_template.json" /* not Hugging Face's chat_template.json, which holds Jinja */
#define REFINE_TEMPLATE_FILE "refine_template.txt"

struct templates {
    struct chat_template *chat;
    struct refine_template *refine;
};

/* chat_path, refine_path: NULL for the model's own. Free with templates_close, also after an error. */
int templates_open(struct templates *t, const char *chat_path, const char *refine_path, const char *model_dir, struct plm_status *st);
void templates_close(struct templates *t);

/* The file to open for a template: `asked`, or the model directory's own file of that name when it has one (its path in `path`), or NULL for the built-in one. */
const char *template_choose(const char *asked, const char *model_dir, const char *name, char path[4096]);

/* Checkpoints of the job carry them from now on; they must live until trainer_close. */
void templates_keep(const struct templates *t, struct trainer *trainer);

#endif
