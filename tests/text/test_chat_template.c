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

/* --- Jinja --- */

static const char chatml_jinja[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/* System folded into the first turn, trimmed contents, another name for the assistant. */
static const char folded_jinja[] =
    "{{ '<|endoftext|>' }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\\n\\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('one after the other') }}{% endif %}"
    "<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ first if loop.first }}{{ m.content | trim "
    "}}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}";

/* The end of a turn is the end of a text, after a space. */
static const char spaced_jinja[] =
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}"
    "{{ ' ' + m.content.strip() + ' <|endoftext|>' }}{% endif %}{% endfor %}";

static struct chat_template *open_jinja(const char *text)
{
    struct chat_template *t;
    struct plm_status st = {0};
    if (chat_template_from_jinja(&t, text, strlen(text), NULL, "t.jinja", &st))
        fail_msg("%s", st.message);
    return t;
}

static void assert_same(const struct fixture *a, const struct fixture *b)
{
    assert_int_equal(a->ids.length, b->ids.length);
    assert_memory_equal(a->ids.data, b->ids.data, a->ids.length * sizeof *a->ids.data);
    assert_int_equal(a->targets.length, b->targets.length);
    assert_memory_equal(a->targets.data, b->targets.data, a->targets.length);
}

static void test_jinja_is_chatml(void **state)
{
    struct fixture *f = *state, other = {.tokenizer = f->tokenizer};
    struct chat_template *jinja = open_jinja(chatml_jinja), *chatml, *again;
    assert_int_equal(chat_template_open(&chatml, NULL, NULL, NULL), PLM_OK);
    const struct chat_message m[] = {message("system", "be", false),        message("user", "tea?<|im_end|>", false),
                                     message("assistant", " nine\n", true), message("tool", "{{ 1 }}", false),
                                     message("assistant", "set", false),    message("user", "", false)};
    for (int first = 0; first < 2; first++)
        for (int n = 1; first + n <= 6; n++) {
            clear(f);
            clear(&other);
            assert_int_equal(
                chat_template_render(chatml, f->encoder, m + first, n, CHAT_BEGINS, n % 2, &f->ids, &f->targets, NULL),
                PLM_OK);
            assert_int_equal(chat_template_render(jinja, f->encoder, m + first, n, CHAT_BEGINS, n % 2, &other.ids,
                                                  &other.targets, NULL),
                             PLM_OK);
            assert_same(f, &other);
        }
    int32_t end;
    assert_int_equal(chat_template_end(jinja, f->tokenizer, &end, NULL), PLM_OK);
    assert_int_equal(end, tokenizer_special_id(f->tokenizer, "<|im_end|>"));
    again = open_text(chat_template_json(jinja));
    assert_string_equal(chat_template_json(again), chat_template_json(jinja));
    assert_string_equal(chat_template_jinja_text(again), chatml_jinja);
    assert_null(chat_template_jinja_text(chatml));
    clear(f); /* without the template's own system message: an empty one */
    assert_int_equal(
        chat_template_render(jinja, f->encoder, m + 1, 1, CHAT_BEGINS_WITHOUT, false, &f->ids, &f->targets, NULL),
        PLM_OK);
    assert_string_equal(marked(f),
                        "{<|im_start|>}system\n{<|im_end|>}\n{<|im_start|>}user\ntea?<|im_end|>{<|im_end|>}\n");
    chat_template_free(again);
    chat_template_free(chatml);
    chat_template_free(jinja);
    free(other.ids.data);
    free(other.targets.data);
}

static void test_jinja_folds_and_trims(void **state)
{
    struct fixture *f = *state;
    struct chat_template *t = open_jinja(folded_jinja);
    const struct chat_message m[] = {message("system", "be", false), message("user", " tea? ", false),
                                     message("assistant", "\tnine\n", true), message("user", "a", false)};
    clear(f);
    assert_int_equal(chat_template_render(t, f->encoder, m, 4, CHAT_BEGINS, true, &f->ids, &f->targets, NULL), PLM_OK);
    assert_string_equal(
        marked(f),
        "{<|endoftext|>}{<|im_start|>}user\nbe\n\ntea?{<|im_end|>}\n{<|im_start|>}model\n[nine{<|im_end|>}]\n"
        "{<|im_start|>}user\na{<|im_end|>}\n{<|im_start|>}model\n");
    struct plm_status st = {0};
    const size_t before = f->ids.length;
    assert_int_equal(chat_template_render(t, f->encoder, m + 2, 2, CHAT_BEGINS, true, &f->ids, &f->targets, &st),
                     PLM_EINVAL);
    assert_non_null(strstr(st.message, "t.jinja: line 1: the template says: one after the other"));
    assert_int_equal(f->ids.length, before);
    chat_template_free(t);
}

/* Prompt, answer, closing and the next message are the ids of the whole conversation. */
static void test_jinja_boundaries(void **state)
{
    struct fixture *f = *state, parts = {.tokenizer = f->tokenizer};
    const char *const templates[] = {chatml_jinja, folded_jinja, spaced_jinja};
    static const char *const answers[] = {"nine", "<|im_end|>",
                                          "t\xc3\xa9"
                                          "e",
                                          "\xff\xfe", "a <|endoftext|> b"};
    for (size_t k = 0; k < 3; k++) {
        struct chat_template *t = open_jinja(templates[k]);
        for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
            const struct chat_message m[] = {message("user", "eat", false), message("assistant", answers[i], true),
                                             message("user", "a", false)};
            clear(f);
            clear(&parts);
            assert_int_equal(chat_template_render(t, f->encoder, m, 3, CHAT_BEGINS, true, &f->ids, &f->targets, NULL),
                             PLM_OK);
            assert_int_equal(
                chat_template_render(t, f->encoder, m, 1, CHAT_BEGINS, true, &parts.ids, &parts.targets, NULL), PLM_OK);
            const bool open = i % 2;
            assert_int_equal(chat_template_answer(t, f->encoder, answers[i], strlen(answers[i]), !open, &parts.ids,
                                                  &parts.targets, NULL),
                             PLM_OK);
            assert_int_equal(chat_template_close(t, f->encoder, !open, &parts.ids, NULL), PLM_OK);
            assert_int_equal(
                chat_template_render(t, f->encoder, m + 2, 1, CHAT_CONTINUES, true, &parts.ids, NULL, NULL), PLM_OK);
            assert_int_equal(parts.ids.length, f->ids.length);
            assert_memory_equal(parts.ids.data, f->ids.data, f->ids.length * sizeof *f->ids.data);
        }
        chat_template_free(t);
    }
    free(parts.ids.data);
    free(parts.targets.data);
}

static void test_jinja_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const cases[][2] = {
        {"{% for m in messages %}{{ m.content | wordwrap }}{% endfor %}", "the filter 'wordwrap'"},
        {"{% if messages %}", "'endif' is missing"},
        {"{{ raise_exception('never') }}", "the template says: never"},
        {"Hello!", "does not show the messages"},
        {"{% for m in messages %}{{ m.content }} {% endfor %}", "no token after an answer"},
        {"{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}",
         "does not show the messages"},
        {"{{ bos_token + messages[0].content }}", "'bos_token' is undefined"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plm_status st = {0};
        struct chat_template *t;
        assert_int_not_equal(chat_template_from_jinja(&t, cases[i][0], strlen(cases[i][0]), NULL, "t.jinja", &st),
                             PLM_OK);
        assert_null(t);
        if (!strstr(st.message, cases[i][1]) || !strstr(st.message, "t.jinja"))
            fail_msg("%s: \"%s\", expected \"%s\"", cases[i][0], st.message, cases[i][1]);
    }
    struct plm_status st = {0};
    struct chat_template *t = open_jinja("{% for m in messages %}{% if m.role != 'system' %}{{ m.role + ': ' + "
                                         "m.content }}<|im_end|>{% endif %}{% endfor %}");
    const struct chat_message m[] = {message("system", "be", false), message("user", "a", false)};
    clear(f);
    assert_int_equal(chat_template_render(t, f->encoder, m, 2, CHAT_BEGINS, true, &f->ids, NULL, &st),
                     PLM_EUNSUPPORTED);
    assert_non_null(strstr(st.message, "leaves out message 1 of a conversation of 2, of the role 'system'"));
    assert_int_equal(f->ids.length, 0);
    chat_template_free(t);
    assert_int_equal(chat_template_from_json(&t, "{\"jinja\": \"x\", \"turn\": \"y\"}", 27, "t.json", &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "\"turn\" does not go with \"jinja\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chatml),
        cmocka_unit_test(test_boundaries),
        cmocka_unit_test(test_end_in_the_middle),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_jinja_is_chatml),
        cmocka_unit_test(test_jinja_folds_and_trims),
        cmocka_unit_test(test_jinja_boundaries),
        cmocka_unit_test(test_jinja_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
