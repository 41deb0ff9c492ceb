#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/strategy.h"
#include "tests/model/support.h"
#include "tests/ops/tables.h"

enum { VOCAB = 270, EOS = 256, QUESTIONS = 5, MOST = 256, LONGEST = 40 };

struct fixture {
    char path[64];
    struct plm_model *model;
    struct encoder *encoder;
    struct chat_template *chat;
    struct refine_template *refine;
    int32_t turn_end;
    struct strategy_question questions[QUESTIONS];
};

static struct chat_message message(const char *role, const char *content)
{
    return (struct chat_message){role, content, strlen(content), false};
}

static int setup(void **state)
{
    static struct fixture f;
    static struct chat_message messages[QUESTIONS][3];
    static const char *const text[QUESTIONS] = {"What is 1+1?", "Name a colour.", "", "Say {y_prev} and {x}.", "A longer question, with more than one line.\nWhy?"};
    struct plm_status st = {0};
    struct model_config c = small_config();
    c.vocab_size = VOCAB;
    write_random_model(&c, DTYPE_F32, f.path, sizeof f.path);
    if (plm_model_open(&f.model, f.path, &st) || chat_template_open(&f.chat, NULL, NULL, &st) ||
        refine_template_from_text(&f.refine, "Q {x}\nA {y_prev}\nBetter:", 24, "test", &st)) {
        fprintf(stderr, "%s\n", st.message);
        return 1;
    }
    byte_tokenizer(&f.model->tokenizer); /* the embedding has some rows more, as padded ones do */
    if (encoder_create(&f.encoder, f.model->tokenizer, &st) || chat_template_end(f.chat, f.model->tokenizer, &f.turn_end, &st)) {
        fprintf(stderr, "%s\n", st.message);
        return 1;
    }
    for (int i = 0; i < QUESTIONS; i++) {
        messages[i][0] = message("user", text[i]);
        f.questions[i] = (struct strategy_question){messages[i], 1, 70 + (uint64_t)i};
    }
    messages[4][0] = message("user", "Hello."), messages[4][1] = message("assistant", "Hi."), messages[4][2] = message("user", text[4]);
    f.questions[4].n_messages = 3;
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    encoder_free(f->encoder);
    chat_template_free(f->chat);
    refine_template_free(f->refine);
    plm_model_close(f->model);
    remove_model(f->path);
    return 0;
}

static struct completer *completer(const struct fixture *f, int batch, int64_t context)
{
    struct plm_status st = {0};
    struct completer *c;
    const int32_t ends[] = {f->turn_end, EOS, 'e', 't'}; /* a random model writes letters sooner */
    const struct completer_options o = {.n_threads = 2, .max_batch = batch, .context = context, .end_tokens = ends, .n_end_tokens = 4,
                                        .sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1}};
    if (completer_create(&c, f->model, &o, &st))
        fail_msg("%s", st.message);
    return c;
}

struct taken {
    const struct fixture *f;
    const struct strategy *s;
    struct {
        int64_t question;
        int chain, turn;
        char text[4 * LONGEST];
        size_t bytes;
        int32_t tokens[LONGEST];
        float log_probs[LONGEST];
        int64_t n;
        bool ended;
    } answers[MOST];
    int n, fail_at;
    char stop_with;    /* a chain whose answer begins with this letter is accepted */
    int64_t tokens;
};

static int find(const struct taken *t, int64_t question, int chain, int turn)
{
    for (int i = 0; i < t->n; i++)
        if (t->answers[i].question == question && t->answers[i].chain == chain && t->answers[i].turn == turn)
            return i;
    return -1;
}

static int take(void *ctx, const struct strategy_answer *a, struct plm_status *st)
{
    struct taken *t = ctx;
    const int before = find(t, a->question, a->chain, a->turn - 1);
    struct token_list ids = {0};
    assert_int_equal(find(t, a->question, a->chain, a->turn), -1); /* each once, */
    assert_int_equal(before >= 0, a->turn > 0);                    /* in turn */
    const struct strategy_question *q = &t->f->questions[a->question];
    assert_int_equal(strategy_prompt(t->s, t->f->encoder, q->messages, q->n_messages, before < 0 ? NULL : t->answers[before].text,
                                     before < 0 ? 0 : t->answers[before].bytes, &ids, st), PLM_OK);
    assert_int_equal(a->n_prompt, ids.length);
    assert_memory_equal(a->prompt, ids.data, ids.length * sizeof *ids.data);
    free(ids.data);
    assert_int_equal(a->text[a->bytes], 0);
    assert_true(a->n >= 1 && a->n <= t->s->max_tokens);
    size_t bytes = 0; /* one byte per ordinary token, none for special ones, those without text, and the end */
    for (int64_t i = 0; i < a->n - a->ended; i++)
        if (a->tokens[i] < 256)
            assert_int_equal((unsigned char)a->text[bytes++], a->tokens[i]);
    assert_int_equal(bytes, a->bytes);
    const int32_t last = a->tokens[a->n - 1];
    assert_int_equal(a->ended, last == t->f->turn_end || last == EOS || last == 'e' || last == 't');
    assert_true(a->ended || a->n == t->s->max_tokens);
    const int i = t->n++;
    t->answers[i].question = a->question, t->answers[i].chain = a->chain, t->answers[i].turn = a->turn;
    memcpy(t->answers[i].text, a->text, a->bytes + 1);
    memcpy(t->answers[i].tokens, a->tokens, (size_t)a->n * sizeof *a->tokens);
    memcpy(t->answers[i].log_probs, a->log_probs, (size_t)a->n * sizeof *a->log_probs);
    t->answers[i].bytes = a->bytes, t->answers[i].n = a->n, t->answers[i].ended = a->ended;
    return t->n == t->fail_at ? status_set(st, PLM_EIO, "the disk is full") : PLM_OK;
}

static bool stop(void *ctx, const struct strategy_answer *a)
{
    const struct taken *t = ctx;
    return a->text[0] == t->stop_with;
}

static struct strategy_counts run(struct completer *c, struct taken *t, const struct fixture *f, const struct strategy *s, int64_t n)
{
    struct plm_status st = {0};
    struct strategy_counts counts;
    t->f = f, t->s = s;
    if (strategy_run(c, f->model, s, f->questions, n, take, t->stop_with ? stop : NULL, t, &counts, &st))
        fail_msg("%s", st.message);
    return counts;
}

static void same(const struct taken *a, const struct taken *b)
{
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++) {
        const int k = find(b, a->answers[i].question, a->answers[i].chain, a->answers[i].turn);
        assert_true(k >= 0);
        assert_int_equal(a->answers[i].n, b->answers[k].n);
        assert_memory_equal(a->answers[i].tokens, b->answers[k].tokens, (size_t)a->answers[i].n * sizeof(int32_t));
        for (int64_t j = 0; j < a->answers[i].n; j++)
            assert_true(a->answers[i].log_probs[j] - b->answers[k].log_probs[j] < 2e-5f && b->answers[k].log_probs[j] - a->answers[i].log_probs[j] < 2e-5f);
    }
}

/* Every prompt is checked against strategy_prompt in take. */
static void chains_refine_their_own_answers(void **state)
{
    const struct fixture *f = *state;
    static struct taken a, b;
    const struct strategy s = {.chains = 3, .refinements = 2, .max_tokens = 30, .seed = 11, .chat = f->chat, .refine = f->refine};
    struct completer *c = completer(f, 4, 400), *alone = completer(f, 1, 400);
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    assert_int_equal(run(c, &a, f, &s, QUESTIONS).too_long, 0);
    assert_int_equal(a.n, QUESTIONS * 3 * 3);
    for (int q = 0; q < QUESTIONS; q++)
        for (int k = 1; k < 3; k++) /* chains of one question differ */
            assert_memory_not_equal(a.answers[find(&a, q, 0, 0)].tokens, a.answers[find(&a, q, k, 0)].tokens, sizeof(int32_t));
    run(alone, &b, f, &s, QUESTIONS);
    same(&a, &b);
    completer_destroy(c);
    completer_destroy(alone);
}

static void the_prompts_are_those_of_the_templates(void **state)
{
    const struct fixture *f = *state;
    struct plm_status st = {0};
    struct token_list ids = {0};
    char *text;
    size_t length;
    const struct strategy s = {.chat = f->chat, .refine = f->refine};
    const struct strategy_question *q = &f->questions[4];
    assert_int_equal(strategy_prompt(&s, f->encoder, q->messages, q->n_messages, "<|im_end|> no", 13, &ids, &st), PLM_OK);
    assert_int_equal(tokenizer_decode(f->model->tokenizer, ids.data, ids.length, true, &text, &length, &st), PLM_OK);
    assert_string_equal(text, "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\nHi.<|im_end|>\n"
                              "<|im_start|>user\nQ A longer question, with more than one line.\nWhy?\nA <|im_end|> no\nBetter:<|im_end|>\n<|im_start|>assistant\n");
    int ends = 0;
    for (size_t i = 0; i < ids.length; i++)
        ends += ids.data[i] == f->turn_end;
    assert_int_equal(ends, 4); /* that of the draft is plain text */
    free(text);
    free(ids.data);
}

static void answers_do_not_depend_on_other_questions(void **state)
{
    struct fixture *f = *state;
    static struct taken a, b;
    const struct strategy s = {.chains = 2, .refinements = 1, .max_tokens = 20, .seed = 3, .chat = f->chat, .refine = f->refine};
    struct completer *c = completer(f, 4, 400);
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    run(c, &a, f, &s, QUESTIONS);
    struct fixture only = *f;
    only.questions[0] = f->questions[3];
    run(c, &b, &only, &s, 1);
    assert_int_equal(b.n, 4);
    for (int i = 0; i < 4; i++) {
        const int k = find(&a, 3, b.answers[i].chain, b.answers[i].turn);
        assert_string_equal(a.answers[k].text, b.answers[i].text);
    }
    const struct strategy other = {.chains = 2, .refinements = 1, .max_tokens = 20, .seed = 4, .chat = f->chat, .refine = f->refine};
    memset(&a, 0, sizeof a);
    run(c, &a, &only, &other, 1);
    assert_string_not_equal(a.answers[0].text, b.answers[0].text);
    completer_destroy(c);
}

static void an_accepted_answer_ends_its_chain(void **state)
{
    const struct fixture *f = *state;
    static struct taken all, t;
    const struct strategy s = {.chains = 4, .refinements = 3, .max_tokens = 10, .seed = 5, .chat = f->chat, .refine = f->refine};
    struct completer *c = completer(f, 6, 400);
    memset(&all, 0, sizeof all);
    memset(&t, 0, sizeof t);
    run(c, &all, f, &s, QUESTIONS);
    t.stop_with = all.answers[find(&all, 1, 2, 1)].text[0];
    run(c, &t, f, &s, QUESTIONS);
    assert_true(t.n < all.n);
    for (int i = 0; i < t.n; i++) {
        const bool accepted = t.answers[i].text[0] == t.stop_with;
        assert_int_equal(find(&t, t.answers[i].question, t.answers[i].chain, t.answers[i].turn + 1) >= 0, !accepted && t.answers[i].turn < 3);
    }
    completer_destroy(c);
}

static void long_prompts_are_counted(void **state)
{
    const struct fixture *f = *state;
    static struct taken t;
    const struct strategy s = {.chains = 2, .refinements = 2, .max_tokens = 30, .seed = 11, .chat = f->chat, .refine = f->refine};
    struct completer *c = completer(f, 4, 150);
    memset(&t, 0, sizeof t);
    const struct strategy_counts counts = run(c, &t, f, &s, QUESTIONS);
    assert_int_equal(find(&t, 4, 0, 0), -1); /* its first prompt has more than 120 tokens */
    assert_int_equal(find(&t, 4, 1, 0), -1);
    assert_true(find(&t, 2, 0, 0) >= 0);
    int ended_early = 2;
    for (int q = 0; q < 4; q++)
        for (int k = 0; k < 2; k++)
            ended_early += find(&t, q, k, 2) < 0;
    assert_int_equal(counts.too_long, ended_early);
    completer_destroy(c);
}

static int count_token(void *ctx, int64_t question, int chain, int turn, int32_t token, struct plm_status *st)
{
    struct taken *t = ctx;
    (void)question, (void)chain, (void)turn, (void)token, (void)st;
    t->tokens++;
    return PLM_OK;
}

static void tokens_are_seen(void **state)
{
    const struct fixture *f = *state;
    static struct taken t;
    const struct strategy s = {.chains = 2, .refinements = 1, .max_tokens = 30, .seed = 11, .chat = f->chat, .refine = f->refine, .token = count_token};
    struct completer *c = completer(f, 4, 400);
    memset(&t, 0, sizeof t);
    run(c, &t, f, &s, QUESTIONS);
    int64_t n = 0;
    for (int i = 0; i < t.n; i++)
        n += t.answers[i].n;
    assert_int_equal(t.tokens, n);
    completer_destroy(c);
}

static void errors_end_the_run(void **state)
{
    struct fixture *f = *state;
    static struct taken t;
    struct plm_status st = {0};
    struct strategy s = {.chains = 3, .refinements = 2, .max_tokens = 10, .chat = f->chat, .refine = f->refine};
    struct completer *c = completer(f, 4, 400);
    memset(&t, 0, sizeof t);
    t.f = f, t.s = &s, t.fail_at = 7;
    assert_int_equal(strategy_run(c, f->model, &s, f->questions, QUESTIONS, take, NULL, &t, NULL, &st), PLM_EIO);
    assert_string_equal(st.message, "the disk is full");
    assert_int_equal(t.n, 7);
    struct strategy_question none = {0};
    memset(&t, 0, sizeof t);
    t.f = f, t.s = &s;
    assert_int_equal(strategy_run(c, f->model, &s, &none, 1, take, NULL, &t, NULL, &st), PLM_EINVAL);
    assert_string_equal(st.message, "a question without messages");
    assert_int_equal(strategy_run(c, f->model, &s, NULL, 0, take, NULL, &t, NULL, &st), PLM_OK);
    s.chains = 0;
    assert_int_equal(strategy_run(c, f->model, &s, f->questions, 1, take, NULL, &t, NULL, &st), PLM_EINVAL);
    struct plm_model bare = *f->model;
    bare.tokenizer = NULL;
    s.chains = 1;
    assert_int_equal(strategy_run(c, &bare, &s, f->questions, 1, take, NULL, &t, NULL, &st), PLM_EUNSUPPORTED);
    completer_destroy(c);
}

static void the_majority_wins(void **state)
{
    (void)state;
    assert_int_equal(majority_vote((const char *[]){"7"}, 1), 0);
    assert_int_equal(majority_vote((const char *[]){"7", "8", "8"}, 3), 1);
    assert_int_equal(majority_vote((const char *[]){"7", "8", "8", "7"}, 4), 0); /* the first of equals */
    assert_int_equal(majority_vote((const char *[]){NULL, NULL, "9"}, 3), 2);
    assert_int_equal(majority_vote((const char *[]){NULL, "1", NULL, NULL, "2", "2"}, 6), 4);
    assert_int_equal(majority_vote((const char *[]){NULL, NULL}, 2), -1);
    assert_int_equal(majority_vote(NULL, 0), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_refine_their_own_answers),
        cmocka_unit_test(the_prompts_are_those_of_the_templates),
        cmocka_unit_test(answers_do_not_depend_on_other_questions),
        cmocka_unit_test(an_accepted_answer_ends_its_chain),
        cmocka_unit_test(long_prompts_are_counted),
        cmocka_unit_test(tokens_are_seen),
        cmocka_unit_test(errors_end_the_run),
        cmocka_unit_test(the_majority_wins),
    };
    return RUN_WITH_EVERY_TABLE(tests, setup, teardown);
}
