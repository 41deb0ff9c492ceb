/* The two kinds of chat templates: turns with slots (chat_template.c) and Jinja (chat_jinja.c). */
#ifndef INFER_TEXT_CHAT_TEMPLATE_INTERNAL_H
#define INFER_TEXT_CHAT_TEMPLATE_INTERNAL_H

#include "infer/text/chat_template.h"

struct span {
    const char *text;
    size_t bytes;
};

struct chat_template {
    char *json;
    char *memory; /* what the spans lie in */
    struct span system;
    struct span before_role, after_role; /* pieces of "turn" around its slots */
    struct span end;                     /* "end" */
    struct span ending;                  /* from {content} to the end of "end" */
    struct span after_end;
    struct jinja *jinja; /* NULL: a template of turns */
    const char *source, *bos, *eos;
    char *where, *tail; /* tail: what "ending" and "after_end" of Jinja lie in */
    bool own_system;    /* Jinja writes a system message of its own where there is none */
};

/* Where ids go, and how long the lists were. */
struct output {
    struct encoder *encoder;
    struct token_list *ids;
    struct target_list *targets; /* NULL: not wanted */
    size_t n_ids, n_targets;
    struct plm_status *st;
    int code;
};

/* special: text of the template, whose <|...|> are special tokens (a person's are not). */
void chat_put(struct output *o, struct span s, bool special, bool target);

/* Parse t->source, of so many bytes, and find out how it ends an assistant's turn. */
int chat_jinja_open(struct chat_template *t, size_t bytes, const char *where, struct plm_status *st);
void chat_jinja_close(struct chat_template *t);
void chat_jinja_render(const struct chat_template *t, struct output *o, const struct chat_message *messages, int n,
                       enum chat_begin begin, bool generation);
/* An answer without its ending. */
void chat_jinja_answer(const struct chat_template *t, struct output *o, const char *text, size_t bytes);

#endif
