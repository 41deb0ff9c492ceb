/* Added tokens are found where the library of Hugging Face finds them: the values were made by tokenizers 0.23.3. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/tokenizer.h"

static const struct special_token sets[][4] = {
    {{"<tool>", 256, ADDED_PLAIN},
     {"<tool>x", 257, ADDED_PLAIN},
     {"<too", 258, 0},
     {"tool", 259, ADDED_PLAIN | ADDED_SINGLE_WORD}},
    {{"[L]", 256, ADDED_LSTRIP},
     {"[R]", 257, ADDED_PLAIN | ADDED_RSTRIP},
     {"[B]", 258, ADDED_PLAIN | ADDED_LSTRIP | ADDED_RSTRIP},
     {" [S]", 259, ADDED_PLAIN}},
    {{"an", 256, ADDED_PLAIN | ADDED_SINGLE_WORD},
     {"\xc3\xa9\xc3\xa9", 257, ADDED_PLAIN | ADDED_NORMALIZED | ADDED_SINGLE_WORD},
     {"__", 258, ADDED_PLAIN | ADDED_SINGLE_WORD},
     {"\xc3\xa9t\xc3\xa9", 259, ADDED_PLAIN | ADDED_NORMALIZED}},
    {{"e\xcc\x81", 256, ADDED_PLAIN},
     {"\xc3\xa9x", 257, ADDED_PLAIN | ADDED_NORMALIZED},
     {"\xe2\x84\xab", 258, ADDED_PLAIN | ADDED_NORMALIZED},
     {"o\xcc\x88", 259, ADDED_NORMALIZED}},
    {{"  ", 256, ADDED_PLAIN},
     {"   ", 257, ADDED_PLAIN | ADDED_NORMALIZED},
     {"\n", 258, ADDED_PLAIN | ADDED_NORMALIZED},
     {" \n", 259, ADDED_PLAIN | ADDED_RSTRIP}},
    {{"ab", 256, 0},
     {"abc", 257, ADDED_PLAIN},
     {"bcd", 258, ADDED_PLAIN | ADDED_NORMALIZED},
     {"bb", 259, ADDED_PLAIN | ADDED_LSTRIP | ADDED_RSTRIP | ADDED_SINGLE_WORD}},
};

/* Ids of bytes as bytes, of the added tokens as {0} to {3}; with special tokens parsed, and not. */
static const struct {
    int set;
    const char *text, *parsed, *plain;
} cases[] = {
    {0, "<tool>", "{0}", "{0}"},
    {0, "a <tool>xy tool", "a {1}y {3}", "a {1}y {3}"},
    {0, "toolbox tool. <too>", "toolbox {3}. {2}>", "toolbox {3}. <too>"},
    {0, "<tool><tool>x<too", "{0}{1}{2}", "{0}{1}<too"},
    {0, "tool", "{3}", "{3}"},
    {0, "\xc3\xa9tool tool\xc3\xa9 tool_ tool2 (tool)", "\xc3\xa9tool tool\xc3\xa9 tool_ tool2 ({3})",
     "\xc3\xa9tool tool\xc3\xa9 tool_ tool2 ({3})"},
    {0, "<tool> <TOOL>", "{0} <TOOL>", "{0} <TOOL>"},
    {1, "a  [L]  b", "a{0}  b", "a  [L]  b"},
    {1, "a  [R]  b", "a  {1}b", "a  {1}b"},
    {1, "a \n [B]\t\xc2\xa0 b", "a{2}b", "a{2}b"},
    {1, "a [S]b [S]", "a{3}b{3}", "a{3}b{3}"},
    {1, "[R]  [L]", "{1}{0}", "{1}[L]"},
    {1, "[R] [S]x", "{1}{3}x", "{1}{3}x"},
    {1, "x\xe2\x80\x83[B]\xe3\x80\x80[L]  [R]", "x{2}{0}  {1}", "x{2}[L]  {1}"},
    {1, "[L][R][B]", "{0}{1}{2}", "[L]{1}{2}"},
    {2, "an ant an", "{0} ant {0}", "{0} ant {0}"},
    {2, "ban an", "ban {0}", "ban {0}"},
    {2, "an_an __ an__ __", "an_an {2} an__ {2}", "an_an {2} an__ {2}"},
    {2,
     "\xc3\xa9\xc3\xa9 e\xcc\x81\xc3\xa9 \xc3\xa9"
     "e\xcc\x81"
     "a",
     "{1} {1} \xc3\xa9\xc3\xa9"
     "a",
     "{1} {1} \xc3\xa9\xc3\xa9"
     "a"},
    {2, "e\xcc\x81te\xcc\x81 \xc3\xa9t\xc3\xa9", "{3} {3}", "{3} {3}"},
    {2, "an\xcc\x81 an\xe2\x80\x8d an-an", "a\xc5\x84 an\xe2\x80\x8d {0}-{0}", "a\xc5\x84 an\xe2\x80\x8d {0}-{0}"},
    {2, "an2 2an an\xc2\xb2", "an2 2an {0}\xc2\xb2", "an2 2an {0}\xc2\xb2"},
    {3, "e\xcc\x81", "{0}", "{0}"},
    {3, "\xc3\xa9x", "{1}", "{1}"},
    {3, "e\xcc\x81\xc3\xa9xe\xcc\x81x", "{0}{1}{0}x", "{0}{1}{0}x"},
    {3, "\xe2\x84\xab A\xcc\x8a \xc3\x85", "{2} {2} {2}", "{2} {2} {2}"},
    {3, "xA\xcc\x8ay o\xcc\x88\xc3\xb6", "x{2}y {3}{3}", "x{2}y \xc3\xb6\xc3\xb6"},
    {3, "e\xcc\x81\xcc\x81", "{0}\xcc\x81", "{0}\xcc\x81"},
    {4, "a  b", "a{0}b", "a{0}b"},
    {4, "a   b", "a{0} b", "a{0} b"},
    {4, "a     b", "a{0}{0} b", "a{0}{0} b"},
    {4, " \n\n  \n", "{3}{0}{2}", "{3}{0}{2}"},
    {4, "\n", "{2}", "{2}"},
    {4, " \n  x  \n", "{3}{0}x{0}{2}", "{3}{0}x{0}{2}"},
    {5, "abc", "{1}", "{1}"},
    {5, "ab abcd", "{0} {1}d", "ab {1}d"},
    {5, "bcd abcdb", "{2} {1}db", "{2} {1}db"},
    {5, "a bb c", "a{3}c", "a{3}c"},
    {5, "bb bb  b bbb", "{3}{3}b bbb", "{3}{3}b bbb"},
    {5, "ab  bb", "{0}{3}", "ab{3}"},
};

static struct tokenizer *byte_tokenizer(const struct special_token *added, int n)
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
    assert_int_equal(tokenizer_create(&t, token, length, 256, NULL, 0, added, n, NULL), PLM_OK);
    return t;
}

static void show(const struct token_list *ids, char out[256])
{
    char *end = out;
    for (size_t i = 0; i < ids->length; i++)
        end += ids->data[i] < 256 ? sprintf(end, "%c", ids->data[i]) : sprintf(end, "{%d}", ids->data[i] - 256);
    *end = 0;
}

static void found_as_the_library_does(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof sets / sizeof *sets; k++) {
        struct tokenizer *made = byte_tokenizer(sets[k], 4), *read;
        size_t length;
        char *json = tokenizer_to_json(made, &length); /* traits go through a file and back */
        assert_int_equal(tokenizer_from_json(&read, json, length, "tokenizer.json", NULL), PLM_OK);
        for (int pass = 0; pass < 2; pass++) {
            struct encoder *e;
            struct token_list ids = {0};
            assert_int_equal(encoder_create(&e, pass ? read : made, NULL), PLM_OK);
            for (int i = 0; i < 4; i++)
                assert_int_equal(tokenizer_traits(read, 256 + i), sets[k][i].traits);
            for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
                for (int parsed = 0; parsed < 2 && cases[i].set == (int)k; parsed++) {
                    char shown[256];
                    ids.length = 0;
                    assert_int_equal(encoder_encode(e, cases[i].text, strlen(cases[i].text), parsed, &ids, NULL),
                                     PLM_OK);
                    show(&ids, shown);
                    assert_string_equal(shown, parsed ? cases[i].parsed : cases[i].plain);
                }
            free(ids.data);
            encoder_free(e);
        }
        free(json);
        tokenizer_free(made);
        tokenizer_free(read);
    }
}

/* A token that takes white space along leaves none of it to the next; what is left of that one stands, or nothing is.
 */
static void white_space_once(void **state)
{
    (void)state;
    static const struct special_token added[] = {{"<a>", 256, ADDED_PLAIN | ADDED_RSTRIP},
                                                 {" \t", 257, ADDED_PLAIN | ADDED_LSTRIP},
                                                 {"\t<b>", 258, ADDED_PLAIN | ADDED_LSTRIP},
                                                 {"\xff\xfe", 259, ADDED_PLAIN | ADDED_SINGLE_WORD}};
    static const struct {
        const char *text, *want;
    } texts[] = {{"<a> \tx", "{0}x"},
                 {"<a> \t<b>", "{0}<b>"},
                 {"<a>\t<b> ", "{0}{2} "},
                 {"  \t", "{1}"},
                 {"\xfd\xff\xfe\x80", "\xfd{3}\x80"},
                 {"a\xff\xfe", "a\xff\xfe"},
                 {"\xc3\xa9\xff\xfe", "\xc3\xa9\xff\xfe"},
                 {" \xff\xfe\xc3", " {3}\xc3"}};
    struct tokenizer *t = byte_tokenizer(added, 4);
    struct encoder *e;
    struct token_list ids = {0};
    assert_int_equal(encoder_create(&e, t, NULL), PLM_OK);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char shown[256];
        ids.length = 0;
        assert_int_equal(encoder_encode(e, texts[i].text, strlen(texts[i].text), false, &ids, NULL), PLM_OK);
        show(&ids, shown);
        assert_string_equal(shown, texts[i].want);
    }
    free(ids.data);
    encoder_free(e);
    tokenizer_free(t);
}

/* The tokens around a whole text: once, and only around it. */
static void whole_texts(void **state)
{
    (void)state;
    static const struct special_token added[] = {{"<s>", 256, 0}, {"</s>", 257, 0}};
    static const struct {
        bool bos, eos, parsed;
        const char *text, *want;
    } texts[] = {
        {true, false, false, "ab", "{0}ab"},       {true, true, false, "ab", "{0}ab{1}"},
        {false, true, false, "", "{1}"},           {true, false, true, "<s>ab", "{0}ab"},
        {true, false, false, "<s>ab", "{0}<s>ab"}, {true, true, true, "<s>a</s>", "{0}a{1}"},
        {true, false, true, "a<s>", "{0}a{0}"},    {true, false, true, "<s><s>", "{0}{0}"},
        {false, false, true, "<s>", "{0}"},        {true, true, true, "", "{0}{1}"},
    };
    struct tokenizer *t = byte_tokenizer(added, 2);
    struct encoder *e;
    struct token_list ids = {0};
    assert_int_equal(encoder_create(&e, t, NULL), PLM_OK);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char shown[256];
        const struct tokenizer_marks m = {256, 257, texts[i].bos, texts[i].eos};
        assert_int_equal(tokenizer_set_marks(t, &m, "test", NULL), PLM_OK);
        ids.length = 0;
        assert_int_equal(encoder_encode_whole(e, texts[i].text, strlen(texts[i].text), texts[i].parsed, &ids, NULL),
                         PLM_OK);
        show(&ids, shown);
        assert_string_equal(shown, texts[i].want);
    }
    free(ids.data);
    encoder_free(e);
    tokenizer_free(t);
}

/* With ignore_merges a pre-token that is in the vocabulary is that token, whether or not merges make it. */
static void merges_ignored(void **state)
{
    (void)state;
    static const int32_t merges[][2] = {{'a', 'b'}};
    char bytes[256];
    const char *token[258];
    size_t length[258];
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        token[i] = &bytes[i];
        length[i] = 1;
    }
    token[256] = "ab", length[256] = 2;
    token[257] = "abc", length[257] = 3; /* no merge makes it */
    struct tokenizer *t;
    struct encoder *e;
    struct token_list ids = {0};
    char shown[256];
    assert_int_equal(tokenizer_create(&t, token, length, 258, merges, 1, NULL, 0, NULL), PLM_OK);
    assert_int_equal(encoder_create(&e, t, NULL), PLM_OK);
    for (int ignore = 0; ignore < 2; ignore++) {
        assert_int_equal(tokenizer_set_pipeline(t, &(struct tokenizer_pipeline){.ignore_merges = ignore}, NULL),
                         PLM_OK);
        ids.length = 0;
        assert_int_equal(encoder_encode(e, "abc abcd", 8, false, &ids, NULL), PLM_OK);
        show(&ids, shown);
        assert_string_equal(shown, ignore ? "{1} {0}cd" : "{0}c {0}cd");
    }
    free(ids.data);
    encoder_free(e);
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(found_as_the_library_does), cmocka_unit_test(white_space_once),
                                       cmocka_unit_test(whole_texts), cmocka_unit_test(merges_ignored)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
