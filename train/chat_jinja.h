/* A chat template as the Jinja text that other programs read (tokenizer_config.json, GGUF's tokenizer.chat_template). */
#ifndef TRAIN_CHAT_JINJA_H
#define TRAIN_CHAT_JINJA_H

#include "infer/text/chat_template.h"

/* malloc'ed, NUL-terminated; the caller frees. ChatML gives PLM's own text, byte for byte (plm.md 3.3); what a model brought is
 * given back as it was. */
int chat_template_jinja(char **out, const struct chat_template *t, struct plm_status *st);

#endif
