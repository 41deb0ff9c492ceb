/* tokenizer.json: written and read back, files by others, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "infer/text/tokenizer.h"
#include "tests/text/random_vocab.h"

static void assert_same(const struct tokenizer *a, const struct tokenizer *b)
{
    assert_int_equal(tokenizer_vocab_size(a), tokenizer_vocab_size(b));
    assert_int_equal(tokenizer_n_merges(a), tokenizer_n_merges(b));
    for (int32_t id = 0; id < tokenizer_vocab_size(a); id++) {
        size_t n_a, n_b;
        bool special_a, special_b;
        const char *bytes_a = tokenizer_token(a, id, &n_a, &special_a), *bytes_b = tokenizer_token(b, id, &n_b, &special_b);
        assert_int_equal(n_a, n_b);
        assert_int_equal(special_a, special_b);
        if (n_a)
            assert_memory_equal(bytes_a, bytes_b, n_a);
    }
    for (int32_t rank = 0; rank < tokenizer_n_merges(a); rank++) {
        int32_t pair_a[2], pair_b[2];
        tokenizer_merge(a, rank, &pair_a[0], &pair_a[1]);
        tokenizer_merge(b, rank, &pair_b[0], &pair_b[1]);
        assert_memory_equal(pair_a, pair_b, sizeof pair_a);
    }
}

static struct tokenizer *parse(const char *text, size_t n)
{
    struct tokenizer *t;
    struct plm_status st = {0};
    if (tokenizer_from_json(&t, text, n, "tokenizer.json", &st))
        fail_msg("%s", st.message);
    return t;
}

static char *sample(struct tokenizer **t, size_t *n)
{
    struct random_source r = {.seed = 11};
    *t = random_vocab(&r, "ab\"\\\x01\xC3\xA9 ", 120);
    char *json = tokenizer_to_json(*t, n);
    assert_non_null(json);
    return json;
}

static void test_round_trip(void **state)
{
    (void)state;
    struct tokenizer *t, *back;
    size_t n, n_again;
    char *json = sample(&t, &n);
    assert_int_equal(strlen(json), n);
    back = parse(json, n);
    assert_same(t, back);
    char *again = tokenizer_to_json(back, &n_again);
    assert_string_equal(json, again);
    free(json);
    free(again);
    tokenizer_free(t);
    tokenizer_free(back);
}

/* Newer files hold merges as ["a", "b"]. */
static void test_merges_as_pairs(void **state)
{
    (void)state;
    struct tokenizer *t, *back;
    size_t n, used;
    char *json = sample(&t, &n), *pairs = malloc(2 * n);
    const char *in = strstr(json, "\"merges\": [");
    used = (size_t)(in - json) + strlen("\"merges\": [");
    memcpy(pairs, json, used);
    for (in = json + used; *in; in++) {
        if (!strncmp(in, "\n      \"", 8)) {
            used += (size_t)sprintf(pairs + used, "\n      [\"");
            in += 7;
        } else if (*in == ' ' && in[-1] != ' ' && in[-1] != '\n' && in[1] != ' ') {
            used += (size_t)sprintf(pairs + used, "\", \"");
        } else if (*in == '"' && (in[1] == ',' || in[1] == '\n') && in[2] != '"' && !(in[-1] == '\\' && in[-2] != '\\')) {
            used += (size_t)sprintf(pairs + used, "\"]");
        } else {
            pairs[used++] = *in;
        }
    }
    back = parse(pairs, used);
    assert_same(t, back);
    free(json);
    free(pairs);
    tokenizer_free(t);
    tokenizer_free(back);
}

/* Special tokens inside the vocabulary, gaps, and an added token that is part of decoded text. */
static void test_other_layouts(void **state)
{
    (void)state;
    static const struct special_token specials[] = {{"<|endoftext|>", 256}, {"<s>", 270}};
    struct tokenizer *t, *back;
    char bytes[256], *text;
    const char *token[260] = {NULL};
    size_t length[260] = {0}, n;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        token[i] = &bytes[i];
        length[i] = 1;
    }
    token[258] = "th", length[258] = 2;
    static const int32_t merges[][2] = {{'t', 'h'}};
    assert_int_equal(tokenizer_create(&t, token, length, 260, merges, 1, specials, 2, NULL), PLM_OK);
    char *json = tokenizer_to_json(t, &n);
    back = parse(json, n);
    assert_same(t, back);
    tokenizer_free(back);
    char *flag = strstr(strstr(json, "\"<s>\""), "\"special\": true");
    memcpy(flag, "\"special\":false", 15);
    back = parse(json, n);
    static const int32_t ids[] = {258, 270, 256};
    assert_int_equal(tokenizer_decode(back, ids, 3, false, &text, &length[0], NULL), PLM_OK);
    assert_string_equal(text, "th<s>");
    free(text);
    free(json);
    tokenizer_free(t);
    tokenizer_free(back);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to; /* replaced once */
        int code;
        const char *says;
    } cases[] = {
        {"\"NFC\"", "\"NFKC\"", PLM_EUNSUPPORTED, "normalizer"},
        {"{\"type\": \"NFC\"}", "null", PLM_EUNSUPPORTED, "normalizer"},
        {"\"Isolated\"", "\"Removed\"", PLM_EUNSUPPORTED, "pretokenizers[0]"},
        {"|\\\\p{N}|", "|\\\\p{N}{1,3}|", PLM_EUNSUPPORTED, "pretokenizers[0]"},
        {"\"invert\": false", "\"invert\": true", PLM_EUNSUPPORTED, "pretokenizers[0]"},
        {"\"use_regex\": false", "\"use_regex\": true", PLM_EUNSUPPORTED, "pretokenizers[1]"},
        {"\"add_prefix_space\": false", "\"add_prefix_space\": true", PLM_EUNSUPPORTED, "pretokenizers[1]"},
        {"\"decoder\": {\"type\": \"ByteLevel\"", "\"decoder\": {\"type\": \"Metaspace\"", PLM_EUNSUPPORTED, "decoder"},
        {"\"post_processor\": {\"type\": \"ByteLevel\"", "\"post_processor\": {\"type\": \"BertProcessing\"",
         PLM_EUNSUPPORTED, "post_processor"},
        {"\"truncation\": null", "\"truncation\": {}", PLM_EUNSUPPORTED, "truncation"},
        {"\"BPE\"", "\"Unigram\"", PLM_EUNSUPPORTED, "model"},
        {"\"dropout\": null", "\"dropout\": 0.1", PLM_EUNSUPPORTED, "dropout"},
        {"\"unk_token\": null", "\"unk_token\": \"<unk>\"", PLM_EUNSUPPORTED, "unk_token"},
        {"\"byte_fallback\": false", "\"byte_fallback\": true", PLM_EUNSUPPORTED, "byte_fallback"},
        {"\"ignore_merges\": false", "\"ignore_merges\": true", PLM_EUNSUPPORTED, "ignore_merges"},
        {"\"end_of_word_suffix\": \"\"", "\"end_of_word_suffix\": \"</w>\"", PLM_EUNSUPPORTED, "end_of_word_suffix"},
        {"\"lstrip\": false", "\"lstrip\": true", PLM_EUNSUPPORTED, "added_tokens[0]"},
        {"\"model\": {", "\"modell\": {", PLM_EFORMAT, "model"},
        {"\"vocab\": {", "\"vocabulary\": {", PLM_EFORMAT, "vocab"},
        {"\"merges\": [", "\"merge\": [", PLM_EFORMAT, "merges"},
        {": 7,", ": 8,", PLM_EFORMAT, "id 8"},
        {": 7,", ": -7,", PLM_EFORMAT, "vocab"},
        {": 7,", ": 7.5,", PLM_EFORMAT, "vocab"},
        {": 7,", ": 60000000,", PLM_EFORMAT, "60000000"},
        {": 7,", ": \"x\",", PLM_EFORMAT, "vocab"},
        {"\"id\": ", "\"id\": 99999", PLM_EFORMAT, "<|endoftext|>"},
        {"\"id\": ", "\"id\": 12, \"i\": ", PLM_EFORMAT, "<|endoftext|>"},
        {"\"content\": \"<|endoftext|>\"", "\"content\": \"\"", PLM_EFORMAT, "added_tokens[0]"},
        {"\"merges\": [", "\"merges\": [\"ab\",", PLM_EFORMAT, "merges[0]"},
        {"\"merges\": [", "\"merges\": [7,", PLM_EFORMAT, "merges[0]"},
        {"\"merges\": [", "\"merges\": [\"a \",", PLM_EFORMAT, "merges[0]"},
        {"\"merges\": [", "\"merges\": [[\"a\"],", PLM_EFORMAT, "merges[0]"},
        {"\"merges\": [", "\"merges\": [\"qq zz\",", PLM_EFORMAT, "'qq'"},
        {"\"merges\": [", "\"merges\": [\"z z\",", PLM_EFORMAT, "'zz'"},
        {"\"version\"", "version", PLM_EFORMAT, "tokenizer.json"},
    };
    struct tokenizer *t, *back;
    size_t n;
    char *json = sample(&t, &n), *changed = malloc(n + 256);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct plm_status st = {0};
        const char *at = strstr(json, cases[i].from);
        assert_non_null(at);
        int length = sprintf(changed, "%.*s%s%s", (int)(at - json), json, cases[i].to, at + strlen(cases[i].from));
        int code = tokenizer_from_json(&back, changed, (size_t)length, "tokenizer.json", &st);
        if (code != cases[i].code || !strstr(st.message, cases[i].says))
            print_message("case %zu: code %d '%s'\n", i, code, st.message);
        assert_int_equal(code, cases[i].code);
        assert_int_equal(st.code, code);
        assert_non_null(strstr(st.message, cases[i].says));
        assert_non_null(strstr(st.message, "tokenizer.json"));
        assert_null(back);
    }
    for (size_t cut = 0; cut < n - 1; cut += cut < 2000 ? 7 : 97) { /* every truncation is an error, none a crash */
        struct plm_status st = {0};
        memcpy(changed, json, cut);
        char *exact = malloc(cut + 1);
        memcpy(exact, json, cut);
        assert_int_not_equal(tokenizer_from_json(&back, exact, cut, "tokenizer.json", &st), PLM_OK);
        free(exact);
    }
    free(json);
    free(changed);
    tokenizer_free(t);
}

static void test_open(void **state)
{
    (void)state;
    struct tokenizer *t, *back;
    struct plm_status st = {0};
    size_t n;
    char *json = sample(&t, &n), path[] = "tokenizer-XXXXXX", file[64];
    assert_non_null(mkdtemp(path));
    snprintf(file, sizeof file, "%s/tokenizer.json", path);
    assert_int_equal(tokenizer_open(&back, path, &st), PLM_EIO);
    assert_non_null(strstr(st.message, file));
    FILE *out = fopen(file, "w");
    assert_non_null(out);
    assert_int_equal(fwrite(json, 1, n, out), n);
    fclose(out);
    assert_int_equal(tokenizer_open(&back, path, NULL), PLM_OK);
    assert_same(t, back);
    tokenizer_free(back);
    assert_int_equal(tokenizer_open(&back, file, NULL), PLM_OK);
    tokenizer_free(back);
    unlink(file);
    rmdir(path);
    free(json);
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_merges_as_pairs),
                                       cmocka_unit_test(test_other_layouts), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_open)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
