/* Pairs as files and as sequences: what is written is read, sampled tokens stay what they are, contexts are those of the templates, and what is wrong is said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/model/strategy.h"
#include "tests/model/support.h"
#include "tests/ops/tables.h"
#include "train/align/pairs.h"

static char path[] = "pairs-test.jsonl";

static void put(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_true(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* ---- files ---- */

static void add_answer(struct answer_set *set, int64_t task, int turn, const char *s, const int32_t *tokens, int n, double score)
{
    struct answer a = {.task = task, .turn = turn, .text = strdup(s), .tokens = malloc((size_t)n * sizeof *tokens), .log_probs = calloc((size_t)n, sizeof(float)),
        .n = n, .ended = true, .scored = true, .score = score};
    memcpy(a.tokens, tokens, (size_t)n * sizeof *tokens);
    assert_int_equal(answer_set_add(set, &a, NULL), PLM_OK);
}

static void make_tasks(struct row_set *tasks)
{
    put("{\"question\": \"One \\u00e9 \\\"and\\\" one?\", \"answer\": \"2\"}\n"
        "{\"prompt\": [{\"role\": \"system\", \"content\": \"Be brief\"}, {\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"Yes?\"},"
        " {\"role\": \"user\", \"content\": \"Why?\"}], \"answer\": \"x\"}\n");
    const struct row_options o = {.wanted = ROW_TASK};
    *tasks = (struct row_set){0};
    assert_int_equal(row_set_read(tasks, path, &o, false, NULL), PLM_OK);
    assert_int_equal(tasks->n, 2);
}

static const int32_t some_tokens[][4] = {{104, 105, 258, 0}, {10, 11, 12, 258}, {200, 258, 0, 0}, {65, 65, 65, 258}};

static void make_answers(struct answer_set *set)
{
    *set = (struct answer_set){0};
    add_answer(set, 0, 0, "two, \"\xc3\xa9\"\n", some_tokens[0], 3, 0.25);
    add_answer(set, 0, 1, "three", some_tokens[1], 4, -1.5);
    add_answer(set, 1, 0, "bro\xff\xe2\x82", some_tokens[2], 2, 1); /* cut inside a character */
    add_answer(set, 1, 1, " spaces ", some_tokens[3], 4, 0);
}

static void round_trip(void **state)
{
    (void)state;
    struct row_set tasks;
    struct answer_set answers;
    struct pair_set set;
    struct plm_status st = {0};
    make_tasks(&tasks);
    make_answers(&answers);
    const struct selected_pair selected[] = {{0, 1}, {2, 3}, {3, 2}};
    if (pairs_write(&tasks, &answers, selected, 3, path, &st) || pairs_read(&set, path, ROW_PAIR, 259, &st))
        fail_msg("%s", st.message);
    assert_int_equal(set.rows.n, 3);
    for (int i = 0; i < 3; i++) {
        const struct row *row = &set.rows.rows[i], *task = &tasks.rows[answers.answers[selected[i].chosen].task];
        const struct answer *w = &answers.answers[selected[i].chosen], *l = &answers.answers[selected[i].rejected];
        assert_int_equal(row->kind, ROW_PAIR);
        assert_int_equal(row->line, i + 1);
        assert_int_equal(row->n_messages, task->n_messages);
        for (int k = 0; k < row->n_messages; k++) {
            assert_string_equal(row->messages[k].role, task->messages[k].role);
            assert_string_equal(row->messages[k].content, task->messages[k].content);
        }
        assert_string_equal(row->chosen, w->text);
        assert_string_equal(row->rejected, l->text);
        assert_int_equal(set.first[i].n, w->n);
        assert_memory_equal(set.first[i].tokens, w->tokens, (size_t)w->n * sizeof *w->tokens);
        assert_int_equal(set.second[i].n, l->n);
        assert_memory_equal(set.second[i].tokens, l->tokens, (size_t)l->n * sizeof *l->tokens);
    }
    pair_set_free(&set);
    /* as an offline source its texts are pairs like any other's: no token of another run is believed */
    const struct example_source source = {.path = path, .weight = 1};
    assert_int_equal(pairs_read_sources(&set, &source, 1, ROW_PAIR, false, 1, NULL), PLM_OK);
    assert_true(set.rows.n == 3 && !set.first[0].tokens && !set.second[2].tokens);
    pair_set_free(&set);
    /* answers to imitate */
    const struct selected_pair best[] = {{1, -1}, {3, -1}};
    if (pairs_write(&tasks, &answers, best, 2, path, &st) || pairs_read(&set, path, ROW_CONVERSATION, 259, &st))
        fail_msg("%s", st.message);
    assert_int_equal(set.rows.n, 2);
    assert_string_equal(set.rows.rows[0].messages[set.rows.rows[0].n_messages - 1].content, "three");
    assert_string_equal(set.rows.rows[1].messages[set.rows.rows[1].n_messages - 1].role, "assistant");
    assert_true(set.first[1].n == 4 && set.first[1].tokens[0] == 65 && !set.second[1].tokens);
    pair_set_free(&set);
    assert_int_equal(pairs_write(&tasks, &answers, NULL, 0, path, NULL), PLM_OK); /* nothing was selected */
    assert_int_equal(pairs_read(&set, path, ROW_PAIR, 259, NULL), PLM_OK);
    assert_int_equal(set.rows.n, 0);
    pair_set_free(&set);
    answer_set_free(&answers);
    row_set_free(&tasks);
    remove(path);
}

static void refuse(const char *rows, enum row_kind wanted, const char *want)
{
    struct pair_set set;
    struct plm_status st = {0};
    put(rows);
    const int code = pairs_read(&set, path, wanted, 259, &st);
    if (code != PLM_EFORMAT || !strstr(st.message, want))
        fail_msg("%s\ncode %d: %s; expected '%s'", rows, code, st.message, want);
    pair_set_free(&set);
    remove(path);
}

#define PAIR(more) "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"" more "}\n"

static void broken_files(void **state)
{
    (void)state;
    struct pair_set set;
    struct plm_status st = {0};
    refuse(PAIR("") PAIR(", \"chosen_tokens\": [259]"), ROW_PAIR, "pairs-test.jsonl:2: \"chosen_tokens\"[0]: expected a token id from 0 to 258");
    refuse(PAIR(", \"chosen_tokens\": [1], \"rejected_tokens\": [1, -1]"), ROW_PAIR, "pairs-test.jsonl:1: \"rejected_tokens\"[1]");
    refuse(PAIR(", \"chosen_tokens\": []"), ROW_PAIR, "expected a list of token ids");
    refuse(PAIR(", \"chosen_tokens\": 5"), ROW_PAIR, "expected a list of token ids");
    refuse(PAIR(", \"rejected_tokens\": [1.0]"), ROW_PAIR, "\"rejected_tokens\"[0]");
    refuse(PAIR(", \"rejected_tokens\": [4294967297]"), ROW_PAIR, "\"rejected_tokens\"[0]");
    refuse("{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}\n", ROW_PAIR, "pairs-test.jsonl:1");
    refuse("{\"prompt\": \"a\", \"completion\": \"b\"}\n", ROW_PAIR, "pairs-test.jsonl:1");
    refuse("{\"prompt\": \"a\", \"completion\": \"b\"}\n", ROW_LABELLED, "label");
    refuse(PAIR("") "{\"prompt\": \"a\", \n", ROW_PAIR, "pairs-test.jsonl:2");
    refuse("{\"text\": \"a\"}\n", ROW_CONVERSATION, "pairs-test.jsonl:1: expected a prompt and an answer to it; the row is a text");
    refuse("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}, {\"role\": \"user\", \"content\": \"c\"}]}\n",
           ROW_CONVERSATION, "pairs-test.jsonl:1: expected a prompt and an answer to it; the row does not end in an answer");
    assert_int_equal(pairs_read(&set, "not-there.jsonl", ROW_PAIR, 259, &st), PLM_EIO);
    assert_non_null(strstr(st.message, "not-there.jsonl"));
    pair_set_free(&set);
}

static void sources(void **state)
{
    (void)state;
    struct pair_set set;
    struct plm_status st = {0};
    char *rows = calloc(1, 1 << 16);
    for (int i = 0; i < 200; i++)
        sprintf(rows + strlen(rows), "{\"prompt\": \"p%d\", \"chosen\": \"b\", \"rejected\": \"c\"}\n", i);
    put(rows);
    free(rows);
    const double weights[] = {1, 2, 0.5, 1.25};
    for (int k = 0; k < 4; k++) {
        const struct example_source two[] = {{.path = path, .weight = weights[k]}, {.path = path, .weight = 1}};
        assert_int_equal(pairs_read_sources(&set, two, 2, ROW_PAIR, false, 7, &st), PLM_OK);
        const int64_t first = set.rows.n - 200;
        assert_true(weights[k] == (int)weights[k] ? first == 200 * (int)weights[k] : (double)first > 200 * weights[k] - 30 && (double)first < 200 * weights[k] + 30);
        struct pair_set again;
        assert_int_equal(pairs_read_sources(&again, two, 2, ROW_PAIR, false, 7, NULL), PLM_OK);
        assert_true(again.rows.n == set.rows.n && again.rows.rows[first / 2].line == set.rows.rows[first / 2].line);
        pair_set_free(&again);
        pair_set_free(&set);
    }
    /* malformed rows, also those with tokens that are none, are left out whole; and once */
    put(PAIR("") "{\"prompt\": \n" PAIR("") "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}\n" PAIR(""));
    const struct example_source source = {.path = path, .weight = 2};
    assert_int_equal(pairs_read_sources(&set, &source, 1, ROW_PAIR, true, 1, NULL), PLM_OK);
    assert_true(set.rows.n == 6 && set.rows.bad == 2 && strstr(set.rows.first_bad, "pairs-test.jsonl:2"));
    pair_set_free(&set);
    assert_int_equal(pairs_read_sources(&set, &source, 1, ROW_PAIR, false, 1, &st), PLM_EFORMAT);
    pair_set_free(&set);
    put("{\"a\": 1}\n{\"a\": 2}\n");
    assert_int_equal(pairs_read_sources(&set, &source, 1, ROW_PAIR, true, 1, &st), PLM_EINVAL);
    assert_true(strstr(st.message, "no rows to learn from; the first bad one: pairs-test.jsonl:1") != NULL);
    pair_set_free(&set);
    put("[" PAIR("") ", {\"prompt\": ]");
    assert_int_equal(rename(path, "pairs-test.json"), 0);
    const struct example_source array = {.path = "pairs-test.json", .weight = 1};
    const int code = pairs_read_sources(&set, &array, 1, ROW_PAIR, true, 1, &st); /* ends, and says why */
    assert_true(code == PLM_EFORMAT && strstr(st.message, "pairs-test.json:"));
    pair_set_free(&set);
    remove("pairs-test.json");
}

/* ---- sequences ---- */

struct fixture {
    struct tokenizer *tokenizer;
    struct chat_template *chat;
    struct refine_template *refine;
    struct encoder *encoder;
    struct pair_context context;
};

static void open_fixture(struct fixture *f)
{
    static const char template[] = "Q: {x}\nDraft: {y_prev}\nBetter:";
    byte_tokenizer(&f->tokenizer);
    assert_int_equal(chat_template_open(&f->chat, NULL, NULL, NULL), PLM_OK);
    assert_int_equal(refine_template_from_text(&f->refine, template, sizeof template - 1, "test", NULL), PLM_OK);
    assert_int_equal(encoder_create(&f->encoder, f->tokenizer, NULL), PLM_OK);
    f->context = (struct pair_context){.chat = f->chat, .refine = f->refine, .tokenizer = f->tokenizer, .max_len = 1000};
}

static void close_fixture(struct fixture *f)
{
    encoder_free(f->encoder);
    refine_template_free(f->refine);
    chat_template_free(f->chat);
    tokenizer_free(f->tokenizer);
}

/* Sequence s is the prompt of turn 0 or, with a draft, of its refinement, as a strategy asks for it, and then the answer. */
static void check_sequence(const struct fixture *f, const struct pair_sequences *p, int64_t s, const struct row *row, int n_messages, const char *draft, const char *answer,
                           const struct sampled_tokens *sampled)
{
    const struct strategy strategy = {.chains = 1, .refinements = 1, .chat = f->chat, .refine = f->refine};
    struct token_list ids = {0};
    assert_int_equal(strategy_prompt(&strategy, f->encoder, row->messages, n_messages, draft, draft ? strlen(draft) : 0, &ids, NULL), PLM_OK);
    const size_t context = ids.length;
    if (!sampled)
        assert_int_equal(chat_template_answer(f->chat, f->encoder, answer, strlen(answer), true, &ids, NULL, NULL), PLM_OK);
    const size_t n = sampled ? context + (size_t)sampled->n : ids.length;
    assert_int_equal(example_length(&p->e, s), n);
    const int32_t *tokens = p->e.tokens.data + p->e.begin[s];
    const uint8_t *target = p->e.target.data + p->e.begin[s];
    assert_memory_equal(tokens, ids.data, (sampled ? context : n) * sizeof *tokens);
    if (sampled)
        assert_memory_equal(tokens + context, sampled->tokens, (size_t)sampled->n * sizeof *tokens);
    assert_int_equal(tokens[n - 1], 258); /* it ends */
    for (size_t t = 0; t < n; t++)
        assert_int_equal(target[t], t >= context);
    assert_int_equal(p->lengths[s], n - context);
    free(ids.data);
}

static void parts(void **state)
{
    (void)state;
    struct fixture f;
    struct row_set tasks;
    struct answer_set answers;
    struct pair_set set;
    struct pair_sequences p;
    struct plm_status st = {0};
    open_fixture(&f);
    make_tasks(&tasks);
    make_answers(&answers);
    const struct selected_pair selected[] = {{0, 1}, {2, 3}};
    assert_int_equal(pairs_write(&tasks, &answers, selected, 2, path, NULL), PLM_OK);
    for (int sampled = 0; sampled < 2; sampled++) {
        const struct example_source source = {.path = path, .weight = 1};
        if (sampled ? pairs_read(&set, path, ROW_PAIR, 259, &st) : pairs_read_sources(&set, &source, 1, ROW_PAIR, false, 1, &st))
            fail_msg("%s", st.message);
        f.context.refined = f.context.mismatched = true;
        assert_int_equal(pair_sequences_build(&p, &set, &f.context, NULL), PLM_OK);
        assert_true(p.n == 2 && p.per_pair == 7 && p.e.n == 14 && p.dropped_long == 0);
        for (int i = 0; i < 2; i++) {
            const struct row *row = &set.rows.rows[i];
            const struct sampled_tokens *w = sampled ? &set.first[i] : NULL, *l = sampled ? &set.second[i] : NULL, *other = sampled ? &set.first[1 - i] : NULL;
            const int64_t s = 7 * i;
            check_sequence(&f, &p, s + p.at[PART_CHOSEN], row, row->n_messages, NULL, row->chosen, w);
            check_sequence(&f, &p, s + p.at[PART_REJECTED], row, row->n_messages, NULL, row->rejected, l);
            check_sequence(&f, &p, s + p.at[PART_CHOSEN_GIVEN_L], row, row->n_messages, row->rejected, row->chosen, w);
            check_sequence(&f, &p, s + p.at[PART_REJECTED_GIVEN_L], row, row->n_messages, row->rejected, row->rejected, l);
            check_sequence(&f, &p, s + p.at[PART_CHOSEN_GIVEN_W], row, row->n_messages, row->chosen, row->chosen, w);
            check_sequence(&f, &p, s + p.at[PART_REJECTED_GIVEN_W], row, row->n_messages, row->chosen, row->rejected, l);
            check_sequence(&f, &p, s + p.at[PART_MISMATCHED], row, row->n_messages, NULL, set.rows.rows[1 - i].chosen, other);
        }
        pair_sequences_free(&p);
        f.context.refined = f.context.mismatched = false;
        assert_int_equal(pair_sequences_build(&p, &set, &f.context, NULL), PLM_OK);
        assert_true(p.per_pair == 2 && p.at[PART_CHOSEN_GIVEN_L] == -1 && p.at[PART_MISMATCHED] == -1 && p.e.n == 4);
        pair_sequences_free(&p);
        pair_set_free(&set);
    }
    answer_set_free(&answers);
    row_set_free(&tasks);
    close_fixture(&f);
    remove(path);
}

static void single_answers(void **state)
{
    (void)state;
    struct fixture f;
    struct pair_set set;
    struct pair_sequences p;
    open_fixture(&f);
    put("{\"prompt\": \"a\", \"completion\": \"yes\", \"label\": true}\n{\"prompt\": \"b\", \"completion\": \"no\", \"label\": false}\n"
        "{\"prompt\": \"c\", \"completion\": \"well\", \"label\": 1}\n");
    const struct example_source source = {.path = path, .weight = 1};
    f.context.mismatched = true;
    assert_int_equal(pairs_read_sources(&set, &source, 1, ROW_LABELLED, false, 1, NULL), PLM_OK);
    assert_int_equal(pair_sequences_build(&p, &set, &f.context, NULL), PLM_OK);
    assert_true(p.n == 3 && p.per_pair == 2 && p.desirable[0] && !p.desirable[1] && p.desirable[2] && p.at[PART_REJECTED] == -1);
    for (int i = 0; i < 3; i++) {
        const struct row *row = &set.rows.rows[i];
        check_sequence(&f, &p, 2 * i, row, 1, NULL, row->completion, NULL);
        check_sequence(&f, &p, 2 * i + 1, row, 1, NULL, set.rows.rows[(i + 2) % 3].completion, NULL);
    }
    pair_sequences_free(&p);
    pair_set_free(&set);
    /* of a conversation the last answer, after all that was said before */
    put("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}, {\"role\": \"user\", \"content\": \"c\"},"
        " {\"role\": \"assistant\", \"content\": \"d\"}]}\n");
    f.context.mismatched = false;
    assert_int_equal(pairs_read_sources(&set, &source, 1, ROW_CONVERSATION, false, 1, NULL), PLM_OK);
    assert_int_equal(pair_sequences_build(&p, &set, &f.context, NULL), PLM_OK);
    assert_true(p.n == 1 && p.per_pair == 1);
    check_sequence(&f, &p, 0, &set.rows.rows[0], 3, NULL, "d", NULL);
    pair_sequences_free(&p);
    pair_set_free(&set);
    close_fixture(&f);
    remove(path);
}

static void long_and_mixed(void **state)
{
    (void)state;
    struct fixture f;
    struct pair_set set;
    struct pair_sequences p;
    struct plm_status st = {0};
    open_fixture(&f);
    put(PAIR("") "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"a much longer answer than the other one\"}\n" PAIR(""));
    const struct example_source source = {.path = path, .weight = 1};
    f.context.refined = true;
    assert_int_equal(pairs_read_sources(&set, &source, 1, ROW_PAIR, false, 1, NULL), PLM_OK);
    assert_int_equal(pair_sequences_build(&p, &set, &f.context, NULL), PLM_OK);
    int64_t longest[3] = {0};
    for (int64_t s = 0; s < p.e.n; s++)
        longest[s / 6] = example_length(&p.e, s) > longest[s / 6] ? example_length(&p.e, s) : longest[s / 6];
    pair_sequences_free(&p);
    for (int spare = 0; spare < 2; spare++) { /* one token too many for the middle one; room for all */
        f.context.max_len = (int)longest[1] - 1 + spare;
        assert_int_equal(pair_sequences_build(&p, &set, &f.context, NULL), PLM_OK);
        assert_true(p.n == 2 + spare && p.dropped_long == 1 - spare && p.e.n == 6 * p.n && p.e.begin[p.e.n] == (int64_t)p.e.tokens.length);
        assert_true(p.row[0] == 0 && p.row[1] == 2 - spare);
        for (int64_t s = 0; s < p.e.n; s++)
            assert_true(example_length(&p.e, s) <= f.context.max_len && p.lengths[s] > 0);
        pair_sequences_free(&p);
    }
    f.context.max_len = 3;
    assert_int_equal(pair_sequences_build(&p, &set, &f.context, NULL), PLM_OK);
    assert_true(p.n == 0 && p.dropped_long == 3);
    pair_sequences_free(&p);
    f.context.max_len = 1000;
    set.rows.rows[2].kind = ROW_LABELLED; /* what one reader never gives */
    set.rows.rows[2].completion = "b";
    assert_int_equal(pair_sequences_build(&p, &set, &f.context, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "row of line 3: pairs and unpaired answers in one set"));
    pair_sequences_free(&p);
    set.rows.n = 0; /* nothing at all */
    assert_int_equal(pair_sequences_build(&p, &set, &f.context, &st), PLM_OK);
    assert_int_equal(p.n, 0);
    pair_sequences_free(&p);
    set.rows.n = 3;
    pair_set_free(&set);
    close_fixture(&f);
    remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip), cmocka_unit_test(broken_files), cmocka_unit_test(sources), cmocka_unit_test(parts),
                                       cmocka_unit_test(single_answers), cmocka_unit_test(long_and_mixed)};
    return RUN_WITH_EVERY_TABLE(tests, NULL, NULL);
}
