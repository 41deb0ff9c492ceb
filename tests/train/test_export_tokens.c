/* A model's tokens go from a directory to GGUF, to a directory and to GGUF again, and are what they were. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/support.h"
#include "train/export.h"
#include "train/files.h"

enum { VOCAB = 280, TOKENS = 264 };

static void put(const char *dir, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* The 256 bytes and tokens of every kind; "</s>" and "~" end a text. */
static void write_model(char *dir, size_t size)
{
    static const struct special_token added[] = {{"<s>", 256, 0},
                                                 {"</s>", 257, ADDED_RSTRIP},
                                                 {"<call>", 258, ADDED_PLAIN},
                                                 {"caf\u00e9", 259, ADDED_PLAIN | ADDED_NORMALIZED},
                                                 {"word", 260, ADDED_PLAIN | ADDED_SINGLE_WORD | ADDED_LSTRIP},
                                                 {"<unk>", 262, 0},
                                                 {"<|im_end|>", 263, 0}};
    struct model_config c = small_config();
    char bytes[256];
    const char *token[TOKENS] = {NULL};
    size_t length[TOKENS] = {0}, n;
    struct tokenizer *t;
    c.vocab_size = VOCAB;
    write_random_model(&c, DTYPE_F32, dir, size);
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        token[i] = &bytes[i];
        length[i] = 1;
    }
    token[261] = "th", length[261] = 2;
    static const int32_t merges[][2] = {{'t', 'h'}};
    assert_int_equal(tokenizer_create(&t, token, length, TOKENS, merges, 1, added, 7, NULL), PLM_OK);
    const struct tokenizer_pipeline pipeline = {.no_nfc = true, .ignore_merges = true};
    assert_int_equal(tokenizer_set_pipeline(t, &pipeline, NULL), PLM_OK);
    char *json = tokenizer_to_json(t, &n);
    put(dir, "tokenizer.json", json);
    put(dir, "tokenizer_config.json",
        "{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\"}, \"add_bos_token\": true, "
        "\"plm_token_kinds\": {\"262\": 2, \"261\": 6}, \"plm_unused_tokens\": {\"270\": \"<free space>\"}}");
    put(dir, "generation_config.json", "{\"eos_token_id\": [257, 126]}");
    free(json);
    tokenizer_free(t);
}

static struct plm_model *open_or_fail(const char *path)
{
    struct plm_status st = {0};
    struct plm_model *m;
    if (plm_model_open(&m, path, &st))
        fail_msg("%s", st.message);
    return m;
}

static void convert(const char *from, const char *to, bool gguf)
{
    struct plm_status st = {0};
    struct plm_model *m = open_or_fail(from);
    struct model_card card;
    struct export_summary summary;
    struct export_type type;
    assert_true(export_type_by_name(&type, "f32"));
    int code = model_card_read(&card, m, from, &st);
    if (!code)
        code = gguf ? export_gguf(m, &card, &type, "test", to, &summary, &st)
                    : export_hf(m, &card, DTYPE_F32, 0, to, &summary, &st);
    if (code)
        fail_msg("%s", st.message);
    export_summary_free(&summary);
    model_card_free(&card);
    plm_model_close(m);
}

static void assert_same_tokens(const char *a, const char *b)
{
    struct plm_model *x = open_or_fail(a), *y = open_or_fail(b);
    for (int32_t id = 0; id < VOCAB; id++) {
        size_t n = 0, m = 0;
        const char *text = tokenizer_token(x->tokenizer, id, &n, NULL),
                   *other = tokenizer_token(y->tokenizer, id, &m, NULL);
        if (!text) {
            text = tokenizer_unused(x->tokenizer, id, &n);
            other = tokenizer_unused(y->tokenizer, id, &m);
        }
        assert_int_equal(n, m);
        assert_true(!text == !other && (!text || !memcmp(text, other, n)));
        assert_int_equal(tokenizer_kind(x->tokenizer, id), tokenizer_kind(y->tokenizer, id));
        assert_int_equal(tokenizer_traits(x->tokenizer, id), tokenizer_traits(y->tokenizer, id));
    }
    assert_memory_equal(tokenizer_marks(x->tokenizer), tokenizer_marks(y->tokenizer), sizeof(struct tokenizer_marks));
    assert_memory_equal(tokenizer_pipeline(x->tokenizer), tokenizer_pipeline(y->tokenizer),
                        sizeof(struct tokenizer_pipeline));
    assert_int_equal(x->ends.n, 2);
    assert_int_equal(y->ends.n, 2); /* not "<|im_end|>": it was not declared */
    for (int i = 0; i < 2; i++)
        assert_true(end_tokens_has(&y->ends, x->ends.ids[i]));
    plm_model_close(x);
    plm_model_close(y);
}

static void there_and_back(void **state)
{
    (void)state;
    char dir[64];
    write_model(dir, sizeof dir);
    convert(dir, "tokens.gguf", true);
    convert("tokens.gguf", "tokens-hf", false);
    convert("tokens-hf", "tokens-again.gguf", true);
    convert(dir, "tokens-copy", false);
    struct plm_model *m = open_or_fail(dir);
    assert_int_equal(tokenizer_kind(m->tokenizer, 262), TOKEN_UNKNOWN);
    assert_int_equal(tokenizer_kind(m->tokenizer, 261), TOKEN_BYTE);
    assert_int_equal(plm_token_bos(m), 256);
    assert_int_equal(plm_token_eos(m), 257);
    assert_true(plm_token_ends(m, '~') && plm_token_ends(m, 257) && !plm_token_ends(m, 263));
    plm_model_close(m);
    static const char *const made[] = {"tokens.gguf", "tokens-hf", "tokens-again.gguf", "tokens-copy"};
    for (int i = 0; i < 4; i++)
        assert_same_tokens(dir, made[i]);

    /* In llama.cpp's numbers and keys. */
    static const int32_t types[] = {3, 3, 4, 4, 4, 6, 2, 3, 5};
    struct gguf *g;
    uint64_t value = 0;
    assert_int_equal(gguf_open(&g, "tokens-again.gguf", NULL), PLM_OK);
    for (uint64_t i = 0; i < 9; i++)
        assert_int_equal(gguf_array_i32(g, "tokenizer.ggml.token_type", 256 + i), types[i]);
    assert_int_equal(gguf_get_u64(g, "tokenizer.ggml.add_bos_token", &value, NULL), PLM_OK);
    assert_int_equal(value, 1);
    assert_int_equal(gguf_get_u64(g, "tokenizer.ggml.bos_token_id", &value, NULL), PLM_OK);
    assert_int_equal(value, 256);
    gguf_close(g);
    for (int i = 0; i < 4; i++)
        if (strstr(made[i], ".gguf"))
            remove(made[i]);
        else
            assert_int_equal(directory_remove(made[i], NULL), PLM_OK);
    assert_int_equal(directory_remove(dir, NULL), PLM_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
