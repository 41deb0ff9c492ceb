/* Rows: every format the field writes, one normal form; what is wrong with a row is said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/conversation.h"
#include "tests/data/scratch.h"

static json_t *parse(const char *text)
{
    json_error_t error;
    json_t *v = json_loads(text, 0, &error);
    if (!v)
        fail_msg("%s: %s", text, error.text);
    return v;
}

/* A row in one line: "role:content" with * for targets, then what else it has. */
static char *describe(const struct row *r)
{
    static char out[4096];
    static const char *const kinds[] = {"conversation", "text", "pair", "labelled", "task"};
    const char *const names[] = {"text", "chosen", "rejected", "completion", "answer", "tests"};
    const char *const values[] = {r->text, r->chosen, r->rejected, r->completion, r->answer, r->tests};
    size_t n = (size_t)snprintf(out, sizeof out, "%s", kinds[r->kind]);
    for (int i = 0; i < r->n_messages; i++) {
        assert_int_equal(strlen(r->messages[i].content), r->messages[i].content_bytes);
        n += (size_t)snprintf(out + n, sizeof out - n, "|%s%s:%s", r->messages[i].target ? "*" : "", r->messages[i].role, r->messages[i].content);
    }
    for (int i = 0; i < 6; i++)
        if (values[i])
            n += (size_t)snprintf(out + n, sizeof out - n, "|%s=%s", names[i], values[i]);
    if (r->kind == ROW_LABELLED)
        n += (size_t)snprintf(out + n, sizeof out - n, "|%s", r->desirable ? "good" : "bad");
    if (r->has_id)
        snprintf(out + n, sizeof out - n, "|id=%lld", (long long)r->id);
    return out;
}

struct example {
    enum row_kind wanted;
    const char *row, *expected;
};

/* expected: the row, or what the error says. */
static void check(const struct example *cases, size_t n, const struct row_options *base, int expected_code)
{
    for (size_t i = 0; i < n; i++) {
        struct row_options o = *base;
        struct plm_status st = {0};
        struct row row;
        json_t *object = parse(cases[i].row);
        o.wanted = cases[i].wanted;
        const int code = row_read(&row, object, &o, &st);
        json_decref(object); /* a row has its own copies */
        if (code != expected_code)
            fail_msg("%s: code %d, %s", cases[i].row, code, st.message);
        if (!code)
            assert_string_equal(describe(&row), cases[i].expected);
        else if (!strstr(st.message, cases[i].expected))
            fail_msg("%s: \"%s\" is not in \"%s\"", cases[i].row, cases[i].expected, st.message);
        row_free(&row);
        assert_null(row.memory);
    }
}
#define CHECK(cases, base, code) check(cases, sizeof(cases) / sizeof *(cases), base, code)

#define U(text) "{\"role\": \"user\", \"content\": \"" text "\"}"
#define A(text) "{\"role\": \"assistant\", \"content\": \"" text "\"}"
#define S(text) "{\"role\": \"system\", \"content\": \"" text "\"}"
#define T(text) "{\"role\": \"tool\", \"content\": \"" text "\"}"

static void test_conversations(void **state)
{
    (void)state;
    static const struct example cases[] = {
        {ROW_CONVERSATION, "{\"messages\": [" U("q") "," A("a") "," U("r") "," A("b") "], \"id\": 7}", "conversation|user:q|*assistant:a|user:r|*assistant:b|id=7"},
        {ROW_CONVERSATION, "{\"messages\": [" S("s") "," U("q") "," A("a") "," T("t") "," T("v") "," A("b") "," U("r") "]}",
         "conversation|system:s|user:q|*assistant:a|tool:t|tool:v|*assistant:b|user:r"},
        {ROW_CONVERSATION, "{\"messages\": [" U("q") ", {\"role\": \"assistant\", \"content\": \"a\", \"weight\": 0}," U("r") ", {\"role\": \"assistant\", \"content\": "
         "\"b\", \"train\": true}]}", "conversation|user:q|assistant:a|user:r|*assistant:b"},
        {ROW_CONVERSATION, "{\"conversations\": [{\"from\": \"system\", \"value\": \"s\"}, {\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"function_call\", \"value\": "
         "\"{}\"}, {\"from\": \"observation\", \"value\": \"t\"}, {\"from\": \"gpt\", \"value\": \"a\"}]}",
         "conversation|system:s|user:q|*assistant:{}|tool:t|*assistant:a"},
        {ROW_CONVERSATION, "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": \"a\"}], \"tools\": \"[{}]\", \"system\": \"s\"}",
         "conversation|system:s\n\nTools that you can call, as JSON:\n[{}]|user:q|*assistant:a"},
        {ROW_CONVERSATION, "{\"messages\": [" U("q") ", {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"1\", \"type\": \"function\", \"function\": "
         "{\"name\": \"f\", \"arguments\": \"{}\"}}, {\"name\": \"g\"}]}], \"tools\": [{\"name\": \"f\"}]}",
         "conversation|system:Tools that you can call, as JSON:\n[{\"name\":\"f\"}]|user:q|*assistant:{\"name\":\"f\",\"arguments\":{}}\n{\"name\":\"g\"}"},
        /* arguments as a text of JSON or as JSON are one; a text that is none stays one */
        {ROW_CONVERSATION, "{\"messages\": [" U("q") ", {\"role\": \"assistant\", \"tool_calls\": [{\"name\": \"f\", \"arguments\": \"{\\\"b\\\": [1, 0.5], \\\"a\\\": null}\"}, "
         "{\"name\": \"f\", \"arguments\": {\"b\": [1, 0.5], \"a\": null}}, {\"name\": \"f\", \"arguments\": \"{b}\"}]}]}",
         "conversation|user:q|*assistant:{\"name\":\"f\",\"arguments\":{\"b\":[1,0.5],\"a\":null}}\n{\"name\":\"f\",\"arguments\":{\"b\":[1,0.5],\"a\":null}}\n"
         "{\"name\":\"f\",\"arguments\":\"{b}\"}"},
        {ROW_CONVERSATION, "{\"messages\": [" U("q") ", {\"role\": \"assistant\", \"content\": \"a\", \"trainable\": false}, " U("r") ", " A("b") "]}",
         "conversation|user:q|assistant:a|user:r|*assistant:b"},
        {ROW_CONVERSATION, "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"q\"}, {\"type\": \"text\", \"text\": \"r\"}]}," A("a") "]}",
         "conversation|user:qr|*assistant:a"},
        {ROW_CONVERSATION, "{\"prompt\": \"q\", \"completion\": \"a\"}", "conversation|user:q|*assistant:a"},
        {ROW_CONVERSATION, "{\"prompt\": [" U("q") "," A("a") "," U("r") "], \"completion\": [" A("b") "]}", "conversation|user:q|assistant:a|user:r|*assistant:b"},
        {ROW_CONVERSATION, "{\"prompt\": \"q\", \"response\": \"a\", \"label\": true}", "conversation|user:q|*assistant:a"},
        {ROW_CONVERSATION, "{\"instruction\": \"q\", \"input\": \"i\", \"output\": \"a\", \"answer\": 3}", "conversation|user:q\n\ni|*assistant:a|answer=3"},
        {ROW_CONVERSATION, "{\"instruction\": \"q\", \"input\": \"\", \"output\": \"a\", \"system\": \"s\", \"history\": [[\"x\", \"y\"]]}",
         "conversation|system:s|user:x|assistant:y|user:q|*assistant:a"},
        {ROW_CONVERSATION, "{\"question\": \"q\", \"answer\": \"w\\n#### 4\"}", "conversation|user:q|*assistant:w\n#### 4|answer=w\n#### 4"},
        {ROW_CONVERSATION, "{\"problem\": \"q\", \"solution\": \"s\", \"answer\": \"4\"}", "conversation|user:q|*assistant:s|answer=4"},
        {ROW_CONVERSATION, "{\"id\": \"seed\", \"instruction\": \"q\", \"instances\": [{\"input\": \"i\", \"output\": \"a\"}]}", "conversation|user:q\n\ni|*assistant:a"},
        {ROW_CONVERSATION, "{\"text\": \"t\"}", "text|text=t"},
        {ROW_TEXT, "{\"text\": \"t\", \"prompt\": \"p\"}", "text|text=t"},
        {ROW_CONVERSATION, "{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\"}", "conversation|user:q|*assistant:a"},
    };
    CHECK(cases, &(struct row_options){0}, PLM_OK);
    static const struct example last[] = {
        {ROW_CONVERSATION, "{\"messages\": [" U("q") "," A("a") "," U("r") "," A("b") "," U("s") "]}", "conversation|user:q|assistant:a|user:r|*assistant:b|user:s"},
        {ROW_CONVERSATION, "{\"messages\": [" U("q") "," A("a") "," U("r") ", {\"role\": \"assistant\", \"content\": \"b\", \"train\": false}]}",
         "conversation|user:q|assistant:a|user:r|assistant:b"},
    };
    CHECK(last, (&(struct row_options){.last_turn_only = true}), PLM_OK);
}

static void test_pairs(void **state)
{
    (void)state;
    static const struct example cases[] = {
        {ROW_PAIR, "{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\", \"id\": 3}", "pair|user:q|chosen=a|rejected=b|id=3"},
        {ROW_PAIR, "{\"prompt\": [" S("s") "," U("q") "], \"chosen\": [" A("a") "], \"rejected\": " A("b") "}", "pair|system:s|user:q|chosen=a|rejected=b"},
        {ROW_PAIR, "{\"chosen\": [" U("q") "," A("x") "," U("r") "," A("a") "], \"rejected\": [" U("q") "," A("x") "," U("r") "," A("b") "]}",
         "pair|user:q|assistant:x|user:r|chosen=a|rejected=b"},
        {ROW_PAIR, "{\"prompt\": \"q\", \"messages\": [" U("q") "," A("a") "], \"chosen\": [" U("q") "," A("a") "], \"rejected\": [" U("q") "," A("b") "]}",
         "pair|user:q|chosen=a|rejected=b"},
        {ROW_PAIR, "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}], \"chosen\": {\"from\": \"gpt\", \"value\": \"a\"}, \"rejected\": {\"from\": \"gpt\", "
         "\"value\": \"b\"}}", "pair|user:q|chosen=a|rejected=b"},
        {ROW_PAIR, "{\"input\": \"q\", \"output_1\": \"a\", \"output_2\": \"b\", \"label\": 2}", "pair|user:q|chosen=b|rejected=a"},
        {ROW_PAIR, "{\"instruction\": \"q\", \"input\": \"i\", \"response1\": \"a\", \"response2\": \"b\", \"annotator1\": 1, \"annotator2\": 0, \"annotator3\": 1}",
         "pair|user:q\n\ni|chosen=a|rejected=b"},
        {ROW_PAIR, "{\"chosen\": \"\\n\\nHuman: q\\n\\nAssistant: x\\n\\nHuman: r\\n\\nAssistant: a\", \"rejected\": \"\\n\\nHuman: q\\n\\nAssistant: x\\n\\nHuman: r\\n\\n"
         "Assistant: b\"}", "pair|user:q|assistant:x|user:r|chosen=a|rejected=b"},
        {ROW_LABELLED, "{\"prompt\": \"q\", \"completion\": \"a\", \"label\": true}", "labelled|user:q|completion=a|good"},
        {ROW_LABELLED, "{\"prompt\": [" U("q") "], \"completion\": [" A("a") "], \"label\": 0}", "labelled|user:q|completion=a|bad"},
        {ROW_LABELLED, "{\"messages\": [" U("q") "," A("x") "," U("r") "," A("a") "], \"label\": 1}", "labelled|user:q|assistant:x|user:r|completion=a|good"},
    };
    CHECK(cases, &(struct row_options){0}, PLM_OK);
    static const struct example bad[] = {
        {ROW_PAIR, "{\"prompt\": \"q\", \"chosen\": \"a\"}", "\"rejected\" is missing"},
        {ROW_PAIR, "{\"prompt\": \"q\", \"completion\": \"a\"}", "expected a pair"},
        {ROW_PAIR, "{\"chosen\": \"a\", \"rejected\": \"b\"}", "\"prompt\" is missing"},
        {ROW_PAIR, "{\"prompt\": \"q\", \"chosen\": \" a\", \"rejected\": \"a\\n\"}", "the chosen answer equals the rejected one"},
        {ROW_PAIR, "{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \" \"}", "the rejected answer is empty"},
        {ROW_PAIR, "{\"prompt\": \"q\", \"chosen\": \"\", \"rejected\": \"b\"}", "the chosen answer is empty"},
        {ROW_PAIR, "{\"prompt\": \"\", \"chosen\": \"a\", \"rejected\": \"b\"}", "message 1 (user) is empty"},
        {ROW_PAIR, "{\"prompt\": [" U("q") "," A("x") "], \"chosen\": \"a\", \"rejected\": \"b\"}", "the prompt ends with a message of role assistant"},
        {ROW_PAIR, "{\"prompt\": \"q\", \"chosen\": [" A("a") "," U("r") "], \"rejected\": \"b\"}", "\"chosen\" has 2 messages"},
        {ROW_PAIR, "{\"prompt\": \"q\", \"chosen\": [" A("a") "], \"rejected\": [" U("b") "]}", "\"rejected\" does not end with an assistant"},
        {ROW_PAIR, "{\"chosen\": [" U("q") "," A("a") "], \"rejected\": [" U("r") "," A("b") "]}", "differ in message 1"},
        {ROW_PAIR, "{\"chosen\": [" U("q") "," A("a") "], \"rejected\": [" U("q") "," A("x") "," U("r") "," A("b") "]}", "2 messages and \"rejected\" 4"},
        {ROW_PAIR, "{\"prompt\": \"z\", \"chosen\": [" U("q") "," A("a") "], \"rejected\": [" U("q") "," A("b") "]}", "\"prompt\" is not a message"},
        {ROW_PAIR, "{\"input\": \"q\", \"output_1\": \"a\", \"output_2\": \"b\"}", "\"label\" is missing"},
        {ROW_PAIR, "{\"input\": \"q\", \"output_1\": \"a\", \"output_2\": \"b\", \"label\": 0}", "neither 1 nor 2"},
        {ROW_PAIR, "{\"input\": \"q\", \"output_1\": \"a\", \"output_2\": \"b\", \"label\": \"1\"}", "neither 1 nor 2"},
        {ROW_PAIR, "{\"instruction\": \"q\", \"response1\": \"a\", \"response2\": \"b\", \"annotator1\": 1, \"annotator2\": 2, \"annotator3\": 0}", "do not agree"},
        {ROW_LABELLED, "{\"prompt\": \"q\", \"completion\": \"a\"}", "\"label\""},
        {ROW_LABELLED, "{\"prompt\": \"q\", \"completion\": \"a\", \"label\": 2}", "neither true nor false"},
        {ROW_LABELLED, "{\"prompt\": \"q\", \"label\": true}", "\"completion\" is missing"},
        {ROW_LABELLED, "{\"prompt\": \"q\", \"completion\": \"\", \"label\": true}", "the answer is empty"},
    };
    CHECK(bad, &(struct row_options){0}, PLM_EFORMAT);
}

static void test_tasks(void **state)
{
    (void)state;
    static const struct example cases[] = {
        {ROW_TASK, "{\"question\": \"q\", \"answer\": \"#### 4\"}", "task|user:q|answer=#### 4"},
        {ROW_TASK, "{\"prompt\": \"q\"}", "task|user:q"},
        {ROW_TASK, "{\"prompt\": \"q\", \"answer\": -2.5}", "task|user:q|answer=-2.5"},
        {ROW_TASK, "{\"instruction\": \"q\", \"input\": \"\", \"output\": \"the answer is B\", \"answer\": \"B\"}", "task|user:q|answer=B"},
        {ROW_TASK, "{\"prompt\": \"q\", \"completion\": \"c\"}", "task|user:q|answer=c"},
        {ROW_TASK, "{\"messages\": [" U("q") "," A("x") "," U("r") "," A("a") "]}", "task|user:q|assistant:x|user:r|answer=a"},
        {ROW_TASK, "{\"messages\": [" S("s") "," U("q") "]}", "task|system:s|user:q"},
        {ROW_TASK, "{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\"}", "task|user:q"},
        {ROW_TASK, "{\"task_id\": \"HumanEval/0\", \"prompt\": \"def f():\", \"test\": \"def check(candidate):\\n    assert candidate() == 1\", \"entry_point\": \"f\"}",
         "task|user:def f():|tests=def check(candidate):\n    assert candidate() == 1\ncheck(f)\n"},
        {ROW_TASK, "{\"text\": \"Write f.\", \"code\": \"...\", \"test_list\": [\"assert f(1)\", \"assert f(2)\"], \"test_setup_code\": \"import m\"}",
         "task|user:Write f.\n\nassert f(1)\nassert f(2)|tests=import m\nassert f(1)\nassert f(2)"},
        {ROW_TASK, "{\"prompt\": \"Write f.\", \"test_imports\": [], \"test_list\": [\"assert f(1)\"]}", "task|user:Write f.|tests=assert f(1)"},
    };
    CHECK(cases, &(struct row_options){0}, PLM_OK);
    static const struct example bad[] = {
        {ROW_TASK, "{\"answer\": \"q\"}", "expected a prompt"},
        {ROW_TASK, "{\"question\": \"q\", \"answer\": \" \"}", "the answer is empty"},
        {ROW_TASK, "{\"question\": \"q\", \"answer\": [1]}", "\"answer\" is neither a text nor a number"},
        {ROW_TASK, "{\"question\": \"q\", \"tests\": [1]}", "\"tests\" is not a list of texts"},
        {ROW_TASK, "{\"question\": \"q\", \"tests\": 1}", "\"tests\" is neither"},
    };
    CHECK(bad, &(struct row_options){0}, PLM_EFORMAT);
}

static void test_bad_conversations(void **state)
{
    (void)state;
    static const struct example cases[] = {
        {ROW_CONVERSATION, "{}", "the row has no fields"},
        {ROW_CONVERSATION, "{\"foo\": 1, \"bar\": 2}", "the row has foo, bar"},
        {ROW_CONVERSATION, "{\"messages\": []}", "\"messages\" is empty"},
        {ROW_CONVERSATION, "{\"messages\": \"x\"}", "\"messages\" is not a list"},
        {ROW_CONVERSATION, "{\"messages\": [1]}", "message 1 of \"messages\": expected an object"},
        {ROW_CONVERSATION, "{\"messages\": [" U("q") ", {\"content\": \"a\"}]}", "message 2 of \"messages\": \"role\" is missing"},
        {ROW_CONVERSATION, "{\"messages\": [{\"role\": \"user\"}]}", "\"content\" is missing"},
        {ROW_CONVERSATION, "{\"messages\": [{\"role\": \"user\", \"content\": 3}]}", "\"content\" is not a string"},
        {ROW_CONVERSATION, "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\"}]}]}", "is no text"},
        {ROW_CONVERSATION, "{\"messages\": [{\"role\": \"narrator\", \"content\": \"x\"}]}", "unknown role \"narrator\""},
        {ROW_CONVERSATION, "{\"messages\": [" U("q") ", {\"role\": \"assistant\", \"content\": \"a\", \"weight\": 0.5}]}", "\"weight\" of a message"},
        {ROW_CONVERSATION, "{\"messages\": [" U("q") "," U("r") "]}", "roles out of order: message 2 is of role user after user"},
        {ROW_CONVERSATION, "{\"messages\": [" A("a") "," U("q") "]}", "message 1 is of role assistant after the beginning"},
        {ROW_CONVERSATION, "{\"messages\": [" U("q") "," S("s") "]}", "message 2 is of role system"},
        {ROW_CONVERSATION, "{\"messages\": [" S("s") "," S("s") "]}", "message 2 is of role system"},
        {ROW_CONVERSATION, "{\"messages\": [" S("s") "," A("a") "]}", "message 2 is of role assistant after system"},
        {ROW_CONVERSATION, "{\"messages\": [" U("q") "," T("t") "]}", "message 2 is of role tool after user"},
        {ROW_CONVERSATION, "{\"messages\": [" U("q") "," A("a") "," T("t") "," U("r") "]}", "message 4 is of role user after tool"},
        {ROW_CONVERSATION, "{\"messages\": [" U("q") "," A("\\n ") "]}", "message 2 (assistant) is empty"},
        {ROW_CONVERSATION, "{\"prompt\": \"q\"}", "expected an answer after the prompt"},
        {ROW_CONVERSATION, "{\"prompt\": \"q\", \"completion\": 4}", "\"completion\" is neither a text nor a list"},
        {ROW_CONVERSATION, "{\"prompt\": \"q\", \"completion\": \"\"}", "message 2 (assistant) is empty"},
        {ROW_CONVERSATION, "{\"prompt\": \"q\", \"completion\": \"a\", \"label\": false}", "not to be learnt"},
        {ROW_CONVERSATION, "{\"prompt\": {\"text\": \"q\"}, \"completion\": \"a\"}", "a tree of messages"},
        {ROW_CONVERSATION, "{\"instruction\": \"q\", \"history\": [[\"x\"]], \"output\": \"a\"}", "\"history\" is not"},
        {ROW_CONVERSATION, "{\"instruction\": \"q\", \"history\": 3, \"output\": \"a\"}", "\"history\" is not"},
        {ROW_CONVERSATION, "{\"instruction\": \"q\", \"instances\": [], \"output\": \"a\"}", "\"instances\" has 0"},
        {ROW_CONVERSATION, "{\"text\": \"\"}", "\"text\" is empty"},
        {ROW_CONVERSATION, "{\"text\": 3}", "\"text\" is not a string"},
        {ROW_TEXT, "{\"prompt\": \"q\", \"completion\": \"a\"}", "expected a text"},
    };
    CHECK(cases, &(struct row_options){0}, PLM_EFORMAT);
}

static void test_fields(void **state)
{
    (void)state;
    static const struct example cases[] = {
        {ROW_PAIR, "{\"decoded\": \"b\", \"text\": \"a\", \"instruction\": \"q\", \"prompt\": \"other\", \"id\": 0}", "pair|user:q|chosen=a|rejected=b|id=0"},
        {ROW_TASK, "{\"decoded\": \"b\", \"text\": \"a\", \"instruction\": \"q\"}", "task|user:q"},
    };
    static const struct example bad[] = {{ROW_PAIR, "{\"rejected\": \"b\", \"text\": \"a\", \"instruction\": \"q\"}", "\"decoded\" is missing"}};
    json_t *fields = parse("{\"prompt\": \"instruction\", \"chosen\": \"text\", \"rejected\": \"decoded\"}");
    CHECK(cases, (&(struct row_options){.fields = fields}), PLM_OK);
    CHECK(bad, (&(struct row_options){.fields = fields}), PLM_EFORMAT);
    json_decref(fields);
    static const struct example message[] = {{ROW_CONVERSATION, "{\"dialogue\": [{\"speaker\": \"human\", \"says\": \"q\"}, {\"speaker\": \"bot\", \"says\": \"a\"}]}",
                                              "conversation|user:q|*assistant:a"}};
    fields = parse("{\"messages\": \"dialogue\", \"role\": \"speaker\", \"content\": \"says\"}");
    CHECK(message, (&(struct row_options){.fields = fields}), PLM_OK);
    json_decref(fields);
    static const char *const wrong[][2] = {{"{\"promt\": \"x\"}", "renames \"promt\""}, {"{\"prompt\": 3}", "\"prompt\" is not a string"}, {"[]", "not an object"}};
    for (size_t i = 0; i < 3; i++) {
        struct plm_status st = {0};
        fields = parse(wrong[i][0]);
        assert_int_equal(row_fields_check(fields, &st), PLM_EINVAL);
        assert_non_null(strstr(st.message, wrong[i][1]));
        CHECK(((struct example[]){{ROW_PAIR, "{\"prompt\": \"q\"}", wrong[i][1]}}), (&(struct row_options){.fields = fields}), PLM_EINVAL);
        json_decref(fields);
    }
}

static void test_row_set(void **state)
{
    static const char text[] = "{\"prompt\": \"p1\", \"completion\": \"c1\"}\n{\"prompt\": \"p2\"\n\n{\"prompt\": \"p4\"}\n{\"prompt\": \"p5\", \"completion\": \"c5\"}\n";
    const char *path = scratch_path(state, "rows.jsonl");
    const struct row_options o = {.wanted = ROW_CONVERSATION};
    struct row_set set = {0};
    struct plm_status st = {0};
    write_file(path, text, sizeof text - 1);
    assert_int_equal(row_set_read(&set, path, &o, false, &st), PLM_EFORMAT);
    assert_non_null(strstr(st.message, "rows.jsonl:2: not JSON"));
    row_set_free(&set);
    assert_int_equal(row_set_read(&set, path, &o, true, &st), PLM_OK);
    assert_int_equal(row_set_read(&set, path, &o, true, NULL), PLM_OK); /* appended */
    assert_int_equal(set.n, 4);
    assert_int_equal(set.bad, 4);
    assert_int_equal(set.rows[1].line, 5);
    assert_string_equal(set.rows[3].messages[1].content, "c5");
    assert_non_null(strstr(set.first_bad, "rows.jsonl:2: not JSON"));
    row_set_free(&set);
    /* a bad row alone; nothing; damage that a reader cannot pass over */
    static const struct {
        const char *name, *text, *message;
        bool skip;
    } cases[] = {
        {"a.jsonl", "{\"prompt\": \"p1\", \"completion\": \"c1\"}\n\n{\"prompt\": \"p4\"}\n", "a.jsonl:3: expected an answer", false},
        {"a.jsonl", "{}\n{}\n", "all 2 rows of", true},
        {"a.jsonl", "\n", "has no rows", false},
        {"a.json", "[]", "has no rows", true},
        {"a.json", "[{\"prompt\": \"p1\", \"completion\": \"c1\"},\n{", "a.json:2: the array ends", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        path = scratch_path(state, cases[i].name);
        write_file(path, cases[i].text, strlen(cases[i].text));
        assert_int_equal(row_set_read(&set, path, &o, cases[i].skip, &st), PLM_EFORMAT);
        if (!strstr(st.message, cases[i].message))
            fail_msg("case %zu: %s", i, st.message);
        row_set_free(&set);
    }
    assert_int_equal(row_set_read(&set, scratch_path(state, "none"), &o, true, &st), PLM_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversations), cmocka_unit_test(test_pairs), cmocka_unit_test(test_tasks), cmocka_unit_test(test_bad_conversations),
        cmocka_unit_test(test_fields), cmocka_unit_test_setup_teardown(test_row_set, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
