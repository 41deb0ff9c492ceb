/* The part of Jinja that chat templates are written in, as Hugging Face runs it (trim_blocks, lstrip_blocks,
 * raise_exception, strftime_now, loop controls): text, output, comments, if, for, set, macro; expressions; the filters,
 * tests and methods of texts and lists. What is beyond that is PLM_EUNSUPPORTED and named with its line when it is
 * reached. Programs are not trusted: steps, memory and depth are bounded. */
#ifndef INFER_TEXT_JINJA_H
#define INFER_TEXT_JINJA_H

#include "infer/text/chat_template.h"

struct jinja;

/* text is copied; where names it in messages and must outlive *out. PLM_EFORMAT: not Jinja. Free with jinja_free. */
int jinja_parse(struct jinja **out, const char *text, size_t bytes, const char *where, struct plm_status *st);
void jinja_free(struct jinja *t);

/* Where a byte of the output comes from: the template (0), the content of message i (i + 1), or a role that no template
 * knows by name. */
enum { JINJA_TEMPLATE = 0, JINJA_ROLE = 0xffffff };

/* A byte and its origin: byte | origin << 8. They stay together through every operation on texts. */
typedef uint32_t jinja_byte;

struct jinja_input {
    const struct chat_message *messages; /* (n) */
    int n;
    bool generation;       /* add_generation_prompt */
    const char *bos, *eos; /* bos_token, eos_token; NULL: not defined */
};

/* *out: malloc'ed, the caller frees it. raise_exception and what Jinja calls an error are PLM_EINVAL. */
int jinja_render(const struct jinja *t, const struct jinja_input *input, jinja_byte **out, size_t *length,
                 struct plm_status *st);

#endif
