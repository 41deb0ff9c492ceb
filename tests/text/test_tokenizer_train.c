/* Training against the definition, and the same vocabulary whatever the threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/tokenizer_train.h"
#include "infer/base/log.h"
#include "infer/text/splitter.h"
#include "tests/text/random_text.h"

#define MAX_WORDS 4096
#define MAX_WORD 512

static void count_warnings(void *user, enum log_level level, const char *line)
{
    (void)line;
    *(int *)user += level == LOG_WARN;
}

/* --- the definition: all pairs are counted anew before every merge --- */

struct naive {
    int32_t symbols[MAX_WORDS][MAX_WORD];
    int length[MAX_WORDS], n_words;
    char bytes[1024][MAX_WORD];
    int token_length[1024];
};

/* Every occurrence of a word counts once: no table of distinct words. */
static void naive_load(struct naive *n, const struct tokenizer *t, const char *text, size_t length)
{
    size_t one;
    for (int32_t id = 0; id < 256; id++) {
        n->bytes[id][0] = tokenizer_token(t, id, &one, NULL)[0];
        n->token_length[id] = 1;
    }
    for (size_t i = 0; i < length;) {
        size_t end = splitter_next(text, length, i);
        assert_true(end - i <= MAX_WORD && n->n_words < MAX_WORDS);
        for (int w = n->n_words++, k = 0; i < end; i++, k++) {
            int32_t id = 0;
            while (n->bytes[id][0] != text[i])
                id++;
            n->symbols[w][k] = id;
            n->length[w] = k + 1;
        }
    }
}

/* The most frequent pair, the lowest of equals; its count. */
static int naive_best(const struct naive *n, int n_tokens, int max_length, int32_t best[2])
{
    int *counts = calloc((size_t)n_tokens * (size_t)n_tokens, sizeof *counts), top = 0;
    for (int w = 0; w < n->n_words; w++)
        for (int k = 0; k + 1 < n->length[w]; k++)
            counts[n->symbols[w][k] * n_tokens + n->symbols[w][k + 1]]++;
    for (int i = 0; i < n_tokens * n_tokens; i++)
        if (counts[i] > top && (!max_length || n->token_length[i / n_tokens] + n->token_length[i % n_tokens] <= max_length)) {
            top = counts[i];
            best[0] = i / n_tokens;
            best[1] = i % n_tokens;
        }
    free(counts);
    return top;
}

static void naive_merge(struct naive *n, const int32_t pair[2], int32_t merged)
{
    memcpy(n->bytes[merged], n->bytes[pair[0]], (size_t)n->token_length[pair[0]]);
    memcpy(n->bytes[merged] + n->token_length[pair[0]], n->bytes[pair[1]], (size_t)n->token_length[pair[1]]);
    n->token_length[merged] = n->token_length[pair[0]] + n->token_length[pair[1]];
    for (int w = 0; w < n->n_words; w++) {
        int32_t *s = n->symbols[w];
        int out = 0;
        for (int k = 0; k < n->length[w]; k++) {
            bool joins = k + 1 < n->length[w] && s[k] == pair[0] && s[k + 1] == pair[1];
            s[out++] = joins ? merged : s[k];
            k += joins;
        }
        n->length[w] = out;
    }
}

static struct tokenizer *train(struct tokenizer_train_options o, const char *const *documents, const size_t *lengths, int n,
                               int n_threads, struct tokenizer_train_statistics *statistics)
{
    struct tokenizer_trainer *trainer;
    struct tokenizer *t;
    struct plm_status st = {0};
    assert_int_equal(pool_create(&o.pool, n_threads, NULL), PLM_OK);
    assert_int_equal(tokenizer_trainer_create(&trainer, &o, NULL), PLM_OK);
    for (int i = 0; i < n; i++)
        assert_int_equal(tokenizer_trainer_feed(trainer, documents[i], lengths[i], NULL), PLM_OK);
    if (tokenizer_trainer_finish(trainer, &t, &st))
        fail_msg("%s", st.message);
    if (statistics)
        *statistics = *tokenizer_trainer_statistics(trainer);
    tokenizer_trainer_free(trainer);
    pool_destroy(o.pool);
    return t;
}

/* Words over few letters, so that equal counts and overlapping pairs are common. */
static size_t make_text(struct random_source *r, const char *letters, size_t n, char *out)
{
    size_t n_letters = strlen(letters);
    for (size_t i = 0; i < n; i++)
        out[i] = letters[random_below(r, 1 + random_below(r, n_letters))];
    return n;
}

static void check_against_naive(const char *letters, uint64_t seed, int max_token_length)
{
    struct random_source r = {.seed = seed};
    char text[3000];
    const char *documents[] = {text, text};
    size_t length = make_text(&r, letters, sizeof text, text), lengths[] = {length, 0};
    struct tokenizer_train_options o = {.vocab_size = 256 + 120 + 3, .max_token_length = max_token_length, .min_count = 3};
    struct tokenizer *t = train(o, documents, lengths, 2, 1, NULL);
    struct naive *n = calloc(1, sizeof *n);
    naive_load(n, t, text, length);
    int32_t n_tokens = 256, pair[2], left, right;
    for (int32_t rank = 0; rank < tokenizer_n_merges(t); rank++) {
        size_t n_bytes;
        assert_true(naive_best(n, n_tokens, max_token_length, pair) >= 3);
        tokenizer_merge(t, rank, &left, &right);
        assert_int_equal(left, pair[0]);
        assert_int_equal(right, pair[1]);
        int32_t merged = 0; /* another pair may have made these bytes */
        size_t n_joined = (size_t)(n->token_length[left] + n->token_length[right]);
        for (;; merged++) {
            const char *bytes = tokenizer_token(t, merged, &n_bytes, NULL);
            if (n_bytes == n_joined && !memcmp(bytes, n->bytes[left], (size_t)n->token_length[left]) &&
                !memcmp(bytes + n->token_length[left], n->bytes[right], (size_t)n->token_length[right]))
                break;
        }
        assert_true(merged <= n_tokens);
        n_tokens += merged == n_tokens;
        naive_merge(n, pair, merged);
    }
    assert_int_equal(tokenizer_vocab_size(t), n_tokens + 3);
    if (n_tokens < 256 + 120)
        assert_true(naive_best(n, n_tokens, max_token_length, pair) < 3);
    free(n);
    tokenizer_free(t);
}

static void test_equals_naive(void **state)
{
    (void)state;
    int warnings = 0;
    log_set_sink(count_warnings, &warnings);
    for (uint64_t seed = 1; seed <= 4; seed++) {
        check_against_naive("a b", seed, 0);
        check_against_naive("abc ", seed, 0);
        check_against_naive("ab cdefgh\n", seed, 0);
        check_against_naive("aab ", seed, 5);
    }
    log_set_sink(NULL, NULL);
}

static char *make_corpus(uint64_t seed, int n_documents, size_t size, const char **documents, size_t *lengths)
{
    struct random_source r = {.seed = seed};
    char *text = malloc((size_t)n_documents * size);
    for (int i = 0; i < n_documents; i++) {
        documents[i] = text + (size_t)i * size;
        lengths[i] = make_text(&r, "etaoinshr  \ndlucmfwypv.\xC3", size, text + (size_t)i * size);
    }
    return text;
}

static void test_threads(void **state)
{
    (void)state;
    const char *documents[5];
    size_t lengths[5], n;
    char *text = make_corpus(1, 5, 700000, documents, lengths), *first = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        struct tokenizer_train_statistics s;
        struct tokenizer *t = train((struct tokenizer_train_options){.vocab_size = 800}, documents, lengths, 5, threads, &s);
        char *json = tokenizer_to_json(t, &n);
        assert_int_equal(s.documents, 5);
        assert_int_equal(s.bytes, 3500000);
        assert_int_equal(s.vocab_size, 800);
        if (first)
            assert_string_equal(json, first);
        else
            first = strdup(json);
        free(json);
        tokenizer_free(t);
    }
    free(first);
    free(text);
}

/* A table that is too small, over several blocks: rare words go, the same ones with any number of threads. */
static void test_bounded_memory(void **state)
{
    (void)state;
    const char *documents[17];
    size_t lengths[17], n;
    char *text = make_corpus(2, 17, 1 << 20, documents, lengths), *first = NULL;
    int64_t dropped = 0;
    int warnings = 0;
    log_set_sink(count_warnings, &warnings);
    for (int threads = 1; threads <= 2; threads++) {
        struct tokenizer_train_options o = {.vocab_size = 600, .word_memory = 200000};
        struct tokenizer_train_statistics s;
        struct tokenizer *t = train(o, documents, lengths, 17, threads, &s);
        char *json = tokenizer_to_json(t, &n);
        assert_true(s.dropped_words > 0 && s.dropped_count >= s.dropped_words);
        assert_true(s.distinct_words > 0 && s.distinct_words * 48 < 200000);
        if (first) {
            assert_string_equal(json, first);
            assert_int_equal(s.dropped_words, dropped);
        } else {
            first = strdup(json);
            dropped = s.dropped_words;
        }
        free(json);
        tokenizer_free(t);
    }
    assert_int_equal(warnings, 2);
    log_set_sink(NULL, NULL);
    free(first);
    free(text);
}

static void test_layout_of_ids(void **state)
{
    (void)state;
    static const char text[] = "low lower lowest low lower low";
    const char *documents[] = {text};
    size_t lengths[] = {sizeof text - 1}, n;
    struct tokenizer *t = train((struct tokenizer_train_options){.vocab_size = 262}, documents, lengths, 1, 1, NULL);
    assert_int_equal(tokenizer_token(t, 0, &n, NULL)[0], '!');
    assert_int_equal(tokenizer_token(t, 93, &n, NULL)[0], '~');
    assert_int_equal((unsigned char)tokenizer_token(t, 94, &n, NULL)[0], 0xA1);
    assert_int_equal((unsigned char)tokenizer_token(t, 187, &n, NULL)[0], 0xFF);
    assert_int_equal(tokenizer_token(t, 188, &n, NULL)[0], 0);
    assert_int_equal(tokenizer_token(t, 220, &n, NULL)[0], ' ');
    assert_int_equal((unsigned char)tokenizer_token(t, 255, &n, NULL)[0], 0xAD);
    assert_string_equal(tokenizer_token(t, 256, &n, NULL), "lo"); /* 6 times, as "ow"; (l, o) is the lower pair */
    assert_string_equal(tokenizer_token(t, 257, &n, NULL), "low");
    assert_string_equal(tokenizer_token(t, 258, &n, NULL), " low");
    assert_int_equal(tokenizer_eos(t), 259);
    assert_int_equal(tokenizer_special_id(t, "<|im_start|>"), 260);
    assert_int_equal(tokenizer_special_id(t, "<|im_end|>"), 261);
    tokenizer_free(t);
}

static void test_too_little_text(void **state)
{
    (void)state;
    static const char text[] = "the cat the cat";
    const char *documents[] = {text};
    size_t lengths[] = {sizeof text - 1};
    int warnings = 0;
    log_set_sink(count_warnings, &warnings);
    struct tokenizer_train_options o = {.vocab_size = 5000, .min_count = 1};
    struct tokenizer *t = train(o, documents, lengths, 1, 1, NULL);
    log_set_sink(NULL, NULL);
    assert_int_equal(warnings, 1);
    assert_int_equal(tokenizer_vocab_size(t), 256 + 6 + 3); /* th, at, the, cat / " cat", " the": all that can be joined */
    assert_int_equal(tokenizer_eos(t), 262);
    tokenizer_free(t);
}

static void test_long_words(void **state)
{
    (void)state;
    char *text = malloc(3000000);
    const char *documents[] = {text, "a lot a lot"};
    size_t lengths[] = {3000000, 11};
    struct tokenizer_train_statistics s;
    int warnings = 0;
    memset(text, 'x', 3000000);
    log_set_sink(count_warnings, &warnings);
    struct tokenizer *t = train((struct tokenizer_train_options){.vocab_size = 261}, documents, lengths, 2, 2, &s);
    log_set_sink(NULL, NULL);
    assert_int_equal(s.long_words, 1);
    assert_int_equal(s.words, 4);
    assert_int_equal(s.distinct_words, 3);
    assert_int_equal(warnings, 1);
    tokenizer_free(t);
    free(text);
}

static void test_bad_options(void **state)
{
    (void)state;
    static const char *const twice[] = {"<s>", "<s>"};
    struct tokenizer_trainer *trainer;
    struct tokenizer *t;
    struct plm_status st = {0};
    const struct tokenizer_train_options bad[] = {{.vocab_size = 258},
                                                  {.vocab_size = 1 << 30},
                                                  {.vocab_size = 1000, .max_token_length = 1},
                                                  {.vocab_size = 1000, .min_count = -1},
                                                  {.vocab_size = 1000, .specials = twice, .n_specials = -2}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(tokenizer_trainer_create(&trainer, &bad[i], &st), PLM_EINVAL);
        assert_null(trainer);
    }
    assert_int_equal(tokenizer_trainer_create(&trainer, &(struct tokenizer_train_options){.vocab_size = 300}, NULL), PLM_OK);
    assert_int_equal(tokenizer_trainer_feed(trainer, "", 0, NULL), PLM_OK);
    assert_int_equal(tokenizer_trainer_finish(trainer, &t, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "no text"));
    assert_null(t);
    tokenizer_trainer_free(trainer);
    struct tokenizer_train_options o = {.vocab_size = 300, .specials = twice, .n_specials = 2};
    assert_int_equal(tokenizer_trainer_create(&trainer, &o, NULL), PLM_OK);
    assert_int_equal(tokenizer_trainer_feed(trainer, "abab", 4, NULL), PLM_OK);
    assert_int_equal(tokenizer_trainer_finish(trainer, &t, &st), PLM_EFORMAT);
    assert_non_null(strstr(st.message, "twice"));
    tokenizer_trainer_free(trainer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equals_naive),    cmocka_unit_test(test_threads),
                                       cmocka_unit_test(test_bounded_memory),  cmocka_unit_test(test_layout_of_ids),
                                       cmocka_unit_test(test_too_little_text), cmocka_unit_test(test_long_words),
                                       cmocka_unit_test(test_bad_options)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
