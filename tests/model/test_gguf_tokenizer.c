/* Tokenizers in GGUF files as others write them: every kind of token, keys that are missing, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/model.h"

#define GGUF_NAME "tokenizer-kinds.gguf"
enum { BYTES = 256, MOST = BYTES + 12 };

/* The 256 bytes, and these behind them. */
struct file {
    struct {
        const char *text;
        int32_t type;
    } more[12];
    const char *merges[6];
    const char *pre;   /* NULL: no such key */
    bool untyped;      /* no token_type */
    int32_t traits[6]; /* ADDED_TRAITS_KEY */
    int n_traits;
    int drop; /* so many types are missing */
};

static void write_file(const struct file *f)
{
    char printable[BYTES][8];
    const char *text[MOST], *merges[6];
    size_t length[MOST], merge_length[6];
    int32_t types[MOST];
    uint64_t n = BYTES, n_merges = 0;
    struct gguf_writer *w;
    for (int i = 0; i < BYTES; i++) {
        const char byte = (char)i;
        text[i] = printable[i];
        length[i] = tokenizer_printable(&byte, 1, printable[i], sizeof printable[i]);
        types[i] = TOKEN_NORMAL;
    }
    for (; n < MOST && f->more[n - BYTES].text; n++) {
        text[n] = f->more[n - BYTES].text;
        length[n] = strlen(text[n]);
        types[n] = f->more[n - BYTES].type;
    }
    for (; n_merges < 6 && f->merges[n_merges]; n_merges++) {
        merges[n_merges] = f->merges[n_merges];
        merge_length[n_merges] = strlen(merges[n_merges]);
    }
    assert_int_equal(gguf_create(&w, GGUF_NAME, NULL), PLM_OK);
    gguf_set_string(w, "tokenizer.ggml.model", "gpt2", 4, NULL);
    if (f->pre)
        gguf_set_string(w, "tokenizer.ggml.pre", f->pre, strlen(f->pre), NULL);
    gguf_set_strings(w, "tokenizer.ggml.tokens", text, length, n, NULL);
    if (!f->untyped)
        gguf_set_i32s(w, "tokenizer.ggml.token_type", types, n - (uint64_t)f->drop, NULL);
    gguf_set_strings(w, "tokenizer.ggml.merges", merges, merge_length, n_merges, NULL);
    if (f->n_traits)
        gguf_set_i32s(w, ADDED_TRAITS_KEY, f->traits, (uint64_t)f->n_traits, NULL);
    assert_int_equal(gguf_declare(w, "x", DTYPE_F32, 1, (int64_t[]){1}, NULL), PLM_OK);
    assert_int_equal(gguf_write(w, &(float){1}, sizeof(float), NULL), PLM_OK);
    assert_int_equal(gguf_finish(w, NULL), PLM_OK);
}

static int read_back(struct tokenizer **t, const struct file *f, struct plm_status *st)
{
    struct gguf *g;
    write_file(f);
    assert_int_equal(gguf_open(&g, GGUF_NAME, NULL), PLM_OK);
    const int code = gguf_read_tokenizer(t, g, st);
    gguf_close(g);
    remove(GGUF_NAME);
    return code;
}

/* Ids as characters, those behind the bytes as {0}, {1}, ... */
static void encode(const struct tokenizer *t, const char *text, bool parse_special, char shown[128])
{
    struct encoder *e;
    struct token_list ids = {0};
    shown[0] = 0;
    assert_int_equal(encoder_create(&e, t, NULL), PLM_OK);
    assert_int_equal(encoder_encode(e, text, strlen(text), parse_special, &ids, NULL), PLM_OK);
    for (size_t i = 0; i < ids.length; i++)
        sprintf(shown + strlen(shown), ids.data[i] < BYTES ? "%c" : "{%d}",
                ids.data[i] < BYTES ? ids.data[i] : ids.data[i] - BYTES);
    free(ids.data);
    encoder_free(e);
}

static void every_kind(void **state)
{
    (void)state;
    static const struct file f = {.pre = "qwen2",
                                  .more = {{"<|x|>", TOKEN_CONTROL},
                                           {"<call>", TOKEN_USER_DEFINED},
                                           {"<unk>", TOKEN_UNKNOWN},
                                           {"[PAD259]", TOKEN_UNUSED},
                                           {"<free space>", TOKEN_UNUSED},
                                           {"th", TOKEN_BYTE},
                                           {"the", TOKEN_USER_DEFINED},
                                           {"theo", TOKEN_NORMAL},
                                           {"", TOKEN_NORMAL}},
                                  .merges = {"t h", "th e", "the o"},
                                  .traits = {BYTES + 6, ADDED_PLAIN | ADDED_SINGLE_WORD},
                                  .n_traits = 2};
    static const enum tokenizer_kind kinds[] = {TOKEN_CONTROL,      TOKEN_USER_DEFINED, TOKEN_UNKNOWN,
                                                TOKEN_NONE,         TOKEN_NONE,         TOKEN_BYTE,
                                                TOKEN_USER_DEFINED, TOKEN_NORMAL,       TOKEN_NONE};
    static const struct {
        const char *text, *plain, *special;
    } texts[] = {{"a<call>b", "a{1}b", "a{1}b"},
                 {"<|x|><unk>", "<|x|><unk>", "{0}{2}"},
                 {"<free space>", "<free space>", "<free space>"},
                 {"the", "{6}", "{6}"},
                 {"theo", "{7}", "{7}"},
                 {"a thee", "a {6}e", "a {6}e"}}; /* made by merges within a word */
    struct plm_status st = {0};
    struct tokenizer *t;
    size_t n;
    if (read_back(&t, &f, &st))
        fail_msg("%s", st.message);
    for (int i = 0; i < 9; i++)
        assert_int_equal(tokenizer_kind(t, BYTES + i), kinds[i]);
    assert_int_equal(tokenizer_kind(t, 'a'), TOKEN_NORMAL);
    assert_int_equal(tokenizer_traits(t, BYTES + 6), ADDED_PLAIN | ADDED_SINGLE_WORD);
    assert_null(tokenizer_unused(t, BYTES + 3, &n)); /* what every program writes for a row without a token */
    assert_memory_equal(tokenizer_unused(t, BYTES + 4, &n), "<free space>", 13);
    assert_int_equal(n, 12);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char shown[128];
        encode(t, texts[i].text, false, shown);
        assert_string_equal(shown, texts[i].plain);
        encode(t, texts[i].text, true, shown);
        assert_string_equal(shown, texts[i].special);
    }
    tokenizer_free(t);
}

static void missing_keys(void **state)
{
    (void)state;
    static const struct file f = {.untyped = true, .more = {{"<|x|>", 0}, {"<call>", 0}, {"th", 0}}, .merges = {"t h"}};
    struct plm_status st = {0};
    struct tokenizer *t;
    char shown[128];
    if (read_back(&t, &f, &st))
        fail_msg("%s", st.message);
    encode(t, "th<|x|><call>", true, shown);
    assert_string_equal(shown, "{2}{0}<call>");
    assert_int_equal(tokenizer_kind(t, BYTES), TOKEN_CONTROL);
    assert_int_equal(tokenizer_kind(t, BYTES + 1), TOKEN_NORMAL);
    tokenizer_free(t);
}

/* Of a merge that is listed twice the first rank counts, as llama.cpp has it. */
static void duplicate_merges(void **state)
{
    (void)state;
    static const struct file f = {
        .pre = "qwen2", .more = {{"ab", TOKEN_NORMAL}, {"bc", TOKEN_NORMAL}}, .merges = {"a b", "b c", "a b"}};
    struct plm_status st = {0};
    struct tokenizer *t;
    char shown[128];
    if (read_back(&t, &f, &st))
        fail_msg("%s", st.message);
    assert_int_equal(tokenizer_n_merges(t), 2);
    encode(t, "abc", false, shown);
    assert_string_equal(shown, "{0}c");
    tokenizer_free(t);
}

static void refused(void **state)
{
    (void)state;
    static const struct {
        struct file f;
        int code;
        const char *says;
    } cases[] = {
        {{.pre = "llama-bpe"}, PLM_EUNSUPPORTED, "tokenizer.ggml.pre is 'llama-bpe'"},
        {{.pre = "qwen2", .drop = 3}, PLM_EFORMAT, "token_type"},
        {{.pre = "qwen2", .more = {{"x", 9}}}, PLM_EFORMAT, "token_type[256] is 9"},
        {{.pre = "qwen2", .more = {{"x", -1}}}, PLM_EFORMAT, "token_type[256] is -1"},
        {{.pre = "qwen2", .more = {{"a b", TOKEN_NORMAL}}}, PLM_EFORMAT, "byte-level alphabet"},
        {{.pre = "qwen2", .merges = {"t hh"}}, PLM_EFORMAT, "merges[0]"},
        {{.pre = "qwen2", .more = {{"<x>", TOKEN_USER_DEFINED}}, .traits = {BYTES, 99}, .n_traits = 2},
         PLM_EFORMAT,
         ADDED_TRAITS_KEY},
        {{.pre = "qwen2", .more = {{"<x>", TOKEN_USER_DEFINED}}, .traits = {BYTES, 0}, .n_traits = 2},
         PLM_EFORMAT,
         "do not fit its token_type"},
        {{.pre = "qwen2", .more = {{"<x>", TOKEN_CONTROL}}, .traits = {7, 2}, .n_traits = 2}, PLM_EFORMAT, "token 7"},
        {{.pre = "qwen2", .more = {{"<x>", TOKEN_CONTROL}, {"<x>", TOKEN_CONTROL}}}, PLM_EFORMAT, "given twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plm_status st = {0};
        struct tokenizer *t = NULL;
        const int code = read_back(&t, &cases[i].f, &st);
        if (code != cases[i].code || !strstr(st.message, cases[i].says))
            fail_msg("case %zu: code %d '%s'", i, code, st.message);
        assert_null(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_kind), cmocka_unit_test(missing_keys),
                                       cmocka_unit_test(duplicate_merges), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
