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
        {"{\"type\": \"NFC\"}",
         "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": \"Lowercase\"}]}",
         PLM_EUNSUPPORTED, "Lowercase"},
        {"{\"type\": \"NFC\"}", "{\"type\": \"Sequence\"}", PLM_EUNSUPPORTED, "normalizer"},
        {"\"post_processor\": {\"type\": \"ByteLevel\"",
         "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": []", PLM_EUNSUPPORTED, "single"},
        {"\"post_processor\": {\"type\": \"ByteLevel\"",
         "\"post_processor\": {\"type\": \"RobertaProcessing\", \"cls\": [\"a\", 99999], \"sep\": [\"b\", 1]",
         PLM_EFORMAT, "99999"},
        {"\"lstrip\": false", "\"lstrip\": 1", PLM_EFORMAT, "lstrip"},
        {"\"ignore_merges\": false", "\"ignore_merges\": 0", PLM_EFORMAT, "ignore_merges"},
        {"\"Isolated\"", "\"Removed\"", PLM_EUNSUPPORTED, "pretokenizers[0]"},
        {"|\\\\p{N}|", "|\\\\p{N}{1,3}|", PLM_EUNSUPPORTED, "pretokenizers[0]"},
        {"\"invert\": false", "\"invert\": true", PLM_EUNSUPPORTED, "pretokenizers[0]"},
        {"\"use_regex\": false", "\"use_regex\": true", PLM_EUNSUPPORTED, "pretokenizers[1]"},
        {"\"add_prefix_space\": false", "\"add_prefix_space\": true", PLM_EUNSUPPORTED, "pretokenizers[1]"},
        {"\"decoder\": {\"type\": \"ByteLevel\"", "\"decoder\": {\"type\": \"Metaspace\"", PLM_EUNSUPPORTED, "decoder"},
        {"\"post_processor\": {\"type\": \"ByteLevel\"", "\"post_processor\": {\"type\": \"BertProcessing\"",
         PLM_EUNSUPPORTED, "post_processor"},
        {"\"BPE\"", "\"Unigram\"", PLM_EUNSUPPORTED, "model"},
        {"\"dropout\": null", "\"dropout\": 0.1", PLM_EUNSUPPORTED, "dropout"},
        {"\"end_of_word_suffix\": \"\"", "\"end_of_word_suffix\": \"</w>\"", PLM_EUNSUPPORTED, "end_of_word_suffix"},
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

/* Settings that change nothing, or that are applied. */
static void test_accepted(void **state)
{
    (void)state;
#define NFC "{\"type\": \"NFC\"}"
#define POST "\"post_processor\": {\"type\": \"ByteLevel\""
#define SINGLE "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}"
#define SPECIALS                                                                                               \
    "\"special_tokens\": {\"<s>\": {\"id\": \"<s>\", \"ids\": [65], \"tokens\": [\"A\"]}, \"</s>\": {\"id\": " \
    "\"</s>\", \"ids\": [66], \"tokens\": [\"B\"]}}"
    static const struct {
        const char *from, *to;
        int before, behind; /* tokens around a text */
        int n;              /* tokens of "e" and a combining acute accent: two without NFC */
    } cases[] = {
        {"\"truncation\": null", "\"truncation\": {\"max_length\": 2, \"stride\": 0}", -1, -1, 2},
        {"\"padding\": null", "\"padding\": {\"strategy\": {\"Fixed\": 9}}", -1, -1, 2},
        {"\"unk_token\": null", "\"unk_token\": \"<unk>\"", -1, -1, 2},
        {"\"byte_fallback\": false", "\"byte_fallback\": true", -1, -1, 2},
        {"\"dropout\": null", "\"dropout\": 0.0", -1, -1, 2},
        {"\"end_of_word_suffix\": \"\"", "\"end_of_word_suffix\": null", -1, -1, 2},
        {"\"type\": \"BPE\"", "\"type\": null", -1, -1, 2},
        {NFC, "{\"type\": \"Sequence\", \"normalizers\": [" NFC ", " NFC "]}", -1, -1, 2},
        {NFC, "{\"type\": \"Sequence\", \"normalizers\": []}", -1, -1, 3},
        {NFC, "null", -1, -1, 3},
        {POST, "\"post_processor\": null, \"unknown\": {\"x\": 1", -1, -1, 2},
        {POST,
         "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\", "
         "\"type_id\": 0}}, " SINGLE "], " SPECIALS,
         65, -1, 2},
        {POST,
         "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [" SINGLE
         ", {\"SpecialToken\": {\"id\": \"</s>\", \"type_id\": 0}}], " SPECIALS,
         -1, 66, 2},
        {POST, "\"post_processor\": {\"type\": \"RobertaProcessing\", \"cls\": [\"A\", 65], \"sep\": [\"B\", 66]", 65,
         66, 2},
        {POST,
         "\"post_processor\": {\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, {\"type\": "
         "\"BertProcessing\", \"cls\": [\"A\", 65], "
         "\"sep\": [\"B\", 66]}]",
         65, 66, 2},
    };
    struct tokenizer *t;
    size_t n;
    char *json = sample(&t, &n), *changed = malloc(n + 1024);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct plm_status st = {0};
        const char *at = strstr(json, cases[i].from);
        assert_non_null(at);
        const int length =
            sprintf(changed, "%.*s%s%s", (int)(at - json), json, cases[i].to, at + strlen(cases[i].from));
        struct tokenizer *got, *again;
        struct encoder *e;
        struct token_list ids = {0};
        if (tokenizer_from_json(&got, changed, (size_t)length, "tokenizer.json", &st))
            fail_msg("case %zu: %s", i, st.message);
        size_t m;
        char *written = tokenizer_to_json(got, &m); /* what was applied is written again */
        again = parse(written, m);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(encoder_create(&e, k ? again : got, NULL), PLM_OK);
            ids.length = 0;
            assert_int_equal(encoder_encode_whole(e, "e\u0301", 3, false, &ids, NULL), PLM_OK);
            if ((int)ids.length - (cases[i].before >= 0) - (cases[i].behind >= 0) > 3 || ids.length == 0)
                fail_msg("case %zu: %zu tokens", i, ids.length);
            assert_true(cases[i].before < 0 || ids.data[0] == cases[i].before);
            assert_true(cases[i].behind < 0 || ids.data[ids.length - 1] == cases[i].behind);
            assert_int_equal(tokenizer_pipeline(k ? again : got)->no_nfc, cases[i].n == 3);
            encoder_free(e);
        }
        free(ids.data);
        free(written);
        tokenizer_free(again);
        tokenizer_free(got);
    }
    free(json);
    free(changed);
    tokenizer_free(t);
}

/* A pair that is listed twice merges by its later rank: "ab" comes before "bc" in the first list, behind it in the
 * second. */
static void test_duplicate_merges(void **state)
{
    (void)state;
    char bytes[256];
    const char *token[258];
    size_t length[258], n;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        token[i] = &bytes[i];
        length[i] = 1;
    }
    token[256] = "ab", length[256] = 2, token[257] = "bc", length[257] = 2;
    static const int32_t merges[][2] = {{'a', 'b'}, {'b', 'c'}};
    struct tokenizer *t, *back;
    struct encoder *e;
    struct token_list ids = {0};
    assert_int_equal(tokenizer_create(&t, token, length, 258, merges, 2, NULL, 0, NULL), PLM_OK);
    char *json = tokenizer_to_json(t, &n), *changed = malloc(n + 16), *at = strstr(json, "\"b c\"");
    n = (size_t)sprintf(changed, "%.*s\"b c\", \"a b\"%s", (int)(at - json), json, at + 5);
    back = parse(changed, n);
    assert_int_equal(tokenizer_n_merges(back), 2);
    assert_int_equal(encoder_create(&e, back, NULL), PLM_OK);
    assert_int_equal(encoder_encode(e, "abc", 3, false, &ids, NULL), PLM_OK);
    assert_int_equal(ids.length, 2);
    assert_int_equal(ids.data[0], 'a');
    assert_int_equal(ids.data[1], 257);
    encoder_free(e);
    free(ids.data);
    free(json);
    free(changed);
    tokenizer_free(t);
    tokenizer_free(back);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip),
                                       cmocka_unit_test(test_merges_as_pairs),
                                       cmocka_unit_test(test_other_layouts),
                                       cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_open),
                                       cmocka_unit_test(test_accepted),
                                       cmocka_unit_test(test_duplicate_merges)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
