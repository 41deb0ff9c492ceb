#include "data/row_draft.h"

#include <string.h>

/* [[question, answer], ...] of earlier turns (Alpaca). */
static int read_history(struct row_draft *d)
{
    size_t i;
    json_t *turn;
    const json_t *history = draft_get(d, FIELD_HISTORY);
    json_array_foreach(history, i, turn) {
        const char *question = json_string_value(json_array_get(turn, 0)), *answer = json_string_value(json_array_get(turn, 1));
        if (!question || !answer || json_array_size(turn) != 2)
            return draft_bad(d, "\"history\" is not a list of [question, answer]");
        int code = draft_add(d, "user", question, false);
        if (!code)
            code = draft_add(d, "assistant", answer, false);
        if (code)
            return code;
    }
    return history && !json_is_array(history) ? draft_bad(d, "\"history\" is not a list of [question, answer]") : PLM_OK;
}

/* The one input and output of a self-instruct row stand for "input" and "output". */
static int read_instance(struct row_draft *d, const json_t **input)
{
    const json_t *instances = draft_get(d, FIELD_INSTANCES);
    if (!instances)
        return PLM_OK;
    if (json_array_size(instances) != 1)
        return draft_bad(d, "\"instances\" has %zu entries; expected one: write a row for each", json_array_size(instances));
    *input = draft_get_from(d, json_array_get(instances, 0), FIELD_INPUT, NULL);
    return PLM_OK;
}

/* A text, or a list of texts as lines. */
static int read_lines(struct row_draft *d, const json_t *value, const char *name, const char **text)
{
    size_t i;
    json_t *line;
    *text = json_string_value(value);
    if (*text)
        return PLM_OK;
    json_array_foreach(value, i, line)
        if (!json_is_string(line))
            return draft_bad(d, "\"%s\" is not a list of texts", name);
    return json_is_array(value) ? draft_join_list(d, text, value, "\n") : draft_bad(d, "\"%s\" is neither a text nor a list of texts", name);
}

/* MBPP: the tests name the function that is asked for, so that they are part of the prompt. */
static int read_described_task(struct row_draft *d, bool *there)
{
    const char *text, *tests;
    const json_t *list = json_object_get(d->object, "test_list");
    *there = json_is_array(list) && !draft_get(d, FIELD_PROMPT) && draft_get(d, FIELD_TEXT);
    if (!*there)
        return PLM_OK;
    int code = draft_get_string(d, FIELD_TEXT, &text);
    if (!code)
        code = read_lines(d, list, "test_list", &tests);
    if (!code)
        code = draft_join(d, &text, text, "\n\n", tests);
    return code ? code : draft_add(d, "user", text, false);
}

int draft_read_prompt(struct row_draft *d, bool *there)
{
    const char *name, *text;
    const json_t *prompt = draft_get_from(d, d->object, FIELD_PROMPT, &name), *input = draft_get(d, FIELD_INPUT);
    int code = read_described_task(d, there);
    if (code || *there)
        return code;
    if (!prompt && input) {
        prompt = input;
        name = "input";
        input = NULL;
    }
    if (!prompt)
        return PLM_OK;
    *there = true;
    code = draft_get_string(d, FIELD_SYSTEM, &text);
    if (!code && text && *text)
        code = draft_add(d, "system", text, false);
    if (!code)
        code = read_history(d);
    if (!code)
        code = read_instance(d, &input);
    if (!code && input && !json_is_string(input))
        code = draft_bad(d, "\"input\" is not a string");
    if (!code && input && json_is_string(prompt) && *json_string_value(input)) {
        code = draft_join(d, &text, json_string_value(prompt), "\n\n", json_string_value(input));
        return code ? code : draft_add(d, "user", text, false);
    }
    if (!code && json_is_object(prompt))
        code = draft_bad(d, "\"%s\" is an object: a tree of messages is no conversation, write its branches as lists of messages", name);
    return code ? code : draft_add_text_or_list(d, prompt, name, "user", false);
}

int draft_read_list(struct row_draft *d, const json_t *list, const char *name)
{
    const char *system;
    int code = draft_get_string(d, FIELD_SYSTEM, &system);
    if (!code && system && *system)
        code = draft_add(d, "system", system, false);
    return code ? code : draft_add_list(d, list, name, true);
}

const json_t *draft_completion(const struct row_draft *d, const char **name)
{
    const json_t *value = draft_get_from(d, d->object, FIELD_COMPLETION, name);
    if (!value && draft_get(d, FIELD_INSTANCES))
        value = draft_get_from(d, json_array_get(draft_get(d, FIELD_INSTANCES), 0), FIELD_COMPLETION, name);
    return value ? value : draft_get_from(d, d->object, FIELD_ANSWER, name);
}


int draft_read_checks(struct row_draft *d)
{
    struct row *r = &d->row;
    const char *name, *setup = "", *entry;
    const json_t *answer = draft_get(d, FIELD_ANSWER), *tests = draft_get_from(d, d->object, FIELD_TESTS, &name);
    int code = PLM_OK;
    if (json_is_string(answer))
        r->answer = json_string_value(answer);
    else if (json_is_number(answer) || json_is_boolean(answer))
        code = draft_dump(d, &r->answer, answer);
    else if (answer)
        code = draft_bad(d, "\"%s\" is neither a text nor a number", draft_name(d, FIELD_ANSWER));
    if (code || !tests)
        return code;
    code = read_lines(d, tests, name, &r->tests);
    const json_t *before = draft_get_from(d, d->object, FIELD_TEST_SETUP, &name);
    if (!code && before)
        code = read_lines(d, before, name, &setup);
    if (!code && *setup)
        code = draft_join(d, &r->tests, setup, "\n", r->tests);
    if (!code)
        code = draft_get_string(d, FIELD_ENTRY_POINT, &entry);
    if (!code && entry) { /* HumanEval: the test defines check(candidate) */
        code = draft_join(d, &r->tests, r->tests, "\ncheck(", entry);
        if (!code)
            code = draft_join(d, &r->tests, r->tests, ")\n", "");
    }
    return code;
}
