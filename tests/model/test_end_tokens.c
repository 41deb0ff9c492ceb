/* What ends a text is what a model's files declare, however it is spelled. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "infer/format/gguf.h"
#include "infer/model/end_tokens.h"
#include "tests/model/support.h"

enum { VOCAB = 262 }; /* three rows more than tokens */
#define DIR_NAME "end-tokens"
#define GGUF_NAME "end-tokens.gguf"

static void put(const char *name, const char *text)
{
    char path[64];
    snprintf(path, sizeof path, DIR_NAME "/%s", name);
    remove(path);
    FILE *f = text ? fopen(path, "w") : NULL;
    if (f) {
        fputs(text, f);
        fclose(f);
    }
}

/* "261 3" */
static void show(const struct end_tokens *e, char out[128])
{
    out[0] = 0;
    for (int i = 0; i < e->n; i++)
        sprintf(out + strlen(out), "%s%d", i ? " " : "", (int)e->ids[i]);
}

static void directories(void **state)
{
    (void)state;
    static const struct {
        const char *config, *generation, *tokenizer; /* NULL: no such file */
        const char *ends;                            /* NULL: an error that says: */
        const char *says;
        int eos, bos;
    } cases[] = {
        {"{}", NULL, NULL, "256 258", NULL, 256, -1}, /* nothing declared: by spelling */
        {"{\"eos_token_id\": 7}", NULL, NULL, "7", NULL, 7, -1},
        {"{\"eos_token_id\": null}", "{\"eos_token_id\": [258, 65]}", NULL, "258 65", NULL, 258, -1},
        {"{\"eos_token_id\": 256}", "{\"eos_token_id\": [258, 256, 258]}", NULL, "258 256", NULL, 256, -1},
        {"{\"eos_token_id\": [10, 11], \"bos_token_id\": 257}", "{}", NULL, "10 11", NULL, 10, 257},
        {"{\"eos_token_id\": 261}", NULL, NULL, "261", NULL, 256, -1}, /* a row without a token still ends a text */
        {"{}", NULL, "{\"eos_token\": \"<|im_end|>\"}", "258", NULL, 258, -1},
        {"{}", NULL, "{\"eos_token\": {\"content\": \"<|im_end|>\", \"lstrip\": false}, \"bos_token\": null}", "258",
         NULL, 258, -1},
        {"{\"eos_token_id\": 256}", NULL, "{\"eos_token\": \"<|im_end|>\", \"bos_token\": \"A\"}", "256", NULL, 258,
         'A'},
        {"{}", NULL, "{\"eos_token\": \"<no such>\", \"add_bos_token\": false}", "256 258", NULL, 256, -1},
        {"{\"eos_token_id\": 262}", NULL, NULL, NULL, "262", 0, 0},
        {"{\"eos_token_id\": [1, -1]}", NULL, NULL, NULL, "-1", 0, 0},
        {"{\"eos_token_id\": \"</s>\"}", NULL, NULL, NULL, "neither an integer", 0, 0},
        {"{\"eos_token_id\": 1.5}", NULL, NULL, NULL, "neither an integer", 0, 0},
        {"{}", "{\"eos_token_id\": [1, [2]]}", NULL, NULL, "generation_config.json", 0, 0},
        {"{}", "[1]", NULL, NULL, "generation_config.json", 0, 0},
        {"{\"bos_token_id\": 900}", NULL, NULL, NULL, "bos_token_id is 900", 0, 0},
        {"{}", NULL, "{\"add_bos_token\": true}", NULL, "add_bos_token", 0, 0},
        {"{}", NULL, "{\"add_eos_token\": 1}", NULL, "add_eos_token", 0, 0},
        {"{}", NULL, "{\"eos_token\": 5}", NULL, "eos_token", 0, 0},
    };
    mkdir(DIR_NAME, 0777);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plm_status st = {0};
        struct tokenizer *t;
        struct end_tokens e = {0};
        char shown[128];
        byte_tokenizer(&t);
        put("config.json", cases[i].config);
        put("generation_config.json", cases[i].generation);
        put("tokenizer_config.json", cases[i].tokenizer);
        int code = tokenizer_read_config(t, DIR_NAME "/tokenizer.json", &st);
        if (!code)
            code = end_tokens_read_directory(&e, t, VOCAB, DIR_NAME, &st);
        show(&e, shown);
        if (!!code == !!cases[i].ends)
            fail_msg("case %zu: code %d '%s', %s", i, code, st.message, shown);
        if (cases[i].ends) {
            assert_string_equal(shown, cases[i].ends);
            assert_int_equal(tokenizer_eos(t), cases[i].eos);
            assert_int_equal(tokenizer_marks(t)->bos, cases[i].bos);
        } else {
            assert_int_equal(code, PLM_EFORMAT);
            assert_non_null(strstr(st.message, cases[i].says));
        }
        tokenizer_free(t);
        free(e.ids);
    }
    put("config.json", NULL), put("generation_config.json", NULL), put("tokenizer_config.json", NULL);
    rmdir(DIR_NAME);
}

/* A directory written from what was read says the same. */
static void written_again(void **state)
{
    (void)state;
    struct tokenizer *t, *back;
    struct end_tokens e = {0}, again = {0};
    char shown[128];
    byte_tokenizer(&t), byte_tokenizer(&back);
    assert_int_equal(tokenizer_set_marks(t, &(struct tokenizer_marks){257, 258, true, false}, "test", NULL), PLM_OK);
    assert_int_equal(end_tokens_add(&e, 33, NULL), PLM_OK);
    assert_int_equal(end_tokens_add(&e, 258, NULL), PLM_OK);
    char *generation = end_tokens_generation_config(&e, t), *tokenizer = end_tokens_tokenizer_config(t);
    mkdir(DIR_NAME, 0777);
    put("config.json", "{}"), put("generation_config.json", generation), put("tokenizer_config.json", tokenizer);
    assert_int_equal(tokenizer_read_config(back, DIR_NAME "/tokenizer.json", NULL), PLM_OK);
    assert_int_equal(end_tokens_read_directory(&again, back, VOCAB, DIR_NAME, NULL), PLM_OK);
    show(&again, shown);
    assert_string_equal(shown, "33 258");
    assert_memory_equal(tokenizer_marks(back), tokenizer_marks(t), sizeof(struct tokenizer_marks));
    put("config.json", NULL), put("generation_config.json", NULL), put("tokenizer_config.json", NULL);
    rmdir(DIR_NAME);
    free(generation), free(tokenizer), free(e.ids), free(again.ids);
    tokenizer_free(t), tokenizer_free(back);
}

struct entry {
    const char *key;
    uint32_t id;
};

static void gguf_files(void **state)
{
    (void)state;
#define G "tokenizer.ggml."
    static const struct {
        struct entry entries[4];
        int add_bos;      /* -1: not said */
        int32_t exact[3]; /* END_TOKENS_KEY, n_exact of them */
        int n_exact;
        const char *ends, *says;
        int eos, bos;
    } cases[] = {
        {{{0}}, -1, {0}, 0, "256 258", NULL, 256, -1},
        {{{G "eos_token_id", 7}}, -1, {0}, 0, "7 256 258", NULL, 7, -1}, /* llama.cpp's set */
        {{{G "eos_token_id", 7}, {G "eot_token_id", 8}, {G "eom_token_id", 9}},
         0,
         {0},
         0,
         "7 8 9 256 258",
         NULL,
         7,
         -1},
        {{{G "eos_token_id", 7}, {G "bos_token_id", 257}}, 1, {7}, 1, "7", NULL, 7, 257},
        {{{G "eos_token_id", 7}}, 0, {258, 7}, 2, "258 7", NULL, 7, -1},
        {{{G "eos_token_id", 260}}, 0, {0}, 0, "260 256 258", NULL, 256, -1},
        {{{G "eos_token_id", 262}}, -1, {0}, 0, NULL, "eos_token_id is 262", 0, 0},
        {{{G "eot_token_id", 1u << 31}}, -1, {0}, 0, NULL, "eot_token_id is 2147483648", 0, 0},
        {{{G "bos_token_id", 400}}, -1, {0}, 0, NULL, "bos_token_id is 400", 0, 0},
        {{{G "eos_token_id", 7}}, 1, {0}, 0, NULL, "BOS", 0, 0}, /* to be added, but which? */
        {{{0}}, -1, {4, -3}, 2, NULL, END_TOKENS_KEY, 0, 0},
    };
#undef G
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plm_status st = {0};
        struct gguf_writer *w;
        struct gguf *g;
        struct tokenizer *t;
        struct end_tokens e = {0};
        char shown[128];
        const int64_t shape[1] = {1};
        assert_int_equal(gguf_create(&w, GGUF_NAME, NULL), PLM_OK);
        for (int k = 0; k < 4 && cases[i].entries[k].key; k++)
            gguf_set_u32(w, cases[i].entries[k].key, cases[i].entries[k].id, NULL);
        if (cases[i].add_bos >= 0)
            gguf_set_bool(w, "tokenizer.ggml.add_bos_token", cases[i].add_bos, NULL);
        if (cases[i].n_exact)
            gguf_set_i32s(w, END_TOKENS_KEY, cases[i].exact, (uint64_t)cases[i].n_exact, NULL);
        assert_int_equal(gguf_declare(w, "x", DTYPE_F32, 1, shape, NULL), PLM_OK);
        assert_int_equal(gguf_write(w, &(float){1}, sizeof(float), NULL), PLM_OK);
        assert_int_equal(gguf_finish(w, NULL), PLM_OK);
        assert_int_equal(gguf_open(&g, GGUF_NAME, NULL), PLM_OK);
        byte_tokenizer(&t);
        const int code = end_tokens_read_gguf(&e, t, VOCAB, g, &st);
        show(&e, shown);
        if (!!code == !!cases[i].ends)
            fail_msg("case %zu: code %d '%s', %s", i, code, st.message, shown);
        if (cases[i].ends) {
            assert_string_equal(shown, cases[i].ends);
            assert_int_equal(tokenizer_eos(t), cases[i].eos);
            assert_int_equal(tokenizer_marks(t)->bos, cases[i].bos);
            assert_int_equal(tokenizer_marks(t)->add_bos, cases[i].add_bos == 1);
        } else {
            assert_int_equal(code, PLM_EFORMAT);
            assert_non_null(strstr(st.message, cases[i].says));
        }
        gguf_close(g);
        tokenizer_free(t);
        free(e.ids);
    }
    remove(GGUF_NAME);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(directories), cmocka_unit_test(written_again),
                                       cmocka_unit_test(gguf_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
