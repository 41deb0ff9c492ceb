#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/model.h"
#include "infer/plm.h"
#include "tests/model/support.h"
#include "tests/ops/tables.h"

static const struct plm_message conversation[] = {{"user", "Hello."}, {"assistant", "Hi."}, {"user", "What is 1+1?"}};

static int setup(void **state)
{
    static struct plm_model *model;
    static char path[64];
    struct plm_status st = {0};
    struct model_config c = small_config();
    c.vocab_size = 259;
    write_random_model(&c, DTYPE_F32, path, sizeof path);
    if (plm_model_open(&model, path, &st)) {
        fprintf(stderr, "%s\n", st.message);
        return 1;
    }
    remove_model(path); /* mapped */
    byte_tokenizer(&model->tokenizer);
    *state = model;
    return 0;
}

static int teardown(void **state)
{
    plm_model_close(*state);
    return 0;
}

struct seen {
    char text[4][3][256];
    size_t bytes[4][3];
    int ended[4][3], pieces, stop_after;
};

static bool see(void *ctx, int chain, int turn, const char *bytes, size_t n)
{
    struct seen *s = ctx;
    assert_in_range(chain, 0, 3);
    assert_in_range(turn, 0, 2);
    assert_int_equal(s->ended[chain][turn], 0);
    if (n)
        memcpy(s->text[chain][turn] + s->bytes[chain][turn], bytes, n);
    s->bytes[chain][turn] += n;
    s->ended[chain][turn] = n == 0;
    return ++s->pieces != s->stop_after;
}

static char *ask(const struct plm_model *model, const struct plm_answer_options *o)
{
    struct plm_status st = {0};
    char *answer;
    if (plm_answer(model, conversation, 3, o, &answer, &st))
        fail_msg("%s", st.message);
    return answer;
}

static void the_last_turn_is_the_answer(void **state)
{
    static struct seen s;
    struct plm_answer_options o = {.refinements = 2, .max_tokens = 20, .context = 700, .n_threads = 2, .text = see, .ctx = &s};
    memset(&s, 0, sizeof s);
    char *answer = ask(*state, &o), *again;
    assert_string_equal(answer, s.text[0][2]);
    for (int turn = 0; turn < 3; turn++)
        assert_int_equal(s.ended[0][turn], 1);
    assert_string_not_equal(s.text[0][0], s.text[0][1]);
    o.text = NULL;
    again = ask(*state, &o);
    assert_string_equal(answer, again);
    free(again);
    o.refinements = 0;
    again = ask(*state, &o); /* the first draft of the same seed */
    assert_string_equal(s.text[0][0], again);
    free(again);
    free(answer);
}

static void one_of_several_is_given(void **state)
{
    static struct seen s;
    const struct plm_answer_options o = {.refinements = 1, .parallel = 4, .max_tokens = 20, .context = 700, .n_threads = 2, .text = see, .ctx = &s};
    memset(&s, 0, sizeof s);
    char *answer = ask(*state, &o);
    int same = 0;
    for (int chain = 0; chain < 4; chain++)
        same += !strcmp(answer, s.text[chain][1]);
    assert_int_equal(same, 1);
    free(answer);
}

static void it_stops_on_request(void **state)
{
    static struct seen s;
    struct plm_status st = {0};
    char *answer;
    const struct plm_answer_options o = {.refinements = 1, .max_tokens = 20, .context = 700, .n_threads = 1, .text = see, .ctx = &s};
    memset(&s, 0, sizeof s);
    s.stop_after = 5;
    assert_int_equal(plm_answer(*state, conversation, 3, &o, &answer, &st), PLM_ESTOPPED);
    assert_null(answer);
    assert_int_equal(s.pieces, 5);
}

static void wrong_calls_are_refused(void **state)
{
    struct plm_model *model = *state, bare = *model;
    struct plm_status st = {0};
    char *answer;
    struct plm_answer_options o = {.max_tokens = 320, .context = 400};
    assert_int_equal(plm_answer(model, conversation, 3, &o, &answer, &st), PLM_ELIMIT);
    assert_non_null(strstr(st.message, "no room for an answer of 320 tokens in a context of 400"));
    assert_int_equal(plm_answer(model, conversation, 0, NULL, &answer, &st), PLM_EINVAL);
    o.refine_template = "no such file";
    assert_int_equal(plm_answer(model, conversation, 3, &o, &answer, &st), PLM_EIO);
    bare.tokenizer = NULL;
    assert_int_equal(plm_answer(&bare, conversation, 3, NULL, &answer, &st), PLM_EUNSUPPORTED);
    assert_null(answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_turn_is_the_answer),
        cmocka_unit_test(one_of_several_is_given),
        cmocka_unit_test(it_stops_on_request),
        cmocka_unit_test(wrong_calls_are_refused),
    };
    return RUN_WITH_EVERY_TABLE(tests, setup, teardown);
}
