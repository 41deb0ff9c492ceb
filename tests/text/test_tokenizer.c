/* Construction, encoding, decoding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "infer/text/nfc.h"
#include "infer/text/tokenizer.h"
#include "infer/text/utf8.h"
#include "tests/text/random_text.h"
#include "tests/text/random_vocab.h"

static struct encoder *open_encoder(const struct tokenizer *t)
{
    struct encoder *e;
    assert_int_equal(encoder_create(&e, t, NULL), PLM_OK);
    return e;
}

/* The definition: join the pair of lowest rank, the leftmost of them, until no pair merges. */
static size_t naive_bpe(const struct tokenizer *t, const char *word, size_t n, int32_t *ids)
{
    for (size_t i = 0; i < n; i++) {
        size_t length;
        for (ids[i] = 0; tokenizer_token(t, ids[i], &length, NULL)[0] != word[i] || length != 1;)
            ids[i]++;
    }
    for (;;) {
        size_t best = n;
        int32_t best_rank = tokenizer_n_merges(t), left, right;
        for (size_t i = 0; i + 1 < n; i++)
            for (int32_t rank = 0; rank < best_rank; rank++) {
                tokenizer_merge(t, rank, &left, &right);
                if (left == ids[i] && right == ids[i + 1]) {
                    best = i;
                    best_rank = rank;
                }
            }
        if (best == n)
            return n;
        ids[best] = random_vocab_join(t, ids[best], ids[best + 1]);
        n--;
        for (size_t i = best + 1; i < n; i++)
            ids[i] = ids[i + 1];
    }
}

/* Merges in random order, with several ways to make one token: harder than what training yields. Every word twice, so that
 * the second time comes from the cache. */
static void test_encode_equals_naive(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct random_source r = {.seed = seed};
        struct tokenizer *t = random_vocab(&r, "abcd", 60);
        struct encoder *e = open_encoder(t);
        struct token_list ids = {0};
        for (int i = 0; i < 250; i++) {
            char word[160];
            int32_t expected[160];
            size_t n = 1 + random_below(&r, i % 5 == 0 ? sizeof word : 40), letters = 1 + random_below(&r, 4);
            for (size_t k = 0; k < n; k++)
                word[k] = "abcd"[random_below(&r, letters)];
            size_t n_expected = naive_bpe(t, word, n, expected);
            for (int again = 0; again < 2; again++) {
                ids.length = 0;
                assert_int_equal(encoder_encode(e, word, n, false, &ids, NULL), PLM_OK);
                assert_int_equal(ids.length, n_expected);
                assert_memory_equal(ids.data, expected, n_expected * sizeof *expected);
            }
        }
        free(ids.data);
        encoder_free(e);
        tokenizer_free(t);
    }
}

/* More words than the cache holds: replacing entries must not change the result. */
static void test_cache_overflow(void **state)
{
    (void)state;
    struct random_source r = {.seed = 7};
    struct tokenizer *t = random_vocab(&r, "abcdefgh", 200);
    struct encoder *e = open_encoder(t), *fresh;
    struct token_list ids = {0}, again = {0};
    size_t n = 2000000;
    char *text = malloc(n);
    for (size_t i = 0; i < n; i++)
        text[i] = random_below(&r, 7) ? "abcdefgh"[random_below(&r, 8)] : ' ';
    assert_int_equal(encoder_encode(e, text, n, false, &ids, NULL), PLM_OK);
    assert_int_equal(encoder_encode(e, text, n, false, &again, NULL), PLM_OK);
    assert_int_equal(ids.length, again.length);
    assert_memory_equal(ids.data, again.data, ids.length * sizeof *ids.data);
    fresh = open_encoder(t);
    again.length = 0;
    size_t tail = n - 1000;
    while (text[tail] != ' ')
        tail--;
    assert_int_equal(encoder_encode(fresh, text + tail, n - tail, false, &again, NULL), PLM_OK);
    assert_memory_equal(ids.data + ids.length - again.length, again.data, again.length * sizeof *ids.data);
    free(text);
    free(ids.data);
    free(again.data);
    encoder_free(e);
    encoder_free(fresh);
    tokenizer_free(t);
}

static void check_round_trip(struct encoder *e, const struct tokenizer *t, const char *text, size_t n, bool parse_special,
                             const char *expected, size_t n_expected)
{
    struct token_list ids = {0};
    char *out;
    size_t n_out;
    assert_int_equal(encoder_encode(e, text, n, parse_special, &ids, NULL), PLM_OK);
    assert_int_equal(tokenizer_decode(t, ids.data, ids.length, true, &out, &n_out, NULL), PLM_OK);
    assert_int_equal(n_out, n_expected);
    assert_memory_equal(out, expected, n_out);
    free(out);
    free(ids.data);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct random_source r = {.seed = 8};
    struct tokenizer *t = random_vocab(&r, "ab\xC3\xA9 '\n", 100);
    struct encoder *e = open_encoder(t);
    struct nfc nfc = {0};
    char text[400];
    for (int i = 0; i < 10000; i++) {
        const char *normal;
        size_t n = random_text(&r, 100, text), n_normal;
        assert_int_equal(nfc_normalize(&nfc, text, n, &normal, &n_normal, NULL), PLM_OK);
        check_round_trip(e, t, text, n, false, normal, n_normal);
        n = random_below(&r, sizeof text);
        random_broken_bytes(&r, n, text);
        check_round_trip(e, t, text, n, i % 2, text, n);
    }
    check_round_trip(e, t, "", 0, true, "", 0);
    nfc_free(&nfc);
    encoder_free(e);
    tokenizer_free(t);
}

/* Each of these is one pre-token of a megabyte or more; anything quadratic runs into the time limit of the test. */
static void test_hostile_lengths(void **state)
{
    (void)state;
    static const char *const units[] = {"a", "ab", "abcb", " ", "\n", " \n", "!", "'", "\xFF", "\u4F60", "\u0301\u0323"};
    struct random_source r = {.seed = 9};
    struct tokenizer *t = random_vocab(&r, "abc !\n'", 200);
    struct encoder *e = open_encoder(t);
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        size_t unit = strlen(units[u]), n = (1 << 20) / unit * unit;
        char *text = malloc(n);
        struct nfc nfc = {0};
        const char *normal;
        size_t n_normal;
        for (size_t i = 0; i < n; i++)
            text[i] = units[u][i % unit];
        assert_int_equal(nfc_normalize(&nfc, text, n, &normal, &n_normal, NULL), PLM_OK);
        check_round_trip(e, t, text, n, true, normal, n_normal);
        nfc_free(&nfc);
        free(text);
    }
    encoder_free(e);
    tokenizer_free(t);
}

static struct tokenizer *byte_tokenizer(const struct special_token *specials, int n)
{
    struct tokenizer *t;
    char bytes[256];
    const char *token[256];
    size_t length[256];
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        token[i] = &bytes[i];
        length[i] = 1;
    }
    assert_int_equal(tokenizer_create(&t, token, length, 256, NULL, 0, specials, n, NULL), PLM_OK);
    return t;
}

static void test_special_tokens(void **state)
{
    (void)state;
    static const struct special_token specials[] = {{"<|a|>", 300}, {"<|a|>b", 256}, {"<|endoftext|>", 301}, {"\u00E9!", 257}};
    struct tokenizer *t = byte_tokenizer(specials, 4);
    struct encoder *e = open_encoder(t);
    struct token_list ids = {0};
    size_t length;
    bool special;
    char *text;
    assert_int_equal(tokenizer_vocab_size(t), 302);
    assert_int_equal(tokenizer_eos(t), 301);
    assert_int_equal(tokenizer_special_id(t, "<|a|>b"), 256);
    assert_int_equal(tokenizer_special_id(t, "<|a|"), -1);
    assert_string_equal(tokenizer_token(t, 300, &length, &special), "<|a|>");
    assert_int_equal(length, 5);
    assert_true(special);
    assert_null(tokenizer_token(t, 299, &length, &special));
    assert_int_equal(length, 0);
    assert_false(special);
    assert_null(tokenizer_token(t, -1, &length, NULL));
    assert_null(tokenizer_token(t, 302, &length, NULL));

    /* longest first; before normalisation, so that the mark does not reach into the special token */
    static const char input[] = "x<|a|><|a|>b<|a|<|a|>\u0338e\u0301!";
    static const int32_t expected[] = {'x', 300, 256, '<', '|', 'a', '|', 300, 0xCC, 0xB8, 0xC3, 0xA9, '!'};
    assert_int_equal(encoder_encode(e, input, sizeof input - 1, true, &ids, NULL), PLM_OK);
    assert_int_equal(ids.length, sizeof expected / sizeof expected[0]);
    assert_memory_equal(ids.data, expected, sizeof expected);
    assert_int_equal(tokenizer_decode(t, ids.data, 4, false, &text, &length, NULL), PLM_OK);
    assert_string_equal(text, "x<");
    free(text);

    ids.length = 0;
    assert_int_equal(encoder_encode(e, "<|a|>", 5, false, &ids, NULL), PLM_OK);
    assert_int_equal(ids.length, 5);
    free(ids.data);
    encoder_free(e);
    tokenizer_free(t);
}

static void test_decode_unknown(void **state)
{
    (void)state;
    static const struct special_token special = {"<|endoftext|>", 300};
    static const int32_t bad[] = {-1, 299, 301, INT32_MAX};
    struct tokenizer *t = byte_tokenizer(&special, 1);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct plm_status st = {0};
        int32_t ids[] = {65, bad[i]};
        char *text;
        size_t length;
        assert_int_equal(tokenizer_decode(t, ids, 2, true, &text, &length, &st), PLM_EINVAL);
        assert_non_null(strstr(st.message, "token 1 of 2"));
        assert_null(text);
    }
    tokenizer_free(t);
}

static void test_printable(void **state)
{
    (void)state;
    char form[8], back;
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        size_t n = tokenizer_printable(&byte, 1, form, sizeof form);
        uint32_t c;
        assert_int_equal(utf8_decode((unsigned char *)form, n, &c), n);
        assert_true(c > 32 && c != 127 && !(c >= 128 && c <= 160) && c != 173);
        assert_int_equal(tokenizer_unprintable(form, n, &back, 1), 1);
        assert_int_equal((unsigned char)back, b);
    }
    assert_int_equal(tokenizer_printable(" \n", 2, form, sizeof form), 4);
    assert_memory_equal(form, "\u0120\u010A", 4);
    assert_int_equal(tokenizer_printable("ab", 2, form, 1), 2);
    assert_int_equal(tokenizer_unprintable("\u20AC", 3, form, sizeof form), -1);
    assert_int_equal(tokenizer_unprintable(" ", 1, form, sizeof form), -1);
    assert_int_equal(tokenizer_unprintable("\u0144", 2, form, sizeof form), -1);
}

/* One thing wrong at a time. */
static void test_create_errors(void **state)
{
    (void)state;
    static const struct {
        int32_t missing, merges[2][2], special_id;
        const char *extra, *extra2, *special, *says;
    } cases[] = {
        {7, {{97, 98}, {98, 97}}, 300, "ab", "ba", "<s>", "byte 0x07"},
        {-1, {{97, 98}, {97, 98}}, 300, "ab", "ba", "<s>", "same pair"},
        {-1, {{97, 98}, {98, 98}}, 300, "ab", "ba", "<s>", "'bb'"},
        {-1, {{97, 98}, {98, 290}}, 300, "ab", "ba", "<s>", "merge 1"},
        {-1, {{97, 98}, {-1, 97}}, 300, "ab", "ba", "<s>", "id -1"},
        {-1, {{97, 98}, {98, 97}}, -5, "ab", "ba", "<s>", "id -5"},
        {-1, {{97, 98}, {98, 97}}, 300, "ab", "ab", "<s>", "tokens 256 and 257"},
        {-1, {{97, 98}, {98, 97}}, 300, "ab", "", "<s>", "empty"},
        {-1, {{97, 98}, {98, 97}}, 300, "ab", "ba", "", "no text"},
        {-1, {{97, 98}, {98, 97}}, 97, "ab", "ba", "<s>", "byte 0x61"},
        {-1, {{97, 98}, {98, 97}}, 300, "ab", "ba", "<t>", "twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct plm_status st = {0};
        struct tokenizer *t;
        char bytes[256];
        const char *token[258];
        size_t length[258];
        for (int b = 0; b < 256; b++) {
            bytes[b] = (char)b;
            token[b] = b == cases[i].missing ? NULL : &bytes[b];
            length[b] = 1;
        }
        token[256] = cases[i].extra, length[256] = strlen(token[256]);
        token[257] = cases[i].extra2, length[257] = strlen(token[257]);
        const struct special_token specials[] = {{cases[i].special, cases[i].special_id}, {"<t>", 299}};
        assert_int_equal(tokenizer_create(&t, token, length, 258, cases[i].merges, 2, specials, 2, &st), PLM_EFORMAT);
        assert_null(t);
        if (!strstr(st.message, cases[i].says))
            print_message("case %zu: '%s'\n", i, st.message);
        assert_non_null(strstr(st.message, cases[i].says));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode_equals_naive), cmocka_unit_test(test_cache_overflow),
        cmocka_unit_test(test_round_trip),          cmocka_unit_test(test_hostile_lengths),
        cmocka_unit_test(test_special_tokens),      cmocka_unit_test(test_decode_unknown),
        cmocka_unit_test(test_printable),           cmocka_unit_test(test_create_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
