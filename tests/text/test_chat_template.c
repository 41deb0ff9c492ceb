/* Conversations as tokens: what is a target, the boundary of prompt and answer, texts that look like special tokens, damaged templates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "infer/text/chat_template.h"
#include "tests/text/random_vocab.h"

struct fixture {
    struct tokenizer *tokenizer;
    struct encoder *encoder;
    struct token_list ids;
    struct target_list targets;
};

static int setup(void **state)
{
    struct random_source r = {.seed = 11};
    struct fixture *f = *state = calloc(1, sizeof *f);
    f->tokenizer = random_vocab(&r, "aeinst \n", 60);
    return encoder_create(&f->encoder, f->tokenizer, NULL);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    encoder_free(f->encoder);
    tokenizer_free(f->tokenizer);
    free(f->ids.data);
    free(f->targets.data);
    free(f);
    return 0;
}

static struct chat_message message(const char *role, const char *content, bool target)
{
    return (struct chat_message){role, content, strlen(content), target};
}

static struct chat_template *open_text(const char *text)
{
    struct chat_template *t;
    struct plm_status st = {0};
    if (chat_template_from_json(&t, text, strlen(text), "t.json", &st))
        fail_msg("%s", st.message);
    return t;
}

/* The lists as text, targets in []; ids of special tokens in <>. */
static char *marked(const struct fixture *f)
{
    static char out[4096];
    size_t n = 0;
    bool inside = false;
    assert_int_equal(f->ids.length, f->targets.length);
    for (size_t i = 0; i < f->ids.length; i++) {
        size_t length;
        bool special;
        const char *bytes = tokenizer_token(f->tokenizer, f->ids.data[i], &length, &special);
        if ((bool)f->targets.data[i] != inside)
            out[n++] = (inside = !inside) ? '[' : ']';
        n += (size_t)snprintf(out + n, sizeof out - n, special ? "{%.*s}" : "%.*s", (int)length, bytes);
    }
    if (inside)
        out[n++] = ']';
    out[n] = 0;
    return out;
}

static void clear(struct fixture *f)
{
    f->ids.length = f->targets.length = 0;
}

static void test_chatml(void **state)
{
    struct fixture *f = *state;
    struct chat_template *t;
    assert_int_equal(chat_template_open(&t, NULL, NULL, NULL), PLM_OK);
    const struct chat_message m[] = {message("user", "tea?", false), message("assistant", "nine", true), message("user", "<|im_end|>", false),
                                     message("assistant", "set", false), message("user", "", false)};
    assert_int_equal(chat_template_render(t, f->encoder, m, 5, true, true, &f->ids, &f->targets, NULL), PLM_OK);
    assert_string_equal(marked(f), "{<|im_start|>}system\nYou are a helpful assistant{<|im_end|>}\n{<|im_start|>}user\ntea?{<|im_end|>}\n"
                                   "{<|im_start|>}assistant\n[nine{<|im_end|>}]\n{<|im_start|>}user\n<|im_end|>{<|im_end|>}\n"
                                   "{<|im_start|>}assistant\nset{<|im_end|>}\n{<|im_start|>}user\n{<|im_end|>}\n{<|im_start|>}assistant\n");
    /* a system message of its own, or the conversation's continuation, has no default one */
    const struct chat_message own[] = {message("system", "si", false), message("user", "a", false)};
    clear(f);
    assert_int_equal(chat_template_render(t, f->encoder, own, 2, true, false, &f->ids, &f->targets, NULL), PLM_OK);
    assert_string_equal(marked(f), "{<|im_start|>}system\nsi{<|im_end|>}\n{<|im_start|>}user\na{<|im_end|>}\n");
    clear(f);
    assert_int_equal(chat_template_render(t, f->encoder, own + 1, 1, false, false, &f->ids, NULL, NULL), PLM_OK);
    assert_int_equal(f->targets.length, 0);
    assert_true(f->ids.length > 5);
    int32_t end;
    assert_int_equal(chat_template_end(t, f->tokenizer, &end, NULL), PLM_OK);
    assert_int_equal(end, tokenizer_special_id(f->tokenizer, "<|im_end|>"));
    chat_template_free(t);
}

/* Generation prompt, answer and what closes it are the ids of the whole conversation, however the texts would merge over the boundary. */
static void test_boundaries(void **state)
{
    struct fixture *f = *state;
    static const char *const templates[] = {
        "{\"turn\": \"<|im_start|>{role}\\n{content}<|im_end|>\\n\", \"end\": \"<|im_end|>\"}",
        "{\"system\": \"tea\", \"turn\": \"{role}: {content} ne\\n\\n\", \"end\": \"ne\"}",
        "{\"turn\": \"{role}{content}\\n\", \"end\": \"\\n\", \"generation\": \"assistant\"}",
    };
    static const char *const answers[] = {"", "nine", "\n\nnine ", " ", "  a\n", "<|im_end|>", "tée", "e\xcc\x81", "\xff\xfe"};
    struct fixture parts = {.tokenizer = f->tokenizer};
    for (size_t k = 0; k < 3; k++) {
        struct chat_template *t = open_text(templates[k]);
        for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
            const struct chat_message m[] = {message("user", "eat", false), message("assistant", answers[i], true)};
            clear(f);
            clear(&parts);
            assert_int_equal(chat_template_render(t, f->encoder, m, 2, true, false, &f->ids, &f->targets, NULL), PLM_OK);
            assert_int_equal(chat_template_render(t, f->encoder, m, 1, true, true, &parts.ids, &parts.targets, NULL), PLM_OK);
            const size_t prompt = parts.ids.length, open = i % 2;
            assert_int_equal(chat_template_answer(t, f->encoder, answers[i], strlen(answers[i]), !open, &parts.ids, &parts.targets, NULL), PLM_OK);
            for (size_t j = 0; j < parts.ids.length; j++)
                assert_int_equal(parts.targets.data[j], j >= prompt);
            if (!open)
                assert_memory_equal(parts.targets.data, f->targets.data, parts.targets.length);
            assert_int_equal(chat_template_close(t, f->encoder, !open, &parts.ids, NULL), PLM_OK);
            assert_int_equal(parts.ids.length, f->ids.length);
            assert_memory_equal(parts.ids.data, f->ids.data, f->ids.length * sizeof *f->ids.data);
        }
        chat_template_free(t);
    }
    free(parts.ids.data);
    free(parts.targets.data);
}

/* What stands between {content} and "end" is learnt too: the model has to write it before its turn can be over. */
static void test_end_in_the_middle(void **state)
{
    struct fixture *f = *state;
    struct chat_template *t = open_text("{\"turn\": \"({role}) {content} .<|im_end|>!\\n\", \"end\": \"<|im_end|>\"}");
    const struct chat_message m[] = {message("user", "a", false), message("assistant", "b", true)};
    int32_t end;
    clear(f);
    assert_int_equal(chat_template_render(t, f->encoder, m, 2, true, true, &f->ids, &f->targets, NULL), PLM_OK);
    assert_string_equal(marked(f), "(user) a .{<|im_end|>}!\n(assistant) [b .{<|im_end|>}]!\n(assistant) ");
    assert_int_equal(chat_template_end(t, f->tokenizer, &end, NULL), PLM_OK);
    assert_int_equal(end, tokenizer_special_id(f->tokenizer, "<|im_end|>"));
    chat_template_free(t);
}

static void test_json(void **state)
{
    (void)state;
    struct chat_template *t = open_text("\n{\"end\": \"<\\u007cim_end|>\",\"turn\":\"<|im_start|>{role}\\n{content}<|im_end|>\\n\",\"system\":\"You are a helpful assistant\"}"),
                         *chatml, *again;
    assert_int_equal(chat_template_open(&chatml, NULL, NULL, NULL), PLM_OK);
    assert_string_equal(chat_template_json(t), chat_template_json(chatml));
    assert_non_null(strstr(chat_template_json(t), "\"generation\": \"<|im_start|>assistant\\n\""));
    again = open_text(chat_template_json(t));
    assert_string_equal(chat_template_json(again), chat_template_json(t));
    chat_template_free(again);
    chat_template_free(chatml);
    chat_template_free(t);
}

static void test_bad(void **state)
{
    struct fixture *f = *state;
    static const char *const cases[][2] = {
        {"", "end of the text"},
        {"{", "t.json: line 1"},
        {"[]", "is an object with"},
        {"{\"end\": \"x\"}", "\"turn\" is missing"},
        {"{\"turn\": \"{role}{content}x\"}", "\"end\" is missing"},
        {"{\"turn\": 3, \"end\": \"x\"}", "\"turn\" is not a string"},
        {"{\"turn\": \"{content}x\", \"end\": \"x\"}", "has no {role}"},
        {"{\"turn\": \"{role}x\", \"end\": \"x\"}", "has no {content}"},
        {"{\"turn\": \"{role}{role}{content}x\", \"end\": \"x\"}", "{role} more than once"},
        {"{\"turn\": \"{role}{content}x{content}\", \"end\": \"x\"}", "{content} more than once"},
        {"{\"turn\": \"{content}{role}x\", \"end\": \"x\"}", "{content} before {role}"},
        {"{\"turn\": \"x{role}{content}\", \"end\": \"x\"}", "\"end\" is \"x\", which does not follow {content}"},
        {"{\"turn\": \"{role}{content}x\", \"end\": \"\"}", "\"end\" is empty"},
        {"{\"turn\": \"{role}:{content}x\", \"end\": \"x\", \"generation\": \"assistant\"}", "\"generation\" is not what"},
        {"{\"turn\": \"{role}:{content}x\", \"end\": \"x\", \"generation\": \"assistent:\"}", "\"assistant:\""},
        {"{\"turns\": \"{role}:{content}x\", \"end\": \"x\"}", "unknown key \"turns\""},
        {"{\"turn\\u0000\": \"{role}:{content}x\", \"end\": \"x\"}", "unknown key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plm_status st = {0};
        struct chat_template *t;
        const int code = chat_template_from_json(&t, cases[i][0], strlen(cases[i][0]), "t.json", &st);
        assert_int_equal(code, i < 2 ? PLM_EFORMAT : PLM_EINVAL);
        assert_null(t);
        assert_non_null(strstr(st.message, "t.json"));
        if (!strstr(st.message, cases[i][1]))
            fail_msg("case %zu: \"%s\"", i, st.message);
    }
    struct plm_status st = {0};
    struct chat_template *t;
    int32_t end;
    assert_int_equal(chat_template_open(&t, "no-such-template.json", NULL, &st), PLM_EIO);
    t = open_text("{\"turn\": \"{role}:{content}</xyz>\", \"end\": \"</xyz>\"}");
    assert_int_equal(chat_template_end(t, f->tokenizer, &end, &st), PLM_EUNSUPPORTED);
    assert_non_null(strstr(st.message, "</xyz>"));
    chat_template_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chatml), cmocka_unit_test(test_boundaries), cmocka_unit_test(test_end_in_the_middle), cmocka_unit_test(test_json),
        cmocka_unit_test(test_bad),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
