/* A conversation whose answers are refined, or chosen among several, before they are given: only what was given stays in it. */
#ifndef TOOLS_REFINED_CHAT_H
#define TOOLS_REFINED_CHAT_H

#include "infer/plm.h"

struct refined_chat {
    const struct plm_model *model;
    struct plm_answer_options options;
    const char *system;           /* NULL: the template's */
    bool show_drafts;             /* of one chain: dimmed on a terminal, marked otherwise */
    struct plm_message *messages; /* (n), contents are owned */
    int n, capacity;
};

/* Answer a message, on standard output. On an error, or when it is stopped by Ctrl-C, the conversation is as it was. */
int refined_chat_answer(struct refined_chat *c, const char *message, struct plm_status *st);

/* Forget the conversation. */
void refined_chat_reset(struct refined_chat *c);

#endif
