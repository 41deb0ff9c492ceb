/* The Jinja text of a model's chat template, wherever its files have it. */
#ifndef INFER_MODEL_BROUGHT_TEMPLATE_H
#define INFER_MODEL_BROUGHT_TEMPLATE_H

#include "infer/format/gguf.h"

struct brought_template {
    char *text; /* (bytes), NUL-terminated; NULL: none, or none that could be chosen */
    size_t bytes;
    char *where;   /* file and key, for messages */
    char *problem; /* why none could be chosen; NULL */
};

/* Of a directory: chat_template.jinja, chat_template of tokenizer_config.json (a text, or a list of {"name",
 * "template"}), or of chat_template.json; of an open GGUF file (g, dir is not used then): tokenizer.chat_template, or
 * tokenizer.chat_template.NAME. Of several the one called "default" is taken. Free with brought_template_free, also
 * after an error. */
int brought_template_read(struct brought_template *b, const char *dir, const struct gguf *g, struct plm_status *st);
void brought_template_free(struct brought_template *b);

#endif
