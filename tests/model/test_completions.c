#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/completions.h"
#include "infer/text/sampling.h"
#include "tests/model/support.h"
#include "tests/ops/tables.h"

enum { MOST = 24, LONGEST = 700, END = 60, OTHER_END = 90 };

struct fixture {
    char path[64];
    struct plm_model *model;
    int vocab;
};

static const struct plm_sampling plain = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};

static int setup(void **state)
{
    static struct fixture f;
    struct plm_status st = {0};
    const struct model_config c = small_config();
    write_random_model(&c, DTYPE_F32, f.path, sizeof f.path);
    if (plm_model_open(&f.model, f.path, &st)) {
        fprintf(stderr, "%s\n", st.message);
        return 1;
    }
    f.vocab = c.vocab_size;
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    plm_model_close(f->model);
    remove_model(f->path);
    return 0;
}

static bool packed; /* the weights, in the completers that follow */

static struct completer *completer(const struct plm_model *model, int batch, int threads, const struct plm_sampling *sampling, int n_ends)
{
    static const int32_t ends[] = {END, OTHER_END};
    struct plm_status st = {0};
    struct completer *c;
    const struct completer_options o = {.n_threads = threads, .max_batch = batch, .context = 300, .sampling = *sampling, .end_tokens = ends,
                                        .n_end_tokens = n_ends, .packed = packed};
    if (completer_create(&c, model, &o, &st))
        fail_msg("%s", st.message);
    return c;
}

/* Requests given in order, and what came back. */
struct batch {
    struct completion_request requests[MOST];
    int n, given;
    struct {
        int32_t tokens[LONGEST];
        float log_probs[LONGEST];
        int64_t n;
        enum completion_end end;
        int order;
    } got[MOST];
    int delivered, follow; /* the first `follow` requests give another one each when they are delivered */
    int64_t seen;          /* tokens that the hook saw, and after how many it stops the run */
    int64_t stop_after;
};

static bool next(void *ctx, struct completion_request *r)
{
    struct batch *b = ctx;
    if (b->given == b->n)
        return false;
    *r = b->requests[b->given];
    r->tag = &b->got[b->given++];
    return true;
}

static int done(void *ctx, const struct completion_request *r, const struct completion *c, struct plm_status *st)
{
    (void)st;
    struct batch *b = ctx;
    const ptrdiff_t i = ((char *)r->tag - (char *)b->got) / (ptrdiff_t)sizeof b->got[0];
    assert_true(c->n >= 1 && c->n <= r->max_tokens && c->n <= LONGEST);
    memcpy(b->got[i].tokens, c->tokens, (size_t)c->n * sizeof *c->tokens);
    memcpy(b->got[i].log_probs, c->log_probs, (size_t)c->n * sizeof *c->log_probs);
    b->got[i].n = c->n;
    b->got[i].end = c->end;
    b->got[i].order = b->delivered++;
    if (i < b->follow)
        b->n++;
    return PLM_OK;
}

static void run(struct completer *c, struct batch *b)
{
    struct plm_status st = {0};
    b->given = b->delivered = 0;
    if (completer_run(c, &(struct completion_source){.next = next, .done = done, .ctx = b}, &st))
        fail_msg("%s", st.message);
    assert_int_equal(b->given, b->n);
    assert_int_equal(b->delivered, b->n);
}

/* Prompts of different lengths that share a beginning of 20 tokens; numbers 4, 5 and 6 are the same. */
static void make_batch(struct batch *b, int32_t prompts[MOST][64])
{
    *b = (struct batch){.n = MOST};
    for (int k = 0; k < MOST; k++) {
        const int question = k == 5 || k == 6 ? 4 : k;
        for (int i = 0; i < 64; i++)
            prompts[k][i] = (i < 20 ? i * 13 : question * 31 + i * 17 + i / 3) % 101;
        b->requests[k] = (struct completion_request){.prompt = prompts[k], .n_prompt = 20 + (question * 7) % 37, .max_tokens = 3 + (k * 11) % 40,
                                                     .seed = 100 + (uint64_t)k, .stream = (uint32_t)k};
    }
}

static void same(const struct batch *a, const struct batch *b, bool bits)
{
    for (int k = 0; k < a->n; k++) {
        assert_int_equal(a->got[k].n, b->got[k].n);
        assert_int_equal(a->got[k].end, b->got[k].end);
        assert_memory_equal(a->got[k].tokens, b->got[k].tokens, (size_t)a->got[k].n * sizeof(int32_t));
        for (int64_t i = 0; i < a->got[k].n; i++)
            assert_true(bits ? a->got[k].log_probs[i] == b->got[k].log_probs[i] : fabsf(a->got[k].log_probs[i] - b->got[k].log_probs[i]) < 2e-5f);
    }
}

/* The definition: one sequence, one token after the other, all logits from one prefill per token. */
static void completions_are_what_sampling_alone_gives(void **state)
{
    struct fixture *f = *state;
    static struct batch b;
    static int32_t prompts[MOST][64];
    struct plm_status st = {0};
    const struct plm_sampling sampling = {.temperature = 0.9f, .top_p = 0.9f, .repetition_penalty = 1.2f, .repetition_window = 10};
    struct completer *c = completer(f->model, 5, 2, &sampling, 2);
    make_batch(&b, prompts);
    run(c, &b);
    struct engine *e;
    struct sequence *s;
    const struct engine_options eo = {.n_threads = 1, .context = 300, .dense = true};
    assert_int_equal(engine_create(&e, f->model, &eo, &st), PLM_OK);
    assert_int_equal(sequence_create(&s, e, NULL, &st), PLM_OK);
    const size_t vocab = (size_t)f->vocab;
    float *logits = malloc(vocab * 300 * sizeof *logits);
    void *scratch = malloc(vocab * 8);
    int ended = 0, limited = 0;
    for (int k = 0; k < b.n; k++) {
        int32_t tokens[300];
        const struct completion_request *r = &b.requests[k];
        const int n = (int)r->n_prompt;
        memcpy(tokens, r->prompt, (size_t)n * sizeof *tokens);
        bool end = false;
        for (int i = 0; i < b.got[k].n; i++) {
            assert_false(end);
            sequence_truncate(s, 0, &st);
            const struct engine_item item = {.sequence = s, .tokens = tokens, .n = n + i, .all = true, .logits = logits};
            assert_int_equal(engine_step(e, &item, 1, &st), PLM_OK);
            const float *last = logits + (size_t)(n + i - 1) * vocab;
            struct plm_sampling own = sampling;
            own.seed = r->seed;
            int32_t token;
            assert_int_equal(sampling_draw(&own, last, f->vocab, tokens, (size_t)(n + i), (uint64_t)(n + i), r->stream, scratch, &token, &st), PLM_OK);
            assert_int_equal(b.got[k].tokens[i], token);
            double sum = 0;
            for (size_t v = 0; v < vocab; v++)
                sum += exp((double)last[v] - (double)last[token]);
            assert_true(fabs((double)b.got[k].log_probs[i] + log(sum)) < 1e-5);
            tokens[n + i] = token;
            end = token == END || token == OTHER_END;
        }
        assert_int_equal(b.got[k].end, end ? COMPLETION_ENDED : COMPLETION_LIMIT);
        assert_true(end || b.got[k].n == r->max_tokens);
        ended += end;
        limited += !end;
    }
    assert_true(ended > 1 && limited > 1); /* the batch exercises both */
    free(logits);
    free(scratch);
    sequence_destroy(s);
    engine_destroy(e);
    completer_destroy(c);
}

static void runs_repeat_bit_for_bit(void **state)
{
    struct fixture *f = *state;
    static struct batch a, b;
    static int32_t prompts[MOST][64];
    make_batch(&a, prompts);
    make_batch(&b, prompts);
    struct completer *c = completer(f->model, 6, 2, &plain, 1), *other = completer(f->model, 6, 1, &plain, 1);
    run(c, &a);
    run(c, &b); /* whatever the first left in the caches */
    same(&a, &b, true);
    for (int k = 0; k < a.n; k++)
        assert_int_equal(a.got[k].order, b.got[k].order);
    run(other, &b);
    same(&a, &b, true);
    completer_destroy(c);
    completer_destroy(other);
}

static void batches_of_any_size_give_the_same_tokens(void **state)
{
    struct fixture *f = *state;
    static struct batch a, b;
    static int32_t prompts[MOST][64];
    static const int sizes[] = {2, 7, MOST, 2 * MOST};
    const struct plm_sampling greedy = {.temperature = 0, .top_p = 1, .repetition_penalty = 1};
    for (int g = 0; g < 2; g++) {
        struct completer *alone = completer(f->model, 1, 2, g ? &greedy : &plain, 1);
        make_batch(&a, prompts);
        run(alone, &a);
        completer_destroy(alone);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct completer *c = completer(f->model, sizes[i], 2, g ? &greedy : &plain, 1);
            make_batch(&b, prompts);
            run(c, &b);
            same(&a, &b, false);
            completer_destroy(c);
        }
    }
}

static void deliveries_make_further_requests(void **state)
{
    struct fixture *f = *state;
    static struct batch all, in_turn;
    static int32_t prompts[MOST][64];
    struct completer *c = completer(f->model, 4, 2, &plain, 1);
    make_batch(&all, prompts);
    run(c, &all);
    make_batch(&in_turn, prompts);
    in_turn.n = in_turn.follow = MOST / 2; /* the second half comes one by one */
    run(c, &in_turn);
    assert_int_equal(in_turn.n, MOST);
    same(&all, &in_turn, false);
    completer_destroy(c);
}

static void prompts_that_begin_alike_share_their_cache(void **state)
{
    struct fixture *f = *state;
    static struct batch b;
    static int32_t prompts[MOST][64];
    struct completer *c = completer(f->model, 8, 2, &plain, 0);
    make_batch(&b, prompts);
    for (int k = 0; k < MOST; k++) { /* four answers to each of six prompts of 50 tokens, which share 20 */
        memcpy(prompts[k], prompts[k / 4 * 4], sizeof prompts[k]);
        b.requests[k].n_prompt = 50;
        b.requests[k].max_tokens = 10;
    }
    run(c, &b);
    struct completer_stats s = completer_stats(c);
    assert_int_equal(s.prompt_tokens, MOST * 50);
    assert_int_equal(s.reused_tokens, MOST * 50 - 50 - 5 * 30); /* each prompt once, and what they share once */
    assert_int_equal(s.generated, MOST * 10);
    assert_int_equal(s.steps, 3 * 9);
    run(c, &b); /* nothing is kept from run to run: the weights may be others */
    struct completer_stats twice = completer_stats(c);
    assert_int_equal(twice.reused_tokens, 2 * s.reused_tokens);
    completer_destroy(c);
}

/* A model over memory of its own, as a trainer has it. */
static struct plm_model in_memory(const struct plm_model *from, float **memory)
{
    struct plm_status st = {0};
    struct plm_model m = *from;
    size_t n = 0;
    m.neurons = NULL;
    assert_int_equal(weights_create(&m.weights, &m.config, &st), PLM_OK);
    for (int i = 0; i < m.table.n_tensors; i++)
        n += (size_t)(m.table.tensors[i].rows * m.table.tensors[i].cols);
    float *to = *memory = malloc(n * sizeof *to);
    struct plm_model source = *from;
    for (int i = 0; i < m.table.n_tensors; i++) {
        const struct weight *w = weights_slot(&source.weights, &m.table.tensors[i]);
        assert_int_equal(w->type, DTYPE_F32);
        *weights_slot(&m.weights, &m.table.tensors[i]) = (struct weight){to, DTYPE_F32, w->rows, w->cols};
        memcpy(to, w->data, (size_t)(w->rows * w->cols) * sizeof *to);
        to += w->rows * w->cols;
    }
    return m;
}

static void changed_weights_are_seen(void **state)
{
    struct fixture *f = *state;
    static struct batch before, after, fresh;
    static int32_t prompts[MOST][64];
    float *memory;
    struct plm_model m = in_memory(f->model, &memory);
    static const int sizes[] = {2, 8, 12}; /* the small batch would read neurons one by one, the large one has packed weights */
    for (int k = 0; k < 3; k++) {
        packed = k == 2;
        struct completer *c = completer(&m, sizes[k], 2, &plain, 1);
        make_batch(&before, prompts);
        run(c, &before);
        for (int i = 0; i < m.table.n_tensors; i++) {
            const struct weight *w = weights_slot(&m.weights, &m.table.tensors[i]);
            float *x = (float *)(uintptr_t)w->data;
            for (int64_t j = 0; j < w->rows * w->cols; j++)
                x[j] *= 1 + 0.1f * (float)(j % 7 - 3);
        }
        make_batch(&after, prompts);
        run(c, &after);
        completer_destroy(c);
        c = completer(&m, sizes[k], 2, &plain, 1);
        make_batch(&fresh, prompts);
        run(c, &fresh);
        same(&after, &fresh, true);
        assert_memory_not_equal(before.got[3].log_probs, after.got[3].log_probs, sizeof(float));
        completer_destroy(c);
    }
    packed = false;
    weights_free(&m.weights);
    free(memory);
}

static void packed_weights_give_the_same_bits(void **state)
{
    struct fixture *f = *state;
    static struct batch a, b;
    static int32_t prompts[MOST][64];
    make_batch(&a, prompts);
    make_batch(&b, prompts);
    struct completer *c = completer(f->model, 12, 2, &plain, 1);
    packed = true;
    struct completer *d = completer(f->model, 12, 2, &plain, 1);
    packed = false;
    run(c, &a);
    run(d, &b);
    same(&a, &b, true);
    completer_destroy(c);
    completer_destroy(d);
}

static void answers_end_at_the_context(void **state)
{
    struct fixture *f = *state;
    static struct batch b;
    struct completer *c = completer(f->model, 2, 2, &plain, 0);
    int32_t prompt[300];
    for (int i = 0; i < 300; i++)
        prompt[i] = i % 101;
    assert_int_equal(completer_context(c), 300);
    b = (struct batch){.n = 2};
    b.requests[0] = (struct completion_request){.prompt = prompt, .n_prompt = 290, .max_tokens = 50};
    b.requests[1] = (struct completion_request){.prompt = prompt, .n_prompt = 299, .max_tokens = 50};
    run(c, &b);
    assert_int_equal(b.got[0].n, 10);
    assert_int_equal(b.got[0].end, COMPLETION_LIMIT);
    assert_int_equal(b.got[1].n, 1);
    completer_destroy(c);
}

static void expect_error(struct completer *c, struct batch *b, int want, const char *says)
{
    struct plm_status st = {0};
    b->given = b->delivered = 0;
    assert_int_equal(completer_run(c, &(struct completion_source){.next = next, .done = done, .ctx = b}, &st), want);
    if (!strstr(st.message, says))
        fail_msg("'%s' does not say '%s'", st.message, says);
}

static void wrong_requests_are_refused(void **state)
{
    struct fixture *f = *state;
    static struct batch b;
    static int32_t prompts[MOST][64];
    struct plm_status st = {0};
    struct completer *c = completer(f->model, 4, 2, &plain, 1);
    int32_t prompt[300] = {0}, outside[] = {1, 2, 101};
    make_batch(&b, prompts);
    b.requests[9] = (struct completion_request){.prompt = prompt, .n_prompt = 300, .max_tokens = 5};
    expect_error(c, &b, PLM_ELIMIT, "300 tokens leaves no room");
    b.requests[9].n_prompt = 0;
    expect_error(c, &b, PLM_EINVAL, "at least one of each");
    b.requests[9] = (struct completion_request){.prompt = prompt, .n_prompt = 3};
    expect_error(c, &b, PLM_EINVAL, "at most 0 tokens after a prompt of 3");
    b.requests[9] = (struct completion_request){.prompt = outside, .n_prompt = 3, .max_tokens = 3};
    expect_error(c, &b, PLM_EINVAL, "token 2 is 101");
    make_batch(&b, prompts);
    run(c, &b); /* none of that has broken it */
    completer_destroy(c);
    const struct completer_options bad[] = {{.max_batch = 0, .sampling = plain}, {.max_batch = 2}, {.max_batch = 2, .context = 701, .sampling = plain}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_not_equal(completer_create(&c, f->model, &bad[i], &st), PLM_OK);
        assert_null(c);
    }
}

static int see(void *ctx, const struct completion_request *r, int32_t token, struct plm_status *st)
{
    struct batch *b = ctx;
    (void)r, (void)token;
    return ++b->seen == b->stop_after ? status_set(st, PLM_ESTOPPED, "enough") : PLM_OK;
}

static void tokens_are_seen_and_runs_stopped(void **state)
{
    struct fixture *f = *state;
    static struct batch b;
    static int32_t prompts[MOST][64];
    struct plm_status st = {0};
    struct completer *c = completer(f->model, 4, 2, &plain, 1);
    const struct completion_source source = {.next = next, .done = done, .token = see, .ctx = &b};
    make_batch(&b, prompts);
    assert_int_equal(completer_run(c, &source, &st), PLM_OK);
    int64_t n = 0;
    for (int k = 0; k < b.n; k++)
        n += b.got[k].n;
    assert_int_equal(b.seen, n);
    assert_int_equal(completer_stats(c).generated, n);
    make_batch(&b, prompts);
    b.stop_after = 30;
    assert_int_equal(completer_run(c, &source, &st), PLM_ESTOPPED);
    assert_string_equal(st.message, "enough");
    assert_int_equal(b.seen, 30);
    completer_destroy(c);
}

static void damaged_weights_are_an_error(void **state)
{
    struct fixture *f = *state;
    static struct batch b;
    static int32_t prompts[MOST][64];
    float *memory;
    struct plm_model m = in_memory(f->model, &memory);
    struct completer *c = completer(&m, 4, 2, &plain, 1);
    const struct weight *w = &m.weights.final_norm;
    ((float *)(uintptr_t)w->data)[3] = NAN;
    make_batch(&b, prompts);
    expect_error(c, &b, PLM_EINVAL, "damaged");
    completer_destroy(c);
    weights_free(&m.weights);
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(completions_are_what_sampling_alone_gives),
        cmocka_unit_test(runs_repeat_bit_for_bit),
        cmocka_unit_test(batches_of_any_size_give_the_same_tokens),
        cmocka_unit_test(deliveries_make_further_requests),
        cmocka_unit_test(prompts_that_begin_alike_share_their_cache),
        cmocka_unit_test(changed_weights_are_seen),
        cmocka_unit_test(packed_weights_give_the_same_bits),
        cmocka_unit_test(answers_end_at_the_context),
        cmocka_unit_test(wrong_requests_are_refused),
        cmocka_unit_test(tokens_are_seen_and_runs_stopped),
        cmocka_unit_test(damaged_weights_are_an_error),
    };
    return RUN_WITH_EVERY_TABLE(tests, setup, teardown);
}
