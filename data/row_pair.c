#include "data/row_draft.h"

#include <string.h>

/* The transcripts of HH-RLHF, "\n\nHuman: ...\n\nAssistant: ...", as a list of messages. */
static int read_transcript(struct row_draft *d, const char *text, const json_t **list)
{
    static const char human[] = "\n\nHuman:", assistant[] = "\n\nAssistant:";
    json_t *messages = json_array();
    int code = draft_keep(d, messages);
    *list = messages;
    for (const char *at = text; !code && at;) {
        const bool user = !strncmp(at, human, sizeof human - 1);
        at += (user ? sizeof human : sizeof assistant) - 1;
        at += *at == ' ';
        const char *a = strstr(at, human), *b = strstr(at, assistant), *end = !a || (b && b < a) ? b : a;
        json_t *message = json_pack("{s:s, s:s%}", "role", user ? "user" : "assistant", "content", at, end ? (size_t)(end - at) : strlen(at));
        if (!message || json_array_append_new(messages, message))
            code = status_no_memory(d->st, 0, "a row");
        at = end;
    }
    return code;
}

static bool is_transcript(const json_t *value)
{
    return json_is_string(value) && !strncmp(json_string_value(value), "\n\nHuman:", 8);
}

/* Both lists begin with the same messages and end with one answer each. */
static int read_two_conversations(struct row_draft *d, const json_t *chosen, const json_t *rejected)
{
    struct row *r = &d->row;
    int code = draft_add_list(d, chosen, "chosen", false);
    const int n = r->n_messages;
    if (!code)
        code = draft_add_list(d, rejected, "rejected", false);
    if (!code)
        code = draft_take_last(d, "rejected", &r->rejected);
    const int m = r->n_messages - n;
    if (!code && m != n - 1)
        code = draft_bad(d, "\"chosen\" has %d messages and \"rejected\" %d; expected the same conversation up to the last answer", n, m + 1);
    for (int i = 0; i < m && !code; i++)
        if (strcmp(r->messages[i].role, r->messages[n + i].role) || strcmp(r->messages[i].content, r->messages[n + i].content))
            code = draft_bad(d, "\"chosen\" and \"rejected\" differ in message %d; expected the same conversation up to the last answer", i + 1);
    const char *prompt = json_string_value(draft_get(d, FIELD_PROMPT));
    bool found = !prompt;
    for (int i = 0; i < m && !found; i++)
        found = !strcmp(prompt, r->messages[i].content);
    if (!code && !found)
        code = draft_bad(d, "\"prompt\" is not a message that \"chosen\" and \"rejected\" share");
    if (code)
        return code;
    r->n_messages = n;
    return draft_take_last(d, "chosen", &r->chosen);
}

static int read_answer_text(struct row_draft *d, const json_t *value, const char *name, const char **text)
{
    const int before = d->row.n_messages;
    int code = draft_add_text_or_list(d, value, name, "assistant", false);
    if (!code && d->row.n_messages != before + 1)
        code = draft_bad(d, "\"%s\" has %d messages; expected one answer", name, d->row.n_messages - before);
    return code ? code : draft_take_last(d, name, text);
}

/* 1 or 2 from "label", or what most annotators say. */
static int read_preferred(struct row_draft *d, int *preferred)
{
    const json_t *label = draft_get(d, FIELD_LABEL);
    int votes[3] = {0}, n = 0;
    char key[] = "annotator1";
    for (; !label && key[9] <= '9'; key[9]++) {
        const json_t *vote = json_object_get(d->object, key);
        if (vote) {
            n++;
            votes[json_is_integer(vote) && json_integer_value(vote) > 0 && json_integer_value(vote) < 3 ? json_integer_value(vote) : 0]++;
        }
    }
    *preferred = json_is_integer(label) && (json_integer_value(label) == 1 || json_integer_value(label) == 2) ? (int)json_integer_value(label)
               : 2 * votes[1] > n ? 1 : 2 * votes[2] > n ? 2 : 0;
    if (*preferred)
        return PLM_OK;
    if (n)
        return draft_bad(d, "most of the %d annotators do not agree on one of the two answers", n);
    return draft_bad(d, label ? "\"label\" is neither 1 nor 2: it does not say which answer is better" : "\"label\" is missing: 1 or 2, the better answer");
}

/* Equal but for white space around them. */
static bool equal_texts(const char *a, const char *b)
{
    static const char space[] = " \t\r\n\f\v";
    a += strspn(a, space);
    b += strspn(b, space);
    size_t i = 0;
    while (a[i] && a[i] == b[i])
        i++;
    return text_is_blank(a + i) && text_is_blank(b + i);
}

bool draft_has_pair(const struct row_draft *d)
{
    return draft_get(d, FIELD_CHOSEN) || draft_get(d, FIELD_REJECTED) || (draft_get(d, FIELD_FIRST) && draft_get(d, FIELD_SECOND));
}

int draft_read_pair(struct row_draft *d)
{
    struct row *r = &d->row;
    const char *names_of[2] = {"chosen", "rejected"}, *list_name;
    const json_t *answers[2] = {draft_get(d, FIELD_CHOSEN), draft_get(d, FIELD_REJECTED)}, *list = draft_get_from(d, d->object, FIELD_MESSAGES, &list_name);
    bool there = false;
    int code = PLM_OK;
    if (!answers[0] && !answers[1] && draft_get(d, FIELD_FIRST) && draft_get(d, FIELD_SECOND)) {
        int preferred = 1;
        code = read_preferred(d, &preferred);
        answers[0] = draft_get_from(d, d->object, preferred == 1 ? FIELD_FIRST : FIELD_SECOND, &names_of[0]);
        answers[1] = draft_get_from(d, d->object, preferred == 1 ? FIELD_SECOND : FIELD_FIRST, &names_of[1]);
    }
    if (!code && (!answers[0] || !answers[1]))
        code = draft_bad(d, "\"%s\" is missing; a pair has \"prompt\", \"chosen\" and \"rejected\", or \"output_1\", \"output_2\" and \"label\"",
                         draft_name(d, answers[0] ? FIELD_REJECTED : FIELD_CHOSEN));
    const bool transcripts = !code && !draft_get(d, FIELD_PROMPT) && is_transcript(answers[0]) && is_transcript(answers[1]);
    for (int i = 0; i < 2 && !code && transcripts; i++)
        code = read_transcript(d, json_string_value(answers[i]), &answers[i]);
    if (code)
        return code;
    const char *first = json_string_value(draft_get_from(d, json_array_get(answers[0], 0), FIELD_ROLE, NULL));
    const char *role = first ? draft_role(first) : NULL;
    if (role && strcmp(role, "assistant") && json_is_array(answers[1])) {
        code = read_two_conversations(d, answers[0], answers[1]);
    } else {
        code = draft_read_prompt(d, &there);
        if (!code && !there && list)
            code = draft_read_list(d, list, list_name);
        else if (!code && !there)
            code = draft_bad(d, "\"prompt\" is missing; without it \"chosen\" and \"rejected\" must be whole conversations");
        if (!code)
            code = read_answer_text(d, answers[0], names_of[0], &r->chosen);
        if (!code)
            code = read_answer_text(d, answers[1], names_of[1], &r->rejected);
    }
    if (!code)
        code = draft_finish_prompt(d);
    if (!code && (text_is_blank(r->chosen) || text_is_blank(r->rejected)))
        code = draft_bad(d, "the %s answer is empty", text_is_blank(r->chosen) ? "chosen" : "rejected");
    if (!code && equal_texts(r->chosen, r->rejected))
        code = draft_bad(d, "the chosen answer equals the rejected one");
    r->kind = ROW_PAIR;
    return code;
}
