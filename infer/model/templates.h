/* The texts a model was trained on beside its tokens: its chat template and its refinement template. They travel with it, in its directory or in its GGUF file, so
 * that whoever talks to the model uses what it learned. */
#ifndef INFER_MODEL_TEMPLATES_H
#define INFER_MODEL_TEMPLATES_H

#include "infer/model/model.h"
#include "infer/text/chat_template.h"
#include "infer/text/refine_template.h"

/* Names in a directory; not Hugging Face's chat_template.json, which holds Jinja. */
#define CHAT_TEMPLATE_FILE "plm_chat_template.json"
#define REFINE_TEMPLATE_FILE "refine_template.txt"

/* Keys in a GGUF file: strings, the JSON of chat_template.h and the text of refine_template.h. */
#define CHAT_TEMPLATE_KEY "plm.chat_template"
#define REFINE_TEMPLATE_KEY "plm.refine_template"

/* Read m->chat_template, m->refine_template and m->brought where the model has them; path: its directory, not used for
 * GGUF. */
int model_read_templates(struct plm_model *m, const char *path, struct plm_status *st);

/* Whether the model came with a chat template of any kind. */
bool model_has_chat_template(const struct plm_model *m);

/* Log which template is used when none was asked for, where that is not the one the model was trained with here, or
 * where the model's other files have one that renders differently; and what of t the tokenizer has no tokens for. */
void model_chat_template_note(const struct plm_model *m, const struct chat_template *t);

/* The file `asked`, or (NULL) the template the model was trained on here, or the one its files brought; ChatML and the
 * built-in refinement template only where there is none. A template that was brought and cannot be used is an error
 * that shows it. */
int model_chat_template(struct chat_template **out, const struct plm_model *m, const char *asked, struct plm_status *st);
int model_refine_template(struct refine_template **out, const struct plm_model *m, const char *asked, struct plm_status *st);

/* The same of a directory that is not opened as a model. */
int directory_chat_template(struct chat_template **out, const char *dir, const struct tokenizer *tokenizer,
                            struct plm_status *st);

/* All of a directory, to be carried on. Free with model_templates_free, also after an error. */
struct model_templates {
    char *chat, *refine; /* what a model was trained on here; NULL: not known */
    struct brought_template brought;
};
int model_templates_read(struct model_templates *t, const char *dir, struct plm_status *st);
void model_templates_free(struct model_templates *t);

#endif
