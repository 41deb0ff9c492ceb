/* Answers as files: bit for bit what was written, and a clear message for what is not an answer. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "train/align/task.h"

static char path[64];

static struct answer answer_make(int64_t task, int chain, int turn, const char *text, int n)
{
    struct answer a = {.task = task, .chain = chain, .turn = turn, .text = strdup(text), .n = n};
    a.tokens = calloc((size_t)n + 1, sizeof *a.tokens);
    a.log_probs = calloc((size_t)n + 1, sizeof *a.log_probs);
    return a;
}

static void add(struct answer_set *set, struct answer a)
{
    struct plm_status st = {0};
    if (answer_set_add(set, &a, &st))
        fail_msg("%s", st.message);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "two\nlines \"quoted\" \\ \x01", "caf\xC3\xA9 \xF0\x9F\x98\x80", "<|im_end|>", " a "};
    struct answer_set set = {0}, again = {0};
    uint32_t bits = 12345;
    for (int i = 0; i < 50; i++) {
        struct answer a = answer_make(i / 5, i % 5, i % 3, texts[i % 5], i * 7 % 60);
        for (int t = 0; t < a.n; t++) {
            union {
                uint32_t u;
                float f;
            } x;
            do {
                bits = bits * 1664525u + 1013904223u;
                x.u = bits;
            } while ((x.u >> 23 & 255) == 255); /* every finite float there is */
            a.log_probs[t] = x.f;
            a.tokens[t] = (int32_t)(bits & INT32_MAX);
        }
        a.ended = i % 2;
        a.scored = i % 3 == 0;
        a.score = a.scored ? 1.0 / (i + 1) - 0.1 : 0;
        add(&set, a);
    }
    struct plm_status st = {0};
    assert_int_equal(answer_set_write(&set, 0, set.n, path, &st), PLM_OK);
    if (answer_set_read(&again, path, 10, &st))
        fail_msg("%s", st.message);
    assert_int_equal(again.n, set.n);
    for (int64_t i = 0; i < set.n; i++) {
        const struct answer *a = &set.answers[i], *b = &again.answers[i];
        assert_true(a->task == b->task && a->chain == b->chain && a->turn == b->turn && a->n == b->n && a->ended == b->ended);
        assert_true(a->scored == b->scored && a->score == b->score);
        assert_string_equal(a->text, b->text);
        assert_memory_equal(a->tokens, b->tokens, (size_t)a->n * sizeof *a->tokens);
        assert_memory_equal(a->log_probs, b->log_probs, (size_t)a->n * sizeof *a->log_probs);
    }
    /* a part, appended to what is there */
    assert_int_equal(answer_set_write(&set, 10, 5, path, &st), PLM_OK);
    assert_int_equal(answer_set_read(&again, path, 10, &st), PLM_OK);
    assert_int_equal(again.n, set.n + 5);
    assert_string_equal(again.answers[set.n].text, set.answers[10].text);
    answer_set_free(&set);
    answer_set_free(&again);
}

/* An answer cut inside a character is repaired when it is added: before and after a file it is the same text. */
static void broken_characters_are_repaired_once(void **state)
{
    (void)state;
    struct answer_set set = {0}, again = {0};
    struct plm_status st = {0};
    add(&set, answer_make(0, 0, 0, "cut \xF0\x9F\x98", 1));
    assert_string_equal(set.answers[0].text, "cut \xEF\xBF\xBD");
    assert_int_equal(answer_set_write(&set, 0, 1, path, &st), PLM_OK);
    assert_int_equal(answer_set_read(&again, path, 1, &st), PLM_OK);
    assert_string_equal(again.answers[0].text, set.answers[0].text);
    answer_set_free(&set);
    answer_set_free(&again);
}

static void numbers_that_json_has_not_are_refused(void **state)
{
    (void)state;
    struct answer_set set = {0};
    struct plm_status st = {0};
    add(&set, answer_make(3, 0, 0, "x", 1));
    set.answers[0].log_probs[0] = -(float)HUGE_VAL;
    assert_int_equal(answer_set_write(&set, 0, 1, path, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "task 3"));
    set.answers[0].log_probs[0] = 0;
    set.answers[0].scored = true;
    set.answers[0].score = NAN;
    assert_int_equal(answer_set_write(&set, 0, 1, path, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "score"));
    answer_set_free(&set);
}

static void bad_rows_are_named(void **state)
{
    (void)state;
    static const char good[] = "{\"task\": 0, \"chain\": 0, \"turn\": 0, \"text\": \"a\", \"tokens\": [1], \"log_probs\": [-1], \"ended\": true}";
    static const struct {
        const char *row, *message;
    } cases[] = {
        {"{", ":2: not JSON"}, {"[]", ":2: expected a JSON object"}, {"{}", ":2: \"task\" is missing"},
        {"{\"task\": 5, \"chain\": 0, \"turn\": 0, \"text\": \"a\", \"tokens\": [], \"log_probs\": [], \"ended\": true}", ":2: \"task\" is 5, expected a task from 0 to 4"},
        {"{\"task\": 0, \"chain\": -1, \"turn\": 0, \"text\": \"a\", \"tokens\": [], \"log_probs\": [], \"ended\": true}", ":2: \"chain\" is -1"},
        {"{\"task\": 0, \"chain\": 0, \"turn\": 1.5, \"text\": \"a\", \"tokens\": [], \"log_probs\": [], \"ended\": true}", ":2: \"turn\" is 1.5"},
        {"{\"task\": 0, \"chain\": 0, \"turn\": 0, \"text\": 7, \"tokens\": [], \"log_probs\": [], \"ended\": true}", ":2: \"text\" is 7"},
        {"{\"task\": 0, \"chain\": 0, \"turn\": 0, \"text\": \"a\", \"tokens\": [1, 2], \"log_probs\": [-1], \"ended\": true}", ":2: \"log_probs\" is [-1], expected an array as long"},
        {"{\"task\": 0, \"chain\": 0, \"turn\": 0, \"text\": \"a\", \"tokens\": [-1], \"log_probs\": [-1], \"ended\": true}", ":2: \"tokens\" is -1"},
        {"{\"task\": 0, \"chain\": 0, \"turn\": 0, \"text\": \"a\", \"tokens\": [1], \"log_probs\": [1e300], \"ended\": true}", ":2: \"log_probs\" is 1"},
        {"{\"task\": 0, \"chain\": 0, \"turn\": 0, \"text\": \"a\", \"tokens\": [1], \"log_probs\": [-1], \"ended\": 1}", ":2: \"ended\" is 1, expected true or false"},
        {"{\"task\": 0, \"chain\": 0, \"turn\": 0, \"text\": \"a\", \"tokens\": [1], \"log_probs\": [-1], \"ended\": true, \"score\": \"1\"}", ":2: \"score\" is"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FILE *f = fopen(path, "w");
        fprintf(f, "%s\n%s\n", good, cases[i].row);
        fclose(f);
        struct answer_set set = {0};
        struct plm_status st = {0};
        assert_int_equal(answer_set_read(&set, path, 5, &st), PLM_EFORMAT);
        if (!strstr(st.message, cases[i].message) || !strstr(st.message, path))
            fail_msg("%s: expected '%s', got '%s'", cases[i].row, cases[i].message, st.message);
        answer_set_free(&set);
    }
}

static int setup(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "test-task-%ld.jsonl", (long)getpid());
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read), cmocka_unit_test(broken_characters_are_repaired_once),
        cmocka_unit_test(numbers_that_json_has_not_are_refused), cmocka_unit_test(bad_rows_are_named),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
