/* What a row of a dataset says: a conversation to learn from, a text, a pair of answers of which one is preferred, one answer with a label,
 * or only a prompt with what its answer is checked against. All names that the field uses for these are understood:
 *
 *     {"messages": [{"role": "user", "content": "..."}, ...]}            also "weight", "train", "trainable" or "loss" per answer (0/false:
 *                                                                        not trained)
 *     {"conversations": [{"from": "human", "value": "..."}, ...]}        ShareGPT; human, gpt, system, function_call, observation, tool
 *     {"prompt": "..." or [messages], "completion": "..." or [messages]} also "response", "output"; the prompt also "query"
 *     {"instruction": "...", "input": "...", "output": "..."}            Alpaca; the input follows the instruction after a blank line; also
 *                                                                        "history": [[question, answer], ...]; self-instruct's one of "instances"
 *     {"question": "...", "answer": "..."}                               GSM8K; as a task, "answer" is what verifiers check against
 *     {"problem": "...", "solution": "...", "answer": "..."}             MATH
 *     {"text": "..."}
 *     {"prompt": ..., "chosen": ..., "rejected": ...}                    texts, or messages; without "prompt" the longest common beginning of the
 *                                                                        two lists of messages is the prompt (also of HH-RLHF's transcripts)
 *     {"input": "...", "output_1": "...", "output_2": "...", "label": 1} LLMBar, PandaLM (response1, response2; most of annotator1 ...): the label
 *                                                                        names the better one
 *     {"prompt": ..., "completion": ..., "label": true}                  unpaired (KTO): desirable or not
 *     {"prompt": "...", "test": "...", "entry_point": "f"}               HumanEval: a task with tests
 *     {"text": "...", "test_list": ["...", ...]}                         MBPP: the tests, which name the function, follow the text in the prompt
 *
 * "system" of the row is the system message, "tools" is appended to it; "tool_calls" of a message are learnt as their JSON,
 * with arguments that are a text of JSON (OpenAI's way) as that JSON. What is wanted decides what a
 * row is: as a conversation a pair gives its chosen answer, and an answer labelled false is an error; as a task a conversation gives all before its last
 * answer, which is what verifiers compare with when there is no "answer".
 *
 * `fields` renames: {"prompt": "instruction", "chosen": "text", "rejected": "decoded"} reads those names as the standard ones, and only so. */
#ifndef DATA_CONVERSATION_H
#define DATA_CONVERSATION_H

#include "data/json_rows.h"
#include "infer/text/chat_template.h"

enum row_kind { ROW_CONVERSATION, ROW_TEXT, ROW_PAIR, ROW_LABELLED, ROW_TASK };

/* All texts are NUL-terminated, owned by the row; a row is one allocation group, freed by row_free. */
struct row {
    enum row_kind kind;
    int64_t line;
    struct chat_message *messages;  /* (n_messages): the whole conversation, or the prompt (its last message is the user's) */
    int n_messages;
    const char *text;               /* ROW_TEXT */
    const char *chosen, *rejected;  /* ROW_PAIR */
    const char *completion;         /* ROW_LABELLED */
    bool desirable;
    const char *answer;             /* ROW_TASK (and others that have it): what verifiers compare with; NULL: none */
    const char *tests;              /* code that checks a program; NULL: none */
    bool has_id;
    int64_t id;                     /* "id" of the row when it is a whole number */
    void *memory;
};

/* Keys of messages that are there and not read, such as "reasoning_content" or "name", and what was changed in them. */
#define ROW_UNREAD_KEYS 12
struct row_unread {
    struct {
        char name[40];
        int64_t n;
    } keys[ROW_UNREAD_KEYS];
    int n_keys;
    int64_t others;         /* of still other names */
    int64_t bad_arguments;  /* of tool calls: texts that are no JSON, kept as texts */
};

/* "reasoning_content (12 times), name (3)" as text; empty when all was read. */
void row_unread_describe(const struct row_unread *u, char *out, size_t size);

struct row_options {
    enum row_kind wanted;           /* what the caller can use; for ROW_CONVERSATION also ROW_TEXT rows are given, as they are */
    const json_t *fields;           /* object of renamed fields, NULL: none */
    bool last_turn_only;            /* only the last assistant message is a target */
    struct row_unread *unread;      /* counts what is not read; NULL: not counted */
};

/* Read one row. PLM_EFORMAT says what is missing or wrong ("FILE:LINE: ..." is put in front by the caller): no known fields, an empty
 * conversation or answer, an unknown role, roles out of order (system first and once; then user and assistant in turn, tool messages
 * after an assistant's), chosen equal to rejected, a label that is none. */
int row_read(struct row *row, const json_t *object, const struct row_options *o, struct plm_status *st);
void row_free(struct row *row);

/* PLM_EINVAL when `fields` (NULL allowed) is no object of strings, or renames what is no field of a row: row_read says it too. */
int row_fields_check(const json_t *fields, struct plm_status *st);

/* Rows in memory, with what was left out and why. */
struct row_set {
    struct row *rows;               /* (n) */
    int64_t n, capacity;
    int64_t bad;                    /* malformed rows that were skipped (only with skip_bad), of all files */
    char first_bad[512];            /* the first one's message */
};

/* Append the rows of a file. Without skip_bad a malformed row is the error ("FILE:LINE: ..."); with it such rows are counted. A file without a row that can
 * be used is an error, as is one that cannot be read to its end. */
int row_set_read(struct row_set *set, const char *path, const struct row_options *o, bool skip_bad, struct plm_status *st);
void row_set_free(struct row_set *set);

#endif
