#include <stdlib.h>
#include <string.h>

#include "data/row_draft.h"

/* A row that has nothing of what is wanted: what it has instead. */
static int unknown_row(struct row_draft *d, const char *expected)
{
    char list[200] = "";
    const char *key;
    json_t *value;
    size_t n = 0;
    json_object_foreach((json_t *)d->object, key, value) {
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%.40s", n ? ", " : "", key);
        if (n + 60 > sizeof list)
            break;
    }
    return draft_bad(d, "expected %s; the row has %s; \"fields\" gives fields of other names", expected, *list ? list : "no fields");
}

/* Only the last answer that could be learnt stays a target. */
static void keep_last_target(struct row *r)
{
    bool later = false;
    for (int i = r->n_messages - 1; i >= 0; i--) {
        r->messages[i].target = r->messages[i].target && !later;
        later = later || !strcmp(r->messages[i].role, "assistant");
    }
}

static int read_label(struct row_draft *d, const json_t *label, bool *desirable)
{
    const bool number = json_is_integer(label) && (json_integer_value(label) == 0 || json_integer_value(label) == 1);
    *desirable = json_is_true(label) || (number && json_integer_value(label) == 1);
    return number || json_is_boolean(label) ? PLM_OK : draft_bad(d, "\"%s\" is neither true nor false", draft_name(d, FIELD_LABEL));
}

/* Prompt and answer. An answer that is labelled undesirable is nothing to learn. */
static int read_prompted(struct row_draft *d)
{
    const char *name;
    const json_t *completion = draft_completion(d, &name), *label = draft_get(d, FIELD_LABEL);
    if (!completion)
        return unknown_row(d, "an answer after the prompt (completion, response, output, answer)");
    if (json_is_boolean(label) && !json_is_true(label))
        return draft_bad(d, "\"%s\" is false: this answer is not to be learnt; it is for preference training", draft_name(d, FIELD_LABEL));
    return draft_add_text_or_list(d, completion, name, "assistant", true);
}

static int read_text(struct row_draft *d)
{
    d->row.kind = ROW_TEXT;
    const int code = draft_get_string(d, FIELD_TEXT, &d->row.text);
    return code ? code : text_is_blank(d->row.text) ? draft_bad(d, "\"%s\" is empty", draft_name(d, FIELD_TEXT)) : PLM_OK;
}

static int read_conversation(struct row_draft *d)
{
    struct row *r = &d->row;
    const char *name;
    const json_t *list = draft_get_from(d, d->object, FIELD_MESSAGES, &name);
    bool there = false;
    int code = PLM_OK;
    r->kind = ROW_CONVERSATION;
    if (draft_has_pair(d)) { /* the better answer is learnt */
        code = draft_read_pair(d);
        r->kind = ROW_CONVERSATION;
        if (!code)
            code = draft_add(d, "assistant", r->chosen, true);
        r->chosen = r->rejected = NULL;
        return code;
    }
    if (list)
        code = draft_read_list(d, list, name);
    else if (!(code = draft_read_prompt(d, &there)) && there)
        code = read_prompted(d);
    else if (!code && draft_get(d, FIELD_TEXT))
        return read_text(d);
    else if (!code)
        code = unknown_row(d, "a conversation (messages, conversations), a prompt and a completion (prompt, instruction, question; completion, response, output, "
                              "answer) or a text");
    if (!code)
        code = draft_finish(d);
    if (!code && d->o->last_turn_only)
        keep_last_target(r);
    return code;
}

/* A prompt; *answer: what follows it in the row, NULL when nothing does. */
static int read_question(struct row_draft *d, const char **answer)
{
    struct row *r = &d->row;
    const char *name;
    const json_t *list = draft_get_from(d, d->object, FIELD_MESSAGES, &name), *completion;
    bool there = false;
    *answer = NULL;
    int code = draft_read_prompt(d, &there);
    if (!code && there) {
        completion = draft_completion(d, &name);
        *answer = json_string_value(completion);
        if (!*answer && (json_is_array(completion) || json_is_object(completion)) && !(code = draft_add_list(d, completion, name, false)))
            code = draft_take_last(d, name, answer);
    } else if (!code && list) {
        code = draft_read_list(d, list, name);
        if (!code && r->n_messages && !strcmp(r->messages[r->n_messages - 1].role, "assistant"))
            code = draft_take_last(d, name, answer);
    } else if (!code) {
        code = unknown_row(d, "a prompt (prompt, instruction, question, messages)");
    }
    return code ? code : draft_finish_prompt(d);
}

static int read_task(struct row_draft *d)
{
    const char *answer;
    d->row.kind = ROW_TASK;
    int code = read_question(d, &answer);
    if (!code && !d->row.answer)
        d->row.answer = answer;
    if (!code && d->row.answer && text_is_blank(d->row.answer))
        code = draft_bad(d, "the answer is empty");
    return code;
}

static int read_labelled(struct row_draft *d)
{
    struct row *r = &d->row;
    const json_t *label = draft_get(d, FIELD_LABEL);
    r->kind = ROW_LABELLED;
    if (!label)
        return unknown_row(d, "an answer with a \"label\", true or false");
    int code = read_label(d, label, &r->desirable);
    if (!code)
        code = read_question(d, &r->completion);
    if (!code && (!r->completion || text_is_blank(r->completion)))
        code = draft_bad(d, r->completion ? "the answer is empty" : "\"%s\" is missing", draft_name(d, FIELD_COMPLETION));
    return code;
}

static size_t bytes_of(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

static const char *copy(char **to, const char *text)
{
    const size_t n = bytes_of(text);
    if (!n)
        return NULL;
    const char *at = memcpy(*to, text, n);
    *to += n;
    return at;
}

/* Everything of the draft in one block. */
static int own(struct row *row, const struct row *r, struct plm_status *st)
{
    size_t total = (size_t)r->n_messages * sizeof *r->messages + 1;
    for (int i = 0; i < r->n_messages; i++)
        total += bytes_of(r->messages[i].role) + bytes_of(r->messages[i].content);
    total += bytes_of(r->text) + bytes_of(r->chosen) + bytes_of(r->rejected) + bytes_of(r->completion) + bytes_of(r->answer) + bytes_of(r->tests);
    struct chat_message *messages = malloc(total);
    if (!messages)
        return status_no_memory(st, total, "a row");
    char *to = (char *)(messages + r->n_messages);
    *row = *r;
    row->memory = row->messages = messages;
    for (int i = 0; i < r->n_messages; i++) {
        messages[i] = r->messages[i];
        messages[i].role = copy(&to, r->messages[i].role);
        messages[i].content = copy(&to, r->messages[i].content);
    }
    row->text = copy(&to, r->text);
    row->chosen = copy(&to, r->chosen);
    row->rejected = copy(&to, r->rejected);
    row->completion = copy(&to, r->completion);
    row->answer = copy(&to, r->answer);
    row->tests = copy(&to, r->tests);
    return PLM_OK;
}

int row_read(struct row *row, const json_t *object, const struct row_options *o, struct plm_status *st)
{
    struct row_draft d = {.object = object, .o = o, .st = st};
    *row = (struct row){0};
    int code = row_fields_check(o->fields, st);
    if (code)
        return code;
    const json_t *id = draft_get(&d, FIELD_ID);
    d.row.has_id = json_is_integer(id);
    d.row.id = json_integer_value(id);
    code = draft_read_checks(&d);
    if (!code)
        switch (o->wanted) {
        case ROW_CONVERSATION: code = read_conversation(&d); break;
        case ROW_TEXT: code = draft_get(&d, FIELD_TEXT) ? read_text(&d) : unknown_row(&d, "a text"); break;
        case ROW_PAIR: code = draft_has_pair(&d) ? draft_read_pair(&d) : unknown_row(&d, "a pair (prompt, chosen, rejected; or output_1, output_2, label)"); break;
        case ROW_LABELLED: code = read_labelled(&d); break;
        case ROW_TASK: code = read_task(&d); break;
        }
    if (!code)
        code = own(row, &d.row, st);
    free(d.row.messages);
    json_decref(d.made);
    return code;
}

void row_free(struct row *row)
{
    free(row->memory);
    *row = (struct row){0};
}
