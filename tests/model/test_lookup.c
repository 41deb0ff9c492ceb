#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/random.h"
#include "infer/model/lookup.h"
#include "infer/model/session.h"
#include "tests/model/support.h"
#include "tests/ops/tables.h"

static void drafts_continue_the_longest_latest_match(void **state)
{
    (void)state;
    int32_t draft[8];
    /* "1 2 3" occurs twice before the end; the later one is taken, although "2 3" alone is found later still */
    const int32_t text[] = {1, 2, 3, 4, 9, 1, 2, 3, 5, 6, 8, 2, 3, 7, 0, 1, 2};
    assert_int_equal(lookup_draft(text, 17, 3, draft, 3), 3);
    assert_memory_equal(draft, ((const int32_t[]){5, 6, 8}), 3 * sizeof *draft);
    assert_int_equal(lookup_draft(text, 17, 3, draft, 0), 0);
    assert_int_equal(lookup_draft(text, 17, 9, draft, 8), 0); /* 2 9 is new, and one token is no match */
    assert_int_equal(lookup_draft(text, 0, 9, draft, 8), 0);
    /* an occurrence that overlaps the end: the period goes on */
    const int32_t period[] = {7, 1, 2, 1, 2, 1};
    assert_int_equal(lookup_draft(period, 6, 2, draft, 5), 5);
    assert_memory_equal(draft, ((const int32_t[]){1, 2, 1, 2, 1}), 5 * sizeof *draft);
    const int32_t same[] = {4, 4};
    assert_int_equal(lookup_draft(same, 2, 4, draft, 8), 8);
    for (int i = 0; i < 8; i++)
        assert_int_equal(draft[i], 4);
}

/* The same by trying every earlier end of every length. */
static int64_t draft_by_search(const int32_t *text, int64_t n, int32_t *draft, int64_t most)
{
    for (int64_t length = 4; length >= 2; length--)
        for (int64_t end = n - 1; end >= length; end--) /* text[end - length, end) against the last `length` */
            if (length <= n && !memcmp(text + end - length, text + n - length, (size_t)length * sizeof *text)) {
                for (int64_t k = 0; k < most; k++)
                    draft[k] = text[end + k % (n - end)];
                return most;
            }
    return 0;
}

static void drafts_equal_an_exhaustive_search(void **state)
{
    (void)state;
    int found = 0;
    for (int k = 0; k < 2000; k++) {
        int32_t text[40], want[6], got[6];
        const int n = 1 + (int)(40 * random_uniform(3, RANDOM_TEST, 1, (uint64_t)k));
        for (int i = 0; i < n; i++)
            text[i] = (int32_t)(4 * random_uniform(3, RANDOM_TEST, 2, (uint64_t)(k * 40 + i)));
        const int64_t m = draft_by_search(text, n, want, 6);
        assert_int_equal(lookup_draft(text, n - 1, text[n - 1], got, 6), m);
        assert_memory_equal(got, want, (size_t)m * sizeof *got);
        found += m > 0;
    }
    assert_true(found > 500 && found < 2000);
}

enum { PROMPT = 30, N = 160 };

/* N tokens as the sampling picks them, with drafts of up to `lookup` tokens. Returns how many drafts were right. */
static int64_t generate(const struct plm_model *m, int lookup, int prompt, const struct plm_sampling *sampling, int32_t *out)
{
    struct plm_session *s;
    int32_t tokens[PROMPT];
    const struct plm_session_options o = {.n_threads = 2, .lookup = lookup, .context = PROMPT + N};
    assert_int_equal(plm_session_open(&s, m, &o, NULL), PLM_OK);
    for (int i = 0; i < PROMPT; i++)
        tokens[i] = (prompt * 13 + i % (5 + prompt) * 7) % 101;
    assert_int_equal(plm_session_append(s, tokens, PROMPT, NULL), PLM_OK);
    for (size_t n = 0; n < N;) {
        size_t more;
        assert_int_equal(plm_session_sample(s, sampling, &out[n], NULL), PLM_OK);
        assert_int_equal(plm_session_append_drafted(s, out[n], sampling, out + n + 1, N - n - 1, &more, NULL), PLM_OK);
        n += 1 + more;
        assert_true(n <= N);
        assert_int_equal(plm_session_length(s), PROMPT + n);
    }
    int64_t drafted, accepted;
    size_t held;
    plm_session_drafts(s, &drafted, &accepted);
    assert_true(accepted <= drafted && (lookup > 0) == (drafted > 0));
    const int32_t *sequence = plm_session_tokens(s, &held);
    assert_int_equal(held, PROMPT + N);
    assert_memory_equal(sequence + PROMPT, out, N * sizeof *out);
    int32_t none;
    size_t n;
    assert_int_equal(plm_session_append_drafted(s, 1, sampling, &none, 1, &n, NULL), PLM_ELIMIT); /* full */
    plm_session_close(s);
    return accepted;
}

/* Greedy or drawn, with a penalty that looks back over the drafts too: token for token what comes out without drafts. */
static void drafts_do_not_change_the_text(void **state)
{
    (void)state;
    const struct model_config c = small_config();
    char path[64];
    struct plm_model *m;
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    static const struct plm_sampling samplings[] = {
        {.temperature = 0, .top_p = 1, .repetition_penalty = 1},
        {.temperature = 0.15f, .top_p = 0.95f, .repetition_penalty = 1, .seed = 3},
        {.temperature = 0, .top_p = 1, .repetition_penalty = 1.02f, .repetition_window = 20},
    };
    for (int type = 0; type < 2; type++) {
        int64_t accepted = 0;
        write_random_model(&c, types[type], path, sizeof path);
        assert_int_equal(plm_model_open(&m, path, NULL), PLM_OK);
        for (int k = 0; k < 9; k++) {
            int32_t plain[N], drafted[N];
            generate(m, 0, k, &samplings[k % 3], plain);
            for (int lookup = 1; lookup <= 12; lookup += 1 + lookup) {
                accepted += generate(m, lookup, k, &samplings[k % 3], drafted);
                assert_memory_equal(drafted, plain, sizeof plain);
            }
        }
        assert_true(accepted > 100);
        plm_model_close(m);
        remove_model(path);
    }
}

static void sessions_are_saved_and_refuse_what_cannot_be(void **state)
{
    (void)state;
    const struct model_config c = small_config();
    char path[64];
    struct plm_model *m;
    struct plm_session *a, *b;
    struct plm_status st = {0};
    const int32_t tokens[] = {1, 2, 3, 4, 5};
    size_t n;
    write_random_model(&c, DTYPE_F32, path, sizeof path);
    assert_int_equal(plm_model_open(&m, path, NULL), PLM_OK);
    struct plm_session_options o = {.n_threads = 1, .lookup = 65};
    assert_int_equal(plm_session_open(&a, m, &o, &st), PLM_EINVAL);
    o = (struct plm_session_options){.n_threads = 1, .lookup = 2, .cache_policy = "d2o", .cache_budget = 16};
    assert_int_equal(plm_session_open(&a, m, &o, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "cache policy"));
    o = (struct plm_session_options){.n_threads = 1};
    assert_int_equal(plm_session_open(&a, m, &o, NULL), PLM_OK);
    assert_int_equal(plm_session_open(&b, m, &o, NULL), PLM_OK);
    assert_int_equal(plm_session_append(a, tokens, 4, NULL), PLM_OK);
    assert_int_equal(plm_session_append(b, tokens, 1, NULL), PLM_OK);
    assert_int_equal(plm_session_save(a, "lookup.session", NULL), PLM_OK);
    assert_int_equal(plm_session_load(b, "nowhere.session", &st), PLM_EIO);
    assert_non_null(plm_session_logits(b));
    assert_int_equal(plm_session_load(b, "lookup.session", NULL), PLM_OK);
    remove("lookup.session");
    assert_null(plm_session_logits(b));
    assert_memory_equal(plm_session_tokens(b, &n), tokens, 4 * sizeof *tokens);
    assert_int_equal(n, 4);
    assert_int_equal(plm_session_append(a, tokens + 4, 1, NULL), PLM_OK);
    assert_int_equal(plm_session_append(b, tokens + 4, 1, NULL), PLM_OK);
    assert_memory_equal(plm_session_logits(a), plm_session_logits(b), (size_t)c.vocab_size * sizeof(float));
    plm_session_close(a);
    plm_session_close(b);
    plm_model_close(m);
    remove_model(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafts_continue_the_longest_latest_match), cmocka_unit_test(drafts_equal_an_exhaustive_search),
        cmocka_unit_test(drafts_do_not_change_the_text), cmocka_unit_test(sessions_are_saved_and_refuse_what_cannot_be),
    };
    return RUN_WITH_EVERY_TABLE(tests, NULL, NULL);
}
