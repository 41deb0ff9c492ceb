#include "data/row_draft.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What each is called, ended by NULL; the first is the standard name. */
static const char *const names[N_FIELDS][6] = {
    [FIELD_MESSAGES] = {"messages", "conversations", "conversation"},
    [FIELD_ROLE] = {"role", "from"},
    [FIELD_CONTENT] = {"content", "value"},
    [FIELD_PROMPT] = {"prompt", "instruction", "question", "problem", "query"},
    [FIELD_INPUT] = {"input"},
    [FIELD_SYSTEM] = {"system"},
    [FIELD_HISTORY] = {"history"},
    [FIELD_TOOLS] = {"tools"},
    [FIELD_COMPLETION] = {"completion", "response", "output", "solution"},
    [FIELD_CHOSEN] = {"chosen"},
    [FIELD_REJECTED] = {"rejected"},
    [FIELD_FIRST] = {"output_1", "response1"},
    [FIELD_SECOND] = {"output_2", "response2"},
    [FIELD_LABEL] = {"label"},
    [FIELD_TEXT] = {"text"},
    [FIELD_ANSWER] = {"answer"},
    [FIELD_TESTS] = {"tests", "test", "test_list"},
    [FIELD_TEST_SETUP] = {"test_setup_code", "test_imports"},
    [FIELD_ENTRY_POINT] = {"entry_point"},
    [FIELD_ID] = {"id"},
    [FIELD_INSTANCES] = {"instances"},
};

static const struct {
    const char *name, *role;
} roles[] = {
    {"system", "system"}, {"developer", "system"},
    {"user", "user"}, {"human", "user"}, {"prompter", "user"},
    {"assistant", "assistant"}, {"gpt", "assistant"}, {"chatgpt", "assistant"}, {"model", "assistant"}, {"bot", "assistant"}, {"function_call", "assistant"},
    {"tool", "tool"}, {"observation", "tool"}, {"function", "tool"}, {"tool_response", "tool"}, {"ipython", "tool"},
};

/* What a message can say of its being trained. */
static const char *const switches[] = {"weight", "train", "trainable", "loss", NULL};

int draft_bad(struct row_draft *d, const char *fmt, ...)
{
    char what[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return status_set(d->st, PLM_EFORMAT, "%s", what);
}

/* --- fields --- */

static bool is_name(const char *key)
{
    for (int f = 0; f < N_FIELDS; f++)
        for (const char *const *name = names[f]; *name; name++)
            if (!strcmp(*name, key))
                return true;
    return false;
}

int row_fields_check(const json_t *fields, struct plm_status *st)
{
    const char *key;
    json_t *value;
    if (fields && !json_is_object(fields))
        return status_set(st, PLM_EINVAL, "\"fields\" is not an object; expected standard names and what this file calls them, like {\"prompt\": \"instruction\"}");
    json_object_foreach((json_t *)fields, key, value) {
        if (!is_name(key))
            return status_set(st, PLM_EINVAL, "\"fields\" renames \"%.64s\", which is no field of a row; these are messages, role, content, prompt, input, system, "
                              "completion, chosen, rejected, output_1, output_2, label, text, answer, tests and others (see data/conversation.h)", key);
        if (!json_is_string(value))
            return status_set(st, PLM_EINVAL, "\"fields\": \"%s\" is not a string; expected the name it has in this file", key);
    }
    return PLM_OK;
}

/* The name that stands for another field is not seen under its own. */
static bool is_taken(const json_t *fields, const char *name)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)fields, key, value)
        if (!strcmp(json_string_value(value), name))
            return true;
    return false;
}

/* The name that `fields` gives it, NULL when it is not renamed. */
static const char *renamed(const json_t *fields, enum row_field field)
{
    const char *name = NULL;
    for (const char *const *n = names[field]; *n && fields && !name; n++)
        name = json_string_value(json_object_get(fields, *n));
    return name;
}

const char *draft_name(const struct row_draft *d, enum row_field field)
{
    const char *name = renamed(d->o->fields, field);
    return name ? name : names[field][0];
}

const json_t *draft_get_from(const struct row_draft *d, const json_t *object, enum row_field field, const char **found)
{
    const char *name = renamed(d->o->fields, field);
    const json_t *value = name ? json_object_get(object, name) : NULL;
    for (const char *const *n = names[field]; !name && *n; n++) {
        value = is_taken(d->o->fields, *n) ? NULL : json_object_get(object, *n);
        if (value && !json_is_null(value))
            name = *n;
    }
    if (found)
        *found = name;
    return json_is_null(value) ? NULL : value;
}

const json_t *draft_get(const struct row_draft *d, enum row_field field)
{
    return draft_get_from(d, d->object, field, NULL);
}

static int expect_string(struct row_draft *d, const json_t *value, const char *name, const char **text)
{
    *text = json_string_value(value);
    return *text ? PLM_OK : draft_bad(d, value ? "\"%s\" is not a string" : "\"%s\" is missing", name);
}

int draft_get_string(struct row_draft *d, enum row_field field, const char **text)
{
    const char *name;
    const json_t *value = draft_get_from(d, d->object, field, &name);
    *text = NULL;
    return value ? expect_string(d, value, name, text) : PLM_OK;
}

/* --- texts that have to be made --- */

int draft_keep(struct row_draft *d, json_t *value)
{
    if (!d->made)
        d->made = json_array();
    return json_array_append_new(d->made, value) ? status_no_memory(d->st, 0, "a row") : PLM_OK;
}

int draft_join(struct row_draft *d, const char **text, const char *a, const char *between, const char *b)
{
    json_t *s = json_sprintf("%s%s%s", a, between, b);
    *text = json_string_value(s);
    return draft_keep(d, s);
}

int draft_dump(struct row_draft *d, const char **text, const json_t *value)
{
    char *dumped = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    json_t *s = dumped ? json_string(dumped) : NULL;
    free(dumped);
    *text = json_string_value(s);
    return draft_keep(d, s);
}

int draft_join_list(struct row_draft *d, const char **text, const json_t *strings, const char *between)
{
    size_t i, total = 1;
    json_t *s;
    json_array_foreach(strings, i, s)
        total += json_string_length(s) + strlen(between);
    char *joined = malloc(total), *to = joined;
    if (!joined)
        return status_no_memory(d->st, total, "a text of a row");
    json_array_foreach(strings, i, s) {
        if (i > 0)
            to = stpcpy(to, between);
        to = stpcpy(to, json_string_value(s));
    }
    json_t *made = json_stringn(joined, (size_t)(to - joined));
    free(joined);
    *text = json_string_value(made);
    return draft_keep(d, made);
}

bool text_is_blank(const char *text)
{
    return text[strspn(text, " \t\r\n\f\v")] == 0;
}

/* --- messages --- */

const char *draft_role(const char *name)
{
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(roles[i].name, name))
            return roles[i].role;
    return NULL;
}

int draft_add(struct row_draft *d, const char *role, const char *content, bool target)
{
    struct row *r = &d->row;
    if (r->n_messages == d->capacity) {
        const int capacity = 2 * d->capacity + 8;
        struct chat_message *grown = realloc(r->messages, (size_t)capacity * sizeof *grown);
        if (!grown)
            return status_no_memory(d->st, (size_t)capacity * sizeof *grown, "the messages of a row");
        r->messages = grown;
        d->capacity = capacity;
    }
    r->messages[r->n_messages++] = (struct chat_message){role, content, strlen(content), target};
    return PLM_OK;
}

/* A text, or the text parts of a multimodal message. */
static int read_content(struct row_draft *d, const json_t *value, const char **text)
{
    size_t i;
    json_t *part;
    if (!json_is_array(value))
        return expect_string(d, value, draft_name(d, FIELD_CONTENT), text);
    json_t *pieces = json_array();
    int code = draft_keep(d, pieces);
    json_array_foreach(value, i, part) {
        json_t *piece = json_object_get(part, "text");
        if (!code && !json_is_string(piece))
            code = draft_bad(d, "a part of \"content\" is no text; only texts can be learnt from");
        if (!code && json_array_append(pieces, piece))
            code = status_no_memory(d->st, 0, "a row");
    }
    return code ? code : draft_join_list(d, text, pieces, "");
}

/* A tool's call with its arguments as JSON, also when they are a text that holds it; the text stays when it does not. */
static const json_t *call_with_arguments(struct row_draft *d, const json_t *call)
{
    const json_t *arguments = json_object_get(call, "arguments");
    const char *text = json_string_value(arguments);
    if (!text)
        return call;
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL), *copy = value ? json_copy((json_t *)call) : NULL;
    if (!copy || json_object_set_new(copy, "arguments", value) != 0) {
        if (d->o->unread && !value)
            d->o->unread->bad_arguments++;
        json_decref(copy);
        return call;
    }
    return draft_keep(d, copy) ? NULL : copy;
}

/* Calls of tools are learnt as the JSON of each {"name", "arguments"}, one per line, after the content if there is one. */
static int add_tool_calls(struct row_draft *d, const json_t *calls, const char **text)
{
    size_t i;
    json_t *call;
    if (!json_is_array(calls))
        return draft_bad(d, "\"tool_calls\" is not a list");
    json_t *lines = json_array();
    int code = draft_keep(d, lines);
    if (!code && **text && json_array_append_new(lines, json_string(*text)))
        code = status_no_memory(d->st, 0, "a row");
    json_array_foreach(calls, i, call) {
        const json_t *function = json_object_get(call, "function");
        const char *line = NULL;
        const json_t *made = code ? NULL : call_with_arguments(d, function ? function : call);
        if (!code)
            code = made ? draft_dump(d, &line, made) : status_no_memory(d->st, 0, "a row");
        if (!code && json_array_append_new(lines, json_string(line)))
            code = status_no_memory(d->st, 0, "a row");
    }
    return code ? code : draft_join_list(d, text, lines, "\n");
}

/* "weight": 0, "train": false, "trainable": false, "loss": false: an answer that is only read. */
static int read_trained(struct row_draft *d, const json_t *message, bool *trained)
{
    *trained = true;
    for (int i = 0; switches[i]; i++) {
        const json_t *value = json_object_get(message, switches[i]);
        if (!value || json_is_null(value))
            continue;
        const double weight = json_is_boolean(value) ? json_is_true(value) : json_is_number(value) ? json_number_value(value) : -1;
        if (weight != 0 && weight != 1)
            return draft_bad(d, "\"%s\" of a message is neither 0 nor 1 nor true nor false; shares are not known, a source has a weight", switches[i]);
        *trained = *trained && weight == 1;
    }
    return PLM_OK;
}

static void note_unread(struct row_unread *u, const char *name)
{
    int i = 0;
    while (i < u->n_keys && strncmp(u->keys[i].name, name, sizeof u->keys[i].name - 1) != 0)
        i++;
    if (i == ROW_UNREAD_KEYS) {
        u->others++;
        return;
    }
    if (i == u->n_keys) {
        const size_t n = strlen(name), most = sizeof u->keys[i].name - 1;
        memcpy(u->keys[i].name, name, n < most ? n : most); /* the rest is zero */
        u->n_keys++;
    }
    u->keys[i].n++;
}

void row_unread_describe(const struct row_unread *u, char *out, size_t size)
{
    size_t at = 0;
    *out = 0;
    for (int i = 0; i < u->n_keys && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s (%lld)", i ? ", " : "", u->keys[i].name, (long long)u->keys[i].n);
    if (u->others && at < size)
        snprintf(out + at, size - at, ", others (%lld)", (long long)u->others);
}

/* Count the keys of a message that mean nothing here. */
static void count_unread(struct row_draft *d, const json_t *message)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)message, key, value) {
        bool known = !strcmp(key, "tool_calls") || json_is_null(value);
        for (int i = 0; switches[i]; i++)
            known |= !strcmp(key, switches[i]);
        for (int f = FIELD_ROLE; f <= FIELD_CONTENT; f++) {
            const char *found;
            draft_get_from(d, message, (enum row_field)f, &found);
            known |= found && !strcmp(key, found);
        }
        if (!known)
            note_unread(d->o->unread, key);
    }
}

static int read_message(struct row_draft *d, const json_t *message, bool target)
{
    const char *name, *text = "";
    bool trained;
    if (!json_is_object(message))
        return draft_bad(d, "expected an object with \"role\" and \"content\"");
    if (d->o->unread)
        count_unread(d, message);
    int code = expect_string(d, draft_get_from(d, message, FIELD_ROLE, NULL), draft_name(d, FIELD_ROLE), &name);
    if (code)
        return code;
    const char *role = draft_role(name);
    if (!role)
        return draft_bad(d, "unknown role \"%.64s\"; known are system, user, assistant, tool, and human, gpt, function_call, observation", name);
    const json_t *content = draft_get_from(d, message, FIELD_CONTENT, NULL), *calls = json_object_get(message, "tool_calls");
    if (content || !calls || json_is_null(calls))
        code = read_content(d, content, &text);
    if (!code && calls && !json_is_null(calls))
        code = add_tool_calls(d, calls, &text);
    if (!code)
        code = read_trained(d, message, &trained);
    return code ? code : draft_add(d, role, text, target && trained && !strcmp(role, "assistant"));
}

int draft_add_list(struct row_draft *d, const json_t *list, const char *name, bool target)
{
    size_t i;
    json_t *message;
    if (json_is_object(list))
        return read_message(d, list, target);
    if (!json_is_array(list))
        return draft_bad(d, "\"%s\" is not a list of messages", name);
    if (json_array_size(list) == 0)
        return draft_bad(d, "\"%s\" is empty", name);
    json_array_foreach(list, i, message) {
        const int code = read_message(d, message, target);
        if (code) {
            status_prefix(d->st, "message %zu of \"%s\"", i + 1, name);
            return code;
        }
    }
    return PLM_OK;
}

int draft_add_text_or_list(struct row_draft *d, const json_t *value, const char *name, const char *role, bool target)
{
    const char *text = json_string_value(value);
    if (!text && !json_is_array(value) && !json_is_object(value))
        return draft_bad(d, "\"%s\" is neither a text nor a list of messages", name);
    return text ? draft_add(d, role, text, target) : draft_add_list(d, value, name, target);
}

/* System first and once; then user and assistant in turn, tools after an assistant or each other. */
static int check_order(struct row_draft *d)
{
    const struct row *r = &d->row;
    const char *before = "the beginning";
    for (int i = 0; i < r->n_messages; i++) {
        const char *role = r->messages[i].role;
        const bool system = i > 0 && !strcmp(before, "system"), assistant = i > 0 && !strcmp(before, "assistant");
        const bool user = i > 0 && !strcmp(before, "user"), tool = i > 0 && !strcmp(before, "tool");
        const bool fits = !strcmp(role, "system") ? i == 0 : !strcmp(role, "user") ? i == 0 || system || assistant
                        : !strcmp(role, "tool") ? assistant || tool : user || tool;
        if (!fits)
            return draft_bad(d, "roles out of order: message %d is of role %s after %s; expected system once and first, then user and assistant in turn, tool after "
                       "assistant", i + 1, role, before);
        if (text_is_blank(r->messages[i].content) && strcmp(role, "system") && strcmp(role, "tool"))
            return draft_bad(d, "message %d (%s) is empty", i + 1, role);
        before = role;
    }
    return r->n_messages ? PLM_OK : draft_bad(d, "the conversation is empty");
}

/* The tools of a row are part of its system message. */
static int add_tools(struct row_draft *d)
{
    struct row *r = &d->row;
    const json_t *tools = draft_get(d, FIELD_TOOLS);
    const char *text = json_string_value(tools);
    int code = PLM_OK;
    if (!tools || json_array_size(tools) + (text && !text_is_blank(text)) == 0)
        return PLM_OK;
    if (!text)
        code = draft_dump(d, &text, tools);
    if (!code)
        code = draft_join(d, &text, "Tools that you can call, as JSON:", "\n", text);
    if (code)
        return code;
    if (r->n_messages && !strcmp(r->messages[0].role, "system")) {
        code = draft_join(d, &text, r->messages[0].content, "\n\n", text);
    } else if (!(code = draft_add(d, "system", "", false))) {
        memmove(r->messages + 1, r->messages, (size_t)(r->n_messages - 1) * sizeof *r->messages);
    }
    if (!code)
        r->messages[0] = (struct chat_message){"system", text, strlen(text), false};
    return code;
}

int draft_take_last(struct row_draft *d, const char *name, const char **content)
{
    struct row *r = &d->row;
    if (r->n_messages < 1 || strcmp(r->messages[r->n_messages - 1].role, "assistant"))
        return draft_bad(d, "\"%s\" does not end with an assistant's message", name);
    *content = r->messages[--r->n_messages].content;
    return PLM_OK;
}

int draft_finish(struct row_draft *d)
{
    const int code = add_tools(d);
    return code ? code : check_order(d);
}

int draft_finish_prompt(struct row_draft *d)
{
    struct row *r = &d->row;
    const int code = draft_finish(d);
    if (code)
        return code;
    const char *last = r->messages[r->n_messages - 1].role;
    if (strcmp(last, "user") && strcmp(last, "tool"))
        return draft_bad(d, "the prompt ends with a message of role %s; expected user", last);
    for (int i = 0; i < r->n_messages; i++)
        r->messages[i].target = false;
    return PLM_OK;
}
