/* Sequences with targets: rendering, weights, what is dropped and counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/examples.h"
#include "tests/data/scratch.h"
#include "tests/text/random_vocab.h"

struct fixture {
    struct tokenizer *tokenizer;
    struct encoder *encoder;
    struct chat_template *chat;
};

static struct fixture fixture;

static int group_setup(void **state)
{
    (void)state;
    struct random_source r = {.seed = 5};
    fixture.tokenizer = random_vocab(&r, "abc ", 20);
    return encoder_create(&fixture.encoder, fixture.tokenizer, NULL) || chat_template_open(&fixture.chat, NULL, NULL, NULL);
}

static int group_teardown(void **state)
{
    (void)state;
    chat_template_free(fixture.chat);
    encoder_free(fixture.encoder);
    tokenizer_free(fixture.tokenizer);
    return 0;
}

static void test_add(void **state)
{
    (void)state;
    struct examples e = {0};
    static const int32_t tokens[] = {5, 6, 7, 8};
    static const uint8_t targets[] = {1, 0, 1, 0};
    assert_int_equal(examples_add(&e, tokens, 0, NULL, 0, NULL), PLM_EINVAL);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(examples_add(&e, tokens, 4, targets, 0, NULL), PLM_OK);
        assert_int_equal(examples_add(&e, tokens + 1, 3, NULL, 2, NULL), PLM_OK);
        assert_int_equal(examples_add(&e, tokens, 1, NULL, 0, NULL), PLM_OK);
    }
    assert_int_equal(e.n, 3000);
    for (int64_t i = 0; i < 3000; i += 3) {
        assert_int_equal(e.begin[i], i / 3 * 8);
        assert_int_equal(example_length(&e, i), 4);
        assert_int_equal(example_length(&e, i + 2), 1);
        assert_memory_equal(e.tokens.data + e.begin[i], tokens, sizeof tokens);
        assert_memory_equal(e.target.data + e.begin[i], ((uint8_t[]){0, 0, 1, 0, 0, 0, 1, 0}), 8);
    }
    assert_int_equal(e.begin[3000], e.tokens.length);
    assert_int_equal(e.target.length, e.tokens.length);
    examples_free(&e);
    assert_null(e.begin);
}

/* The sequence as text, targets in []. */
static char *marked(const int32_t *ids, const uint8_t *targets, size_t n)
{
    static char out[4096];
    size_t at = 0, length;
    bool inside = false;
    for (size_t i = 0; i <= n; i++) {
        if ((i < n && targets[i]) != inside)
            out[at++] = (inside = !inside) ? '[' : ']';
        const char *bytes = i < n ? tokenizer_token(fixture.tokenizer, ids[i], &length, NULL) : NULL;
        if (bytes)
            at += (size_t)snprintf(out + at, sizeof out - at, "%.*s", (int)length, bytes);
    }
    out[at] = 0;
    return out;
}

static const char *render(const char *text, enum row_kind wanted)
{
    static char copy[4096];
    struct token_list ids = {0};
    struct target_list targets = {0};
    struct row row;
    json_t *object = json_loads(text, 0, NULL);
    assert_int_equal(row_read(&row, object, &(struct row_options){.wanted = wanted}, NULL), PLM_OK);
    const int32_t eos = tokenizer_eos(fixture.tokenizer);
    assert_int_equal(row.kind == ROW_PAIR ? example_render_answer(row.messages, row.n_messages, row.chosen, fixture.chat, fixture.encoder, &ids, &targets, NULL)
                                          : example_render(&row, fixture.chat, fixture.encoder, eos, &ids, &targets, NULL), PLM_OK);
    assert_int_equal(ids.length, targets.length);
    strcpy(copy, marked(ids.data, targets.data, ids.length));
    row_free(&row);
    json_decref(object);
    free(ids.data);
    free(targets.data);
    return copy;
}

#define SYSTEM "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n"

static void test_render(void **state)
{
    (void)state;
    struct plm_status st = {0};
    assert_string_equal(render("{\"prompt\": \"ab\", \"completion\": \"ba\"}", ROW_CONVERSATION),
                        SYSTEM "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n[ba<|im_end|>]");
    assert_string_equal(render("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}, {\"role\": \"user\", \"content\": "
                               "\"c\"}]}", ROW_CONVERSATION), SYSTEM "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]");
    assert_string_equal(render("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", ROW_CONVERSATION), SYSTEM "<|im_start|>user\na<|im_end|>\n");
    assert_string_equal(render("{\"text\": \"abc\"}", ROW_CONVERSATION), "[abc<|endoftext|>]");
    assert_string_equal(render("{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}, {\"role\": \"user\", \"content\": \"c\"}], "
                               "\"chosen\": \"a\", \"rejected\": \"b\"}", ROW_PAIR),
                        SYSTEM "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[a<|im_end|>]");
    const struct row text = {.kind = ROW_TEXT, .text = "a"};
    assert_int_equal(example_render(&text, fixture.chat, fixture.encoder, -1, &(struct token_list){0}, &(struct target_list){0}, &st), PLM_EUNSUPPORTED);
}

/* 40 rows of which row i answers with i + 1 letters. */
static void write_rows(const char *path)
{
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 40; i++)
        fprintf(f, "{\"prompt\": \"z\", \"completion\": \"%.*s\"}\n", i + 1, "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz");
    fclose(f);
}

static struct example_options options(int max_len)
{
    return (struct example_options){.chat = fixture.chat, .tokenizer = fixture.tokenizer, .max_len = max_len, .seed = 9};
}

static void test_weights(void **state)
{
    const char *path = scratch_path(state, "rows.jsonl");
    write_rows(path);
    const struct example_options o = options(4096);
    static const double weights[] = {1, 2, 0.5, 1.5, 0.25};
    struct examples one = {0};
    struct example_counts counts[2];
    assert_int_equal(examples_read(&one, &(struct example_source){.path = path, .weight = 1}, 1, &o, counts, NULL), PLM_OK);
    assert_int_equal(one.n, 40);
    assert_int_equal(counts[0].targets, 40 * 41 / 2 + 40); /* one token per letter, and <|im_end|> */
    assert_int_equal(counts[0].tokens, one.tokens.length);
    const int64_t base = example_length(&one, 0) - 1;
    for (int64_t i = 0; i < 40; i++)
        assert_int_equal(example_length(&one, i), base + i + 1);
    for (size_t k = 0; k < 5; k++) {
        struct examples e = {0}, again = {0};
        int used[40] = {0}, more = 0;
        const int whole = (int)weights[k];
        const struct example_source sources[2] = {{.path = path, .weight = weights[k]}, {.path = path, .weight = weights[k]}};
        assert_int_equal(examples_read(&e, sources, 2, &o, counts, NULL), PLM_OK);
        assert_int_equal(examples_read(&again, sources, 1, &o, (struct example_counts[1]){{0}}, NULL), PLM_OK);
        assert_int_equal(again.n, counts[0].used); /* the same rows again */
        assert_memory_equal(again.tokens.data, e.tokens.data, again.tokens.length * sizeof *e.tokens.data);
        for (int64_t i = 0; i < counts[0].used; i++)
            used[example_length(&e, i) - base - 1]++;
        for (int i = 0; i < 40; i++) {
            assert_true(used[i] == whole || used[i] == whole + 1);
            more += used[i] - whole;
        }
        const double share = weights[k] - whole;
        if (share == 0)
            assert_int_equal(more, 0);
        else
            assert_true(more > 40 * share / 2 && more < 40 * share + 12);
        assert_int_equal(counts[0].rows, 40);
        assert_int_equal(counts[0].left_out, whole ? 0 : 40 - more);
        assert_int_equal(e.n, counts[0].used + counts[1].used);
        examples_free(&e);
        examples_free(&again);
    }
    examples_free(&one);
    static const double bad[] = {0, -1, 1e300, 0.0 / 0.0};
    for (int i = 0; i < 4; i++) {
        struct examples e = {0};
        assert_int_equal(examples_read(&e, &(struct example_source){.path = path, .weight = bad[i]}, 1, &o, counts, NULL), PLM_EINVAL);
        examples_free(&e);
    }
}

static void test_lengths(void **state)
{
    const char *path = scratch_path(state, "rows.jsonl");
    const struct example_source source = {.path = path, .weight = 2};
    struct example_counts counts;
    struct examples e = {0};
    struct plm_status st = {0};
    write_rows(path);
    struct example_options o = options(4096);
    assert_int_equal(examples_read(&e, &source, 1, &o, &counts, NULL), PLM_OK);
    const int64_t base = example_length(&e, 0) - 1; /* without an answer's letters, with its end */
    examples_free(&e);
    o.max_len = (int)base + 10;
    assert_int_equal(examples_read(&e, &source, 1, &o, &counts, NULL), PLM_OK);
    assert_int_equal(counts.used, 20);
    assert_int_equal(counts.dropped_long, 30);
    assert_int_equal(counts.truncated, 0);
    examples_free(&e);
    o.truncate = true;
    assert_int_equal(examples_read(&e, &source, 1, &o, &counts, NULL), PLM_OK);
    assert_int_equal(counts.used, 80);
    assert_int_equal(counts.truncated, 30);
    for (int64_t i = 20; i < 80; i++) {
        assert_int_equal(example_length(&e, i), o.max_len);
        assert_int_equal(e.target.data[e.begin[i + 1] - 1], 1); /* a letter, the end is cut off */
    }
    examples_free(&e);
    o.max_len = (int)base - 1; /* all answers are cut off */
    assert_int_equal(examples_read(&e, &source, 1, &o, &counts, &st), PLM_EINVAL);
    assert_int_equal(counts.dropped_long, 40);
    assert_non_null(strstr(st.message, "40 are longer than"));
    assert_int_equal(e.n, 0);
    examples_free(&e);
    o.max_len = 1;
    assert_int_equal(examples_read(&e, &source, 1, &o, &counts, &st), PLM_EINVAL);
}

static void test_nothing_to_learn(void **state)
{
    static const char rows[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n"
                               "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\", \"weight\": 0}]}\n"
                               "{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n";
    const char *path = scratch_path(state, "rows.jsonl");
    const struct example_source source = {.path = path, .weight = 1};
    struct example_counts counts;
    struct examples e = {0};
    struct plm_status st = {0};
    struct example_options o = options(100);
    write_file(path, rows, sizeof rows - 1);
    assert_int_equal(examples_read(&e, &source, 1, &o, &counts, &st), PLM_EFORMAT);
    assert_non_null(strstr(st.message, "rows.jsonl:3: expected an answer"));
    examples_free(&e);
    o.skip_bad = true;
    assert_int_equal(examples_read(&e, &source, 1, &o, &counts, &st), PLM_OK);
    assert_int_equal(counts.rows, 3);
    assert_int_equal(counts.bad, 1);
    assert_int_equal(counts.no_target, 2);
    assert_int_equal(counts.used, 1);
    assert_int_equal(counts.targets, 1); /* <|endoftext|>: nothing predicts the first token */
    examples_free(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_render),
        cmocka_unit_test_setup_teardown(test_weights, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_lengths, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_nothing_to_learn, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
