/* Fail the n-th allocation, for n = 1, 2, ... until nothing fails: each time PLM_ENOMEM with a message, nothing leaked (the
 * sanitizer build looks), and what was there before still works. Linked with --wrap=malloc and friends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

#include "data/examples.h"
#include "data/tokenizer_train.h"
#include "infer/base/log.h"
#include "tests/text/random_vocab.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);

static atomic_llong until_failure; /* allocations up to the one that fails; 0 or less: none does */

static bool fails(void)
{
    return atomic_fetch_sub(&until_failure, 1) == 1;
}

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t alignment, size_t n)
{
    return fails() ? NULL : __real_aligned_alloc(alignment, n);
}

/* Run fn with the n-th allocation failing, for every n it gets to. fn returns a status code: PLM_ENOMEM at least `least`
 * times, otherwise PLM_OK (a failure to shrink memory does no harm). */
static void fail_each(int (*fn)(void *, struct plm_status *), void *ctx, int least)
{
    int errors = 0;
    for (int n = 1;; n++) {
        struct plm_status st = {0};
        atomic_store(&until_failure, n);
        int code = fn(ctx, &st);
        bool failed = atomic_exchange(&until_failure, 0) <= 0;
        assert_int_equal(st.code, code);
        if (code) {
            assert_true(failed);
            assert_int_equal(code, PLM_ENOMEM);
            assert_true(st.message[0]);
            errors++;
        }
        if (!failed) {
            assert_true(errors >= least);
            return;
        }
    }
}

struct json {
    char *text;
    size_t length;
};

static int read_json(void *ctx, struct plm_status *st)
{
    const struct json *j = ctx;
    struct tokenizer *t;
    int code = tokenizer_from_json(&t, j->text, j->length, "tokenizer.json", st);
    assert_true(!t == !!code);
    tokenizer_free(t);
    return code;
}

static int write_json(void *ctx, struct plm_status *st)
{
    size_t n;
    char *text = tokenizer_to_json(ctx, &n);
    free(text);
    return text ? PLM_OK : status_no_memory(st, 1, "tokenizer.json");
}

static int encode(void *ctx, struct plm_status *st)
{
    static const char text[] = "ab e\u0301 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab<|im_end|>b";
    struct encoder *e = NULL;
    struct token_list ids = {0};
    char *back = NULL;
    size_t n;
    int code = encoder_create(&e, ctx, st);
    if (!code)
        code = encoder_encode(e, text, sizeof text - 1, true, &ids, st);
    if (!code)
        code = tokenizer_decode(ctx, ids.data, ids.length, true, &back, &n, st);
    free(back);
    free(ids.data);
    encoder_free(e);
    return code;
}

static int train(void *ctx, struct plm_status *st)
{
    static const char text[] = "the cat sat on the mat, the cat e\u0301 that sat\n";
    struct tokenizer_train_options o = {.vocab_size = 280, .word_memory = 500, .pool = ctx};
    struct tokenizer_trainer *trainer = NULL;
    struct tokenizer *t = NULL;
    int code = tokenizer_trainer_create(&trainer, &o, st);
    for (int i = 0; i < 3 && !code; i++)
        code = tokenizer_trainer_feed(trainer, text, sizeof text - 1, st);
    if (!code)
        code = tokenizer_trainer_finish(trainer, &t, st);
    tokenizer_trainer_free(trainer);
    tokenizer_free(t);
    return code;
}

struct chat_source {
    const struct tokenizer *tokenizer;
    const char *text;
};

/* A template from text, a conversation and an answer through it. */
static int chat(void *ctx, struct plm_status *st)
{
    const struct chat_source *source = ctx;
    const struct chat_message m[] = {{"user", "ab", 2, false}, {"assistant", "ba", 2, true}};
    struct chat_template *t = NULL;
    struct encoder *e = NULL;
    struct token_list ids = {0};
    struct target_list targets = {0};
    int32_t end;
    int code = chat_template_from_json(&t, source->text, strlen(source->text), "t.json", st);
    if (!code)
        code = chat_template_end(t, source->tokenizer, &end, st);
    if (!code)
        code = encoder_create(&e, source->tokenizer, st);
    if (!code)
        code = chat_template_render(t, e, m, 2, true, true, &ids, &targets, st);
    assert_true(!code || (ids.length == 0 && targets.length == 0));
    if (!code)
        code = chat_template_answer(t, e, "abba", 4, true, &ids, &targets, st);
    if (!code)
        code = chat_template_close(t, e, true, &ids, st);
    chat_template_free(t);
    encoder_free(e);
    free(ids.data);
    free(targets.data);
    return code;
}

struct dataset {
    const char *path;
    const struct tokenizer *tokenizer;
    const struct chat_template *chat;
};

static int read_examples(void *ctx, struct plm_status *st)
{
    const struct dataset *d = ctx;
    const struct example_options o = {.chat = d->chat, .tokenizer = d->tokenizer, .max_len = 1000, .skip_bad = true};
    const struct example_source source = {.path = d->path, .weight = 2};
    struct example_counts counts;
    struct examples e = {0};
    const int code = examples_read(&e, &source, 1, &o, &counts, st);
    assert_true(code || (counts.rows == 5 && counts.bad == 0)); /* no row is called malformed because there was no memory for it */
    examples_free(&e);
    return code;
}

static void test_rows(void **state)
{
    (void)state;
    static const char text[] =
        "[{\"prompt\": \"a\", \"completion\": \"b\"}, {\"text\": \"ab\"}, {\"instruction\": \"a\", \"input\": \"b\", \"output\": \"a\", \"answer\": 2, \"tests\": [\"a\", "
        "\"b\"], \"entry_point\": \"f\"},\n{\"conversations\": [{\"from\": \"human\", \"value\": [{\"text\": \"a\"}]}, {\"from\": \"gpt\", \"value\": \"b\", \"tool_calls\": [{}]}], "
        "\"tools\": [1]}, {\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: b\", \"rejected\": \"\\n\\nHuman: a\\n\\nAssistant: a\"}]";
    struct random_source r = {.seed = 1};
    struct tokenizer *t = random_vocab(&r, "ab", 20);
    struct chat_template *chatml;
    char path[64];
    assert_int_equal(chat_template_open(&chatml, NULL, NULL, NULL), PLM_OK);
    snprintf(path, sizeof path, "no-memory-%ld.json", (long)getpid());
    FILE *f = fopen(path, "w");
    assert_int_equal(fwrite(text, 1, sizeof text - 1, f), sizeof text - 1);
    fclose(f);
    static const char turns[] = "{\"system\": \"be\", \"turn\": \"<|im_start|>{role}: {content}<|im_end|>\\n\", \"end\": "
                                "\"<|im_end|>\"}";
    static const char jinja[] = "{\"jinja\": \"{% for m in messages %}{{ '<|im_start|>' + m.role ~ (m.content | trim) }}"
                                "{% set x = {'a': [1]} %}{{ x | tojson }}<|im_end|>{% endfor %}\"}";
    fail_each(chat, &(struct chat_source){t, turns}, 8);
    fail_each(chat, &(struct chat_source){t, jinja}, 8);
    fail_each(read_examples, /* jansson's own allocations do not fail: it takes that for bad syntax */
              &(struct dataset){path, t, chatml}, 20);
    unlink(path);
    chat_template_free(chatml);
    tokenizer_free(t);
}

static void test_tokenizer(void **state)
{
    (void)state;
    struct random_source r = {.seed = 1};
    struct tokenizer *t = random_vocab(&r, "ab", 20);
    struct json json;
    json.text = tokenizer_to_json(t, &json.length);
    fail_each(read_json, &json, 10);
    fail_each(write_json, t, 1);
    fail_each(encode, t, 8);
    free(json.text);
    tokenizer_free(t);
}

static void test_training(void **state)
{
    (void)state;
    struct thread_pool *pool;
    assert_int_equal(pool_create(&pool, 2, NULL), PLM_OK);
    log_set_level(LOG_ERROR);
    fail_each(train, NULL, 20);
    fail_each(train, pool, 20);
    log_set_level(LOG_INFO);
    pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tokenizer), cmocka_unit_test(test_training), cmocka_unit_test(test_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
