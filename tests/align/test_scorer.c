/* Scorers: settings, rules over many answers, scores from files, programs under test, and commands that misbehave in every way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <unistd.h>

#include "train/align/scorer.h"
#include "infer/base/clock.h"
#include "train/align/scorer_kinds.h"

enum { N = 6 };

static char path[64];
static struct chat_message prompts[N];
static struct row rows[N];
static const struct row_set tasks = {.rows = rows, .n = N, .capacity = N};
static struct answer answers[N];

/* Answer i is to task i and says `texts[i]`; its task's prompt is "prompt i". */
static void prepare(const char *const texts[N], const char *const references[N], const char *tests)
{
    static char text[N][16];
    for (int i = 0; i < N; i++) {
        snprintf(text[i], sizeof text[i], "prompt %d", i);
        prompts[i] = (struct chat_message){.role = "user", .content = text[i], .content_bytes = strlen(text[i])};
        rows[i] = (struct row){.kind = ROW_TASK, .messages = &prompts[i], .n_messages = 1, .answer = references ? references[i] : NULL, .tests = tests};
        answers[i] = (struct answer){.task = i, .chain = 1, .turn = i, .text = (char *)(uintptr_t)texts[i], .scored = true, .score = -1};
    }
}

static struct settings *settings;

static struct scorer *open_scorer(const char *config)
{
    struct plm_status st = {0};
    struct scorer *s;
    if (settings_parse(&settings, config, strlen(config), "test", &st))
        fail_msg("%s", st.message);
    struct section root = settings_root(settings);
    if (scorer_open(&s, &root, &st) || settings_finish(settings, &st))
        fail_msg("%s: %s", config, st.message);
    return s;
}

static void close_scorer(struct scorer *s)
{
    scorer_close(s);
    settings_close(settings);
}

static struct scorer_stats score(const char *config, int threads)
{
    struct scorer *s = open_scorer(config);
    struct scorer_stats stats;
    struct plm_status st = {0};
    if (scorer_score(s, &tasks, answers, N, threads, &stats, &st))
        fail_msg("%s: %s", config, st.message);
    close_scorer(s);
    int64_t scored = 0;
    for (int i = 0; i < N; i++)
        scored += answers[i].scored;
    assert_int_equal(scored, stats.scored);
    assert_int_equal(stats.scored + stats.failed, N);
    return stats;
}

static void expect_error(const char *config, const char *want)
{
    struct plm_status st = {0};
    struct scorer *s = open_scorer(config);
    struct scorer_stats stats;
    if (!scorer_score(s, &tasks, answers, N, 1, &stats, &st) || !strstr(st.message, want))
        fail_msg("%s: expected '%s', got '%s'", config, want, st.message);
    close_scorer(s);
}

static const char *const six[N] = {"#### 1", "2", "#### 3.0", "#### 4", "", "#### 6"};

static void rules_score(void **state)
{
    (void)state;
    static const char *const references[N] = {"x #### 1", "#### 2", "3", "#### 5", "#### 7", NULL};
    prepare(six, references, NULL);
    struct scorer_stats stats = score("{\"kind\": \"gsm8k\"}", 1);
    assert_true(stats.scored == 5 && stats.failed == 1 && stats.missing == 1);
    assert_string_equal(stats.first_failure, "task 5, chain 1, turn 5: the task has no \"answer\" to compare with");
    assert_true(answers[0].score == 1 && answers[1].score == 0 && answers[2].score == 1 && answers[3].score == 0 && answers[4].score == 0 && !answers[5].scored);
    score("{\"kind\": \"gsm8k\", \"flexible\": true}", 1);
    assert_true(answers[1].score == 1);
    score("{\"kind\": \"regex\", \"pattern\": \"#### [0-9]+$\"}", 1);
    assert_true(answers[0].score == 1 && answers[1].score == 0 && answers[2].score == 0 && answers[5].score == 1);
    struct scorer *s = open_scorer("{\"kind\": \"number\"}");
    char key[8];
    assert_true(scorer_extract(s, "it is 4.50", key, sizeof key) && !strcmp(key, "4.5"));
    assert_false(scorer_extract(s, "none", key, sizeof key));
    assert_false(scorer_extract(s, "12345678", key, sizeof key)); /* no room */
    assert_false(scorer_needs_model(s));
    close_scorer(s);
}

static void settings_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *config, *message;
    } cases[] = {
        {"{}", "kind"}, {"{\"kind\": \"gsm9k\", \"pattern\": \"x\"}", "kind"}, {"{\"kind\": \"regex\"}", "pattern"}, {"{\"kind\": \"regex\", \"pattern\": \"(\"}", "cannot be compiled"},
        {"{\"kind\": \"gsm8k\", \"flexibel\": true}", "flexible"}, {"{\"kind\": \"file\"}", "path"}, {"{\"kind\": \"command\"}", "command"},
        {"{\"kind\": \"command\", \"command\": []}", "expected an array of texts"}, {"{\"kind\": \"command\", \"command\": [\"x\", 1]}", "entry 1"},
        {"{\"kind\": \"command\", \"command\": 7}", "expected an array of texts"}, {"{\"kind\": \"tests\", \"timeout_s\": -1}", "timeout_s"}, {"{\"kind\": \"reward\"}", "model"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plm_status st = {0};
        struct settings *c;
        struct scorer *s;
        assert_int_equal(settings_parse(&c, cases[i].config, strlen(cases[i].config), "test", &st), PLM_OK);
        struct section root = settings_root(c);
        assert_int_equal(scorer_open(&s, &root, &st), PLM_OK);
        if (!settings_finish(c, &st) || !strstr(st.message, cases[i].message))
            fail_msg("%s: expected '%s', got '%s'", cases[i].config, cases[i].message, st.message);
        scorer_close(s);
        settings_close(c);
    }
    struct scorer *s = open_scorer("{\"kind\": \"reward\", \"model\": \"rm\"}");
    assert_true(scorer_needs_model(s));
    assert_string_equal(scorer_model(s), "rm");
    assert_string_equal(scorer_kind(s), "reward");
    close_scorer(s);
}

static void write_scores(const char *text)
{
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
}

static void files_give_scores(void **state)
{
    (void)state;
    char config[128];
    snprintf(config, sizeof config, "{\"kind\": \"file\", \"path\": \"%s\"}", path);
    prepare(six, NULL, NULL);
    write_scores("{\"task\": 3, \"chain\": 1, \"turn\": 3, \"score\": 0.25}\n{\"task\": 0, \"chain\": 1, \"turn\": 0, \"score\": -2}\n"
                 "{\"task\": 0, \"chain\": 0, \"turn\": 0, \"score\": 9}\nrubbish\n{\"task\": 1, \"score\": \"high\"}\n{\"task\": 3, \"chain\": 1, \"turn\": 3, \"score\": 0.25}\n");
    const struct scorer_stats stats = score(config, 1);
    assert_true(stats.scored == 2 && stats.missing == 4 && stats.malformed == 2);
    assert_non_null(strstr(stats.first_failure, ":4: not JSON"));
    assert_true(answers[3].score == 0.25 && answers[0].score == -2 && !answers[1].scored);
    write_scores("{\"task\": 0, \"chain\": 1, \"turn\": 0, \"score\": 1}\n{\"task\": 0, \"chain\": 1, \"turn\": 0, \"score\": 2}\n");
    expect_error(config, ":2: task 0, chain 1, turn 0 has score 2 here and 1 in an earlier line");
    write_scores("{\"task\": 0, \"chain\": 7, \"turn\": 0, \"score\": 1}\n");
    expect_error(config, "none of its 1 scores is of one of the 6 answers");
    write_scores("");
    expect_error(config, "none of its 0 scores");
    unlink(path);
    expect_error(config, path);
}

/* The shell takes the place of an interpreter: a task's tests decide by the status. */
static void programs_are_tested(void **state)
{
    (void)state;
    static const char *const texts[N] = {"f() { echo 4; }", "Here it is:\n```sh\nf() { echo 4; }\n```\nDone.", "f() { echo 5; }", "not a program (", "f() { while :; do :; done; }",
                                         "```\nold\n```\nBetter:\n```\nf() { echo 4; }"};
    prepare(texts, NULL, "test \"$(f)\" = 4");
    for (int threads = 1; threads <= 3; threads += 2) {
        const struct scorer_stats stats = score("{\"kind\": \"tests\", \"command\": [\"sh\", \"-s\"], \"timeout_s\": 0.8}", threads);
        assert_true(stats.scored == N && stats.timeouts == 1 && stats.crashes == 0);
        static const double want[N] = {1, 1, 0, 0, 0, 1};
        for (int i = 0; i < N; i++)
            if (answers[i].score != want[i])
                fail_msg("program %d: %g", i, answers[i].score);
    }
    rows[2].tests = NULL;
    const struct scorer_stats stats = score("{\"kind\": \"tests\", \"command\": \"exec sh -s\", \"timeout_s\": 0.8}", 2);
    assert_true(stats.failed == 1 && stats.missing == 1 && answers[1].score == 1);
    expect_error("{\"kind\": \"tests\", \"command\": [\"no-such-interpreter\"]}", "no-such-interpreter");
}

/* exit(0) before the tests must not pass. Python may not be there. */
static void leaving_early_does_not_pass(void **state)
{
    (void)state;
    if (access("/usr/bin/python3", X_OK) && access("/usr/local/bin/python3", X_OK))
        skip();
    static const char *const texts[N] = {"def f(): return 4", "import os; os._exit(0)", "raise SystemExit(0)", "def f(): return 5", "```python\ndef f():\n    return 4\n```",
                                         "def f(): return 4\nprint('y' * 200000)"};
    prepare(texts, NULL, "assert f() == 4");
    const struct scorer_stats stats = score("{\"kind\": \"tests\"}", 2);
    static const double want[N] = {1, 0, 0, 0, 1, 1};
    for (int i = 0; i < N; i++)
        if (answers[i].score != want[i])
            fail_msg("program %d: %g", i, answers[i].score);
    assert_int_equal(stats.scored, N);
}

/* ---- commands ---- */

/* A judge that is this text run by the shell: each case below reads lines with `read`. */
static struct scorer_stats judge(const char *script, const char *more)
{
    char config[2048];
    json_t *text = json_string(script);
    char *quoted = json_dumps(text, JSON_ENCODE_ANY);
    snprintf(config, sizeof config, "{\"kind\": \"command\", \"command\": %s%s}", quoted, more);
    free(quoted);
    json_decref(text);
    return score(config, 1);
}

static void commands_judge(void **state)
{
    (void)state;
    prepare(six, six, NULL);
    struct scorer_stats stats = judge("n=0; while read -r line; do echo '{\"score\": '$n.5'}'; n=$((n+1)); done", "");
    assert_int_equal(stats.scored, N);
    for (int i = 0; i < N; i++)
        assert_true(answers[i].score == i + 0.5); /* in order */
    stats = judge("while read -r line; do case $line in *'\"prompt\":\"prompt 3\"'*'\"answer_text\":\"#### 4\"'*) echo 1;; *) echo -1e2;; esac; done", "");
    assert_int_equal(stats.scored, N);
    assert_true(answers[3].score == 1 && answers[2].score == -100); /* it sees what it judges */
    char cwd[512], there[600];
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(there, sizeof there, "[ \"$(pwd)\" = '%s' ] || exit 3; while read -r l; do echo 2; done", cwd);
    assert_int_equal(judge(there, "").scored, N); /* its own program: the caller's directory */
}

static void a_command_that_fails_costs_an_answer(void **state)
{
    (void)state;
    prepare(six, six, NULL);
    struct scorer_stats stats = judge("while read -r line; do case $line in *'\"task\":2'*) echo oops >&2; exit 4;; esac; echo 7; done", "");
    assert_true(stats.scored == N - 1 && stats.crashes == 1 && !answers[2].scored && answers[3].score == 7);
    assert_string_equal(stats.first_failure, "task 2, chain 1, turn 2: the command ended with status 4 before it gave a score: oops");
    stats = judge("while read -r line; do case $line in *'\"task\":2'*) kill -SEGV $$;; esac; echo 7; done", "");
    assert_true(stats.scored == N - 1 && stats.crashes == 1);
    assert_non_null(strstr(stats.first_failure, "signal 11"));
    const double start = seconds_now();
    stats = judge("while read -r line; do case $line in *'\"task\":2'*) sleep 1000;; esac; echo 7; done", ", \"timeout_s\": 0.3");
    assert_true(stats.scored == N - 1 && stats.timeouts == 1 && seconds_now() - start < 10);
    assert_non_null(strstr(stats.first_failure, "no score within 0.3 s"));
    /* rubbish, then the line that was meant: it must not become the score of the next answer */
    stats = judge("while read -r line; do case $line in *'\"task\":2'*) echo loading...; echo 99;; *) echo 7;; esac; done", "");
    assert_true(stats.scored == N - 1 && stats.malformed == 1 && answers[3].score == 7);
    assert_non_null(strstr(stats.first_failure, "'loading...'"));
    stats = judge("while read -r line; do case $line in *'\"task\":2'*) echo 5; echo 99; sleep 0.05;; *) echo 7;; esac; done", "");
    assert_true(answers[2].score == 5 && stats.scored >= N - 1);
    assert_true(!answers[4].scored || answers[4].score == 7);
    /* an object without a score: in step, no reason to start anew */
    stats = judge("n=0; while read -r line; do n=$((n+1)); [ $n = 3 ] && echo '{\"error\": \"I cannot\"}' || echo $n; done", ", \"restarts\": 0");
    assert_true(stats.scored == N - 1 && stats.malformed == 1 && answers[5].score == 6);
    stats = judge("while read -r line; do echo NaN; done", "");
    assert_true(stats.scored == 0 && stats.malformed == N);
    stats = judge("while read -r line; do echo 1e999; done", "");
    assert_true(stats.scored == 0 && stats.failed == N);
}

static void endless_trouble_ends(void **state)
{
    (void)state;
    prepare(six, six, NULL);
    struct scorer_stats stats = judge("exit 1", ", \"restarts\": 2");
    assert_true(stats.scored == 0 && stats.crashes == 3 && stats.missing == N - 3);
    const double start = seconds_now();
    stats = judge("exec yes", ", \"restarts\": 3"); /* a flood, and it never reads */
    assert_true(stats.scored == 0 && stats.failed == N && seconds_now() - start < 10);
    stats = judge("while :; do echo noise >&2; done", ", \"restarts\": 1, \"timeout_s\": 0.2");
    assert_true(stats.scored == 0 && stats.timeouts == 2 && stats.missing == N - 2);
    stats = judge("exec <&-; sleep 1000", ", \"restarts\": 1, \"timeout_s\": 0.2"); /* nobody reads */
    assert_true(stats.scored == 0 && stats.failed == N);
    expect_error("{\"kind\": \"command\", \"command\": [\"no-such-judge\"]}", "cannot start 'no-such-judge'");
}

/* Requests and replies larger than a pipe holds, both at once. */
static void full_pipes_do_not_block(void **state)
{
    (void)state;
    char *big = malloc(1 << 20);
    memset(big, 'x', (1 << 20) - 1);
    big[(1 << 20) - 1] = 0;
    const char *const texts[N] = {big, big, "", big, "a", big};
    prepare(texts, six, NULL);
    struct scorer_stats stats = judge("while read -r line; do head -c 200000 /dev/zero >&2; echo ${#line}; done", ", \"timeout_s\": 30");
    assert_int_equal(stats.scored, N);
    assert_true(answers[0].score > 1 << 20 && answers[2].score < 1000);
    free(big);
}

static void lines_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        enum score_line kind;
        double score;
    } cases[] = {
        {"{\"score\": 0.5}", SCORE_LINE_OK, 0.5}, {" 3 ", SCORE_LINE_OK, 3}, {"-1e-2\r", SCORE_LINE_OK, -0.01}, {"{\"score\": null}", SCORE_LINE_NO_SCORE, 0}, {"null", SCORE_LINE_NO_SCORE, 0},
        {"{}", SCORE_LINE_NO_SCORE, 0}, {"", SCORE_LINE_RUBBISH, 0}, {"score: 1", SCORE_LINE_RUBBISH, 0}, {"[1]", SCORE_LINE_RUBBISH, 0}, {"nan", SCORE_LINE_RUBBISH, 0}, {"1 2", SCORE_LINE_RUBBISH, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double value = 0;
        if (scorer_read_line(cases[i].line, strlen(cases[i].line), &value) != cases[i].kind || value != cases[i].score)
            fail_msg("'%s' gave %g", cases[i].line, value);
    }
}

static void code_is_found(void **state)
{
    (void)state;
    static const struct {
        const char *text, *code;
    } cases[] = {
        {"x = 1", "x = 1"}, {"", ""}, {"```\na\n```", "a\n"}, {"```python\na\nb\n```\ntext", "a\nb\n"}, {"```py\na\n```\nthen\n```\nb\n```", "b\n"}, {"text\n```python\na", "a"},
        {"inline ``` is no fence", "inline ``` is no fence"}, {"  ```\n  a\n  ```", "  a\n"}, {"~~~\na\n~~~", "a\n"}, {"```", ""}, {"```\n```", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *begin;
        size_t n;
        scorer_code(cases[i].text, &begin, &n);
        if (n != strlen(cases[i].code) || memcmp(begin, cases[i].code, n) != 0)
            fail_msg("'%s' has the code '%.*s', expected '%s'", cases[i].text, (int)n, begin, cases[i].code);
    }
}

static int setup(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "test-scorer-%ld.jsonl", (long)getpid());
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
        cmocka_unit_test(rules_score), cmocka_unit_test(settings_are_checked), cmocka_unit_test(files_give_scores), cmocka_unit_test(programs_are_tested),
        cmocka_unit_test(leaving_early_does_not_pass), cmocka_unit_test(commands_judge), cmocka_unit_test(a_command_that_fails_costs_an_answer),
        cmocka_unit_test(endless_trouble_ends), cmocka_unit_test(full_pipes_do_not_block), cmocka_unit_test(lines_are_read), cmocka_unit_test(code_is_found),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
