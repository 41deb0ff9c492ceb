/* A row while it is read (data/conversation.c): its fields by any of their names, its messages, and texts that have to be made. Internal to the
 * reading of rows; errors are PLM_EFORMAT in d->st. */
#ifndef DATA_ROW_DRAFT_H
#define DATA_ROW_DRAFT_H

#include "data/conversation.h"

enum row_field {
    FIELD_MESSAGES, FIELD_ROLE, FIELD_CONTENT, FIELD_PROMPT, FIELD_INPUT, FIELD_SYSTEM, FIELD_HISTORY, FIELD_TOOLS, FIELD_COMPLETION, FIELD_CHOSEN,
    FIELD_REJECTED, FIELD_FIRST, FIELD_SECOND, FIELD_LABEL, FIELD_TEXT, FIELD_ANSWER, FIELD_TESTS, FIELD_TEST_SETUP, FIELD_ENTRY_POINT, FIELD_ID,
    FIELD_INSTANCES, N_FIELDS
};

struct row_draft {
    const json_t *object;
    const struct row_options *o;
    struct plm_status *st;
    struct row row;     /* its texts are those of the object, or of `made` */
    int capacity;       /* of row.messages, which is malloc'ed */
    json_t *made;       /* array that owns strings and lists that are not in the object as they are */
};

int draft_bad(struct row_draft *d, const char *fmt, ...) PLM_PRINTF(2, 3);

/* A field of an object (the row, a message) by any of its names, and the name found (NULL allowed); NULL when it has none, or null. */
const json_t *draft_get_from(const struct row_draft *d, const json_t *object, enum row_field field, const char **name);
const json_t *draft_get(const struct row_draft *d, enum row_field field);
/* What messages call it: the name that `fields` gives, or the standard one. */
const char *draft_name(const struct row_draft *d, enum row_field field);
/* A string field of the row; NULL in *text when there is none. */
int draft_get_string(struct row_draft *d, enum row_field field, const char **text);

/* Keep a value as long as the draft (the reference is taken over; NULL: out of memory). */
int draft_keep(struct row_draft *d, json_t *value);
/* Texts that the draft keeps: a, between and b joined; a JSON value written out; the strings of an array joined. */
int draft_join(struct row_draft *d, const char **text, const char *a, const char *between, const char *b);
int draft_dump(struct row_draft *d, const char **text, const json_t *value);
int draft_join_list(struct row_draft *d, const char **text, const json_t *strings, const char *between);

/* Nothing but white space. */
bool text_is_blank(const char *text);

/* The canonical role ("user" for "human" ...); NULL when unknown. */
const char *draft_role(const char *name);

/* Append one message of a canonical role; a list of messages, or a single one (target: its assistant messages are, unless they say no); a text, which
 * becomes a message of that role, or messages. `name` is that of the field, for errors. */
int draft_add(struct row_draft *d, const char *role, const char *content, bool target);
int draft_add_list(struct row_draft *d, const json_t *list, const char *name, bool target);
int draft_add_text_or_list(struct row_draft *d, const json_t *value, const char *name, const char *role, bool target);

/* Take off the assistant's message at the end: its content. */
int draft_take_last(struct row_draft *d, const char *name, const char **content);

/* "tools" of the row become part of its system message; then roles must be in order and no message empty. */
int draft_finish(struct row_draft *d);
/* The same for a prompt: its last message waits for an answer. */
int draft_finish_prompt(struct row_draft *d);

/* data/row_prompt.c: the messages before the answer (*there: the row has such), from "prompt", "instruction" and "input", "history", "system"; or from a list of
 * messages of the row; and the answer that follows a prompt, NULL when there is none. */
int draft_read_prompt(struct row_draft *d, bool *there);
int draft_read_list(struct row_draft *d, const json_t *list, const char *name);
const json_t *draft_completion(const struct row_draft *d, const char **name);
/* "answer" and "tests" of the row, for verifiers. */
int draft_read_checks(struct row_draft *d);

/* data/row_pair.c: whether it has two answers, and prompt, chosen and rejected. */
bool draft_has_pair(const struct row_draft *d);
int draft_read_pair(struct row_draft *d);

#endif
