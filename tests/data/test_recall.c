/* Generated recall tasks: what is asked for was said, where it was said, lengths, and streams that never meet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/recall.h"

static struct tokenizer *tokenizer; /* a token per byte, some longer ones, and <|endoftext|> */
static struct recall_generator *generator;

/* Merges make tokens "ke", "key", "56", " i", " is", so that answers are more than one token and pieces less than a word. */
static int setup(void **state)
{
    (void)state;
    enum { BYTES = 256, MERGES = 5 };
    static const char *const merged[MERGES] = {"ke", "key", "56", " i", " is"};
    static const int32_t pairs[MERGES][2] = {{'k', 'e'}, {BYTES, 'y'}, {'5', '6'}, {' ', 'i'}, {BYTES + 3, 's'}};
    static char bytes[BYTES];
    const char *token[BYTES + MERGES + 1];
    size_t length[BYTES + MERGES + 1];
    for (int i = 0; i < BYTES; i++) {
        bytes[i] = (char)i;
        token[i] = &bytes[i];
        length[i] = 1;
    }
    for (int i = 0; i < MERGES; i++) {
        token[BYTES + i] = merged[i];
        length[BYTES + i] = strlen(merged[i]);
    }
    const struct special_token eos = {"<|endoftext|>", BYTES + MERGES};
    token[BYTES + MERGES] = eos.text;
    length[BYTES + MERGES] = strlen(eos.text);
    struct plm_status st = {0};
    if (tokenizer_create(&tokenizer, token, length, BYTES + MERGES + 1, pairs, MERGES, &eos, 1, &st) ||
        recall_generator_create(&generator, tokenizer, &st))
        fail_msg("%s", st.message);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    recall_generator_free(generator);
    tokenizer_free(tokenizer);
    return 0;
}

static void generate(const struct recall_options *o, uint64_t index, struct recall_document *d)
{
    struct plm_status st = {0};
    if (recall_generate(generator, o, index, d, &st))
        fail_msg("%s", st.message);
    assert_int_equal(d->tokens.length <= (size_t)o->length, true);
}

/* The text of answer i, by its tokens. */
static char *answer_text(const struct recall_document *d, int i)
{
    const struct recall_answer *a = &d->answers[i];
    char *text;
    size_t length;
    assert_true(a->begin < a->end && a->end <= d->tokens.length);
    assert_int_equal(tokenizer_decode(tokenizer, d->tokens.data + a->begin, a->end - a->begin, true, &text, &length, NULL), PLM_OK);
    return text;
}

static void check_same_text(const struct recall_document *d)
{
    char *text;
    size_t length;
    assert_int_equal(tokenizer_decode(tokenizer, d->tokens.data, d->tokens.length, true, &text, &length, NULL), PLM_OK);
    assert_int_equal(length, d->text_length);
    assert_memory_equal(text, d->text, length);
    free(text);
}

static void passkey_is_at_its_depth(void **state)
{
    (void)state;
    struct recall_document d = {0};
    struct recall_options o = {.task = RECALL_PASSKEY, .length = 2000, .seed = 7};
    for (int i = 0; i <= 20; i++) {
        o.depth = i / 20.0;
        generate(&o, (uint64_t)i, &d);
        check_same_text(&d);
        assert_true(d.tokens.length > 2000 - 60);
        assert_int_equal(d.n_answers, 1);
        char *answer = answer_text(&d, 0), said[64];
        assert_int_equal(strlen(answer), 5);
        snprintf(said, sizeof said, "The pass key is %s. Remember it. %s is the pass key.\n", answer, answer);
        const char *at = strstr(d.text, said);
        assert_non_null(at);
        assert_null(strstr(at + 1, said));
        assert_float_equal(d.answers[0].depth, o.depth, 1e-12);
        const double place = (double)(at - d.text) / (double)(d.text_length - strlen(said));
        assert_true(place > o.depth - 0.06 && place < o.depth + 0.06);
        free(answer);
    }
    double least = 1, most = 0;
    o.depth = -1; /* drawn */
    for (uint64_t i = 0; i < 40; i++) {
        generate(&o, i, &d);
        least = d.answers[0].depth < least ? d.answers[0].depth : least;
        most = d.answers[0].depth > most ? d.answers[0].depth : most;
    }
    assert_true(least >= 0 && least < 0.2 && most > 0.8 && most <= 1);
    recall_document_free(&d);
}

static void pairs_are_asked_for_once(void **state)
{
    (void)state;
    struct recall_document d = {0};
    const struct recall_options o = {.task = RECALL_MQAR, .length = 4000, .pairs = 40, .queries = 30, .seed = 3};
    for (uint64_t i = 0; i < 20; i++) {
        generate(&o, i, &d);
        check_same_text(&d);
        assert_true(d.tokens.length > 4000 - 60);
        assert_int_equal(d.n_answers, o.queries);
        const char *question = strstr(d.text, "What is key ");
        const size_t before = (size_t)(question - d.text);
        int lines = 0;
        for (const char *p = d.text; (p = strstr(p, "key ")) && p < question; p++)
            lines++;
        assert_int_equal(lines, o.pairs);
        for (int j = 0; j < o.queries; j++) {
            char key[8], said[32], asked[64], *answer = answer_text(&d, j);
            assert_int_equal(sscanf(question, "What is key %7[a-z0-9]", key), 1);
            snprintf(asked, sizeof asked, "What is key %s? key %s is %s.\n", key, key, answer);
            assert_memory_equal(question, asked, strlen(asked));
            question += strlen(asked);
            assert_null(strstr(question, key)); /* no key twice */
            snprintf(said, sizeof said, "key %s is %s.\n", key, answer);
            const char *at = strstr(d.text, said);
            assert_non_null(at);
            assert_float_equal(d.answers[j].depth, (double)(at - d.text) / (double)before, 1e-12);
            free(answer);
        }
        assert_int_equal(*question, 0);
    }
    recall_document_free(&d);
}

/* The token where the questions begin is the first of the text that starts with `question`. */
static void check_questions(const struct recall_document *d, const char *question)
{
    char *text;
    size_t length;
    assert_true(d->questions < d->tokens.length);
    assert_int_equal(tokenizer_decode(tokenizer, d->tokens.data + d->questions, d->tokens.length - d->questions, true, &text, &length, NULL), PLM_OK);
    assert_ptr_equal(strstr(text, question), text);
    assert_int_equal(length, d->text_length - (size_t)(strstr(d->text, question) - d->text));
    free(text);
}

static void facts_are_looked_up(void **state)
{
    (void)state;
    struct recall_document d = {0};
    const struct recall_options o = {.task = RECALL_FACTS, .length = 2000, .pairs = 12, .queries = 40, .seed = 6};
    for (uint64_t i = 0; i < 20; i++) {
        generate(&o, i, &d);
        check_same_text(&d);
        check_questions(&d, "What is the ");
        assert_int_equal(d.n_answers, o.queries);
        const char *question = strstr(d.text, "What is the ");
        for (int j = 0; j < o.queries; j++) {
            char kind[16], said[64], asked[80], *answer = answer_text(&d, j);
            assert_int_equal(sscanf(question, "What is the %15[a-z]", kind), 1);
            const char *value = answer + (*answer == ' '); /* a token may take the space along */
            snprintf(asked, sizeof asked, "What is the %s? The %s is %s.\n", kind, kind, value);
            snprintf(said, sizeof said, "The %s is %s.\n", kind, value);
            assert_memory_equal(question, asked, strlen(asked));
            const char *at = strstr(d.text, said);
            assert_non_null(at);
            assert_true(at < strstr(d.text, "What is the "));
            question += strlen(asked);
            free(answer);
        }
        assert_int_equal(*question, 0);
    }
    recall_document_free(&d);
}

static void keys_and_digits_are_as_asked(void **state)
{
    (void)state;
    static const struct {
        int keys, digits;
        const char *pattern; /* of a question, for sscanf */
        size_t key_length;
    } cases[] = {{26, 1, "What is key %7[a-z]?", 1}, {260, 2, "What is key %7[a-z0-9]?", 2}, {261, 9, "What is key %7[a-z0-9]?", 3}};
    struct recall_document d = {0};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const struct recall_options o = {.task = RECALL_MQAR, .length = 1500, .pairs = 26, .queries = 26, .keys = cases[c].keys, .digits = cases[c].digits};
        generate(&o, 0, &d);
        check_questions(&d, "What is key ");
        const char *question = strstr(d.text, "What is key ");
        char key[8];
        assert_int_equal(sscanf(question, cases[c].pattern, key), 1);
        assert_int_equal(strlen(key), cases[c].key_length);
        char *answer = answer_text(&d, 3);
        assert_int_equal(strspn(answer, "0123456789"), cases[c].digits);
        free(answer);
    }
    recall_document_free(&d);
}

static void questions_come_again_in_rounds(void **state)
{
    (void)state;
    struct recall_document d = {0};
    const struct recall_options o = {.task = RECALL_MQAR, .length = 1000, .pairs = 3, .queries = 9, .seed = 4};
    generate(&o, 0, &d);
    assert_int_equal(d.n_answers, 9);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < i; j++)
                assert_true(d.answers[3 * round + i].depth != d.answers[3 * round + j].depth);
    recall_document_free(&d);
}

static void random_tokens_recall(void **state)
{
    (void)state;
    struct recall_document d = {0};
    const struct recall_options o = {.task = RECALL_MQAR_TOKENS, .length = 200, .pairs = 20, .queries = 20, .seed = 9};
    for (uint64_t i = 0; i < 50; i++) {
        generate(&o, i, &d);
        assert_int_equal(d.tokens.length, 200);
        assert_null(d.text);
        for (int j = 0; j < o.queries; j++) {
            const struct recall_answer *a = &d.answers[j];
            assert_int_equal(a->end - a->begin, 1);
            const int32_t key = d.tokens.data[a->begin - 1], value = d.tokens.data[a->begin];
            size_t said = 0, times = 0;
            for (size_t at = 0; at < a->begin - 1; at++)
                if (d.tokens.data[at] == key) {
                    said = at;
                    times++;
                }
            assert_int_equal(times, 1); /* the key is nowhere else: the answer can only be looked up */
            assert_int_equal(d.tokens.data[said + 1], value);
            assert_float_equal(a->depth, (double)said / 160, 1e-12);
        }
        for (size_t at = 0; at < d.tokens.length; at++)
            assert_true(d.tokens.data[at] < 256 + 5); /* no special token */
    }
    recall_document_free(&d);
}

static void documents_are_functions_of_their_number(void **state)
{
    (void)state;
    struct recall_document a = {0}, b = {0};
    for (int task = 0; task < RECALL_N_TASKS; task++) {
        struct recall_options o = {.task = (enum recall_task)task, .length = 600, .depth = 0.5, .pairs = 5, .queries = 2, .seed = 1};
        generate(&o, 3, &a);
        generate(&o, 4, &b);
        assert_true(a.tokens.length != b.tokens.length || memcmp(a.tokens.data, b.tokens.data, a.tokens.length * sizeof *a.tokens.data));
        generate(&o, 3, &b); /* again, after another */
        assert_int_equal(a.tokens.length, b.tokens.length);
        assert_memory_equal(a.tokens.data, b.tokens.data, a.tokens.length * sizeof *a.tokens.data);
        o.held_out = true;
        generate(&o, 3, &b);
        assert_true(a.tokens.length != b.tokens.length || memcmp(a.tokens.data, b.tokens.data, a.tokens.length * sizeof *a.tokens.data));
    }
    recall_document_free(&a);
    recall_document_free(&b);
}

static void reject(struct recall_options o, uint64_t index, int code, const char *message)
{
    struct plm_status st = {0};
    struct recall_document d = {0};
    assert_int_equal(recall_generate(generator, &o, index, &d, &st), code);
    if (!strstr(st.message, message))
        fail_msg("'%s' lacks '%s'", st.message, message);
    recall_document_free(&d);
}

static void out_of_range(void **state)
{
    (void)state;
    const struct recall_options o = {.task = RECALL_MQAR, .length = 500, .pairs = 4, .queries = 4};
    struct recall_options bad = o;
    bad.keys = 3;
    reject(bad, 0, PLM_EINVAL, "3 keys for 4 pairs, expected at least as many and at most 6760");
    bad = o;
    bad.digits = 10;
    reject(bad, 0, PLM_EINVAL, "numbers of 10 digits, expected 1 to 9");
    bad = o;
    bad.task = RECALL_FACTS, bad.pairs = 13;
    reject(bad, 0, PLM_EINVAL, "13 pairs, expected 1 to 12");
    bad = o;
    bad.queries = RECALL_MAX_QUERIES + 1;
    reject(bad, 0, PLM_EINVAL, "8193 queries, expected 1 to 8192");
    bad = o;
    bad.pairs = RECALL_MAX_PAIRS + 1;
    reject(bad, 0, PLM_EINVAL, "2049 pairs");
    bad = o;
    bad.length = 50;
    reject(bad, 0, PLM_ELIMIT, "the length is 50");
    bad = o;
    bad.length = 0;
    reject(bad, 0, PLM_EINVAL, "the length is 0");
    reject(o, (uint64_t)1 << 40, PLM_EINVAL, "below 2^40");
    bad = (struct recall_options){.task = RECALL_PASSKEY, .length = 500, .depth = 1.5};
    reject(bad, 0, PLM_EINVAL, "depth is 1.5");
    bad = (struct recall_options){.task = RECALL_MQAR_TOKENS, .length = 4000, .pairs = 100, .queries = 1};
    reject(bad, 0, PLM_ELIMIT, "400 ordinary tokens, the tokenizer has 261");
    struct plm_status st = {0};
    enum recall_task task;
    assert_int_equal(recall_task_parse(&task, "mqar-tokens", &st), PLM_OK);
    assert_int_equal(task, RECALL_MQAR_TOKENS);
    assert_int_equal(recall_task_parse(&task, "needle", &st), PLM_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passkey_is_at_its_depth), cmocka_unit_test(pairs_are_asked_for_once),
        cmocka_unit_test(facts_are_looked_up), cmocka_unit_test(keys_and_digits_are_as_asked),
        cmocka_unit_test(questions_come_again_in_rounds),
        cmocka_unit_test(random_tokens_recall),    cmocka_unit_test(documents_are_functions_of_their_number),
        cmocka_unit_test(out_of_range),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
