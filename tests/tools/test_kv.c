/* What plm eval kv computes: scores against sessions of the public API and a plain softmax, intervals, names of methods. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/plm.h"
#include "tests/model/support.h"
#include "tools/eval_kv.h"

enum { N_ITEMS = 5, N_CELLS = 6 };

struct fixture {
    char path[64];
    struct plm_model *model;
    int vocab;
};

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

/* ln softmax of the session's logits. */
static void log_softmax(const struct plm_session *s, int vocab, double *out)
{
    const float *l = plm_session_logits(s);
    double top = -INFINITY, sum = 0;
    for (int i = 0; i < vocab; i++)
        top = fmax(top, (double)l[i]);
    for (int i = 0; i < vocab; i++)
        sum += exp((double)l[i] - top);
    for (int i = 0; i < vocab; i++)
        out[i] = (double)l[i] - top - log(sum);
}

static int first_largest(const double *p, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        best = p[i] > p[best] ? i : best;
    return best;
}

static struct plm_session *open_session(struct fixture *f, const char *policy, int budget, const struct kv_item *item)
{
    struct plm_status st = {0};
    struct plm_session *s;
    const struct plm_session_options o = {.n_threads = 1, .cache_type = "f16", .cache_policy = policy, .cache_budget = budget};
    if (plm_session_open(&s, f->model, &o, &st) || plm_session_append(s, item->tokens, item->prompt, &st))
        fail_msg("%s", st.message);
    return s;
}

/* The same with sessions: one token at a time through both caches. */
static struct kv_score reference(struct fixture *f, const char *policy, int budget, const struct kv_item *item, int64_t *tokens)
{
    struct plm_session *full = open_session(f, "full", 0, item), *other = open_session(f, policy, budget, item);
    struct plm_status st = {0};
    struct kv_score s = {0};
    double *p = calloc((size_t)f->vocab, sizeof *p), *q = calloc((size_t)f->vocab, sizeof *q);
    bool right = true;
    *tokens = 0;
    for (size_t t = item->prompt; t + 1 < item->n; t++) {
        if (plm_session_append(full, item->tokens + t, 1, &st) || plm_session_append(other, item->tokens + t, 1, &st))
            fail_msg("%s", st.message);
        const int32_t next = item->tokens[t + 1], answer = item->answer ? item->answer[t + 1] : 0;
        if (item->answer && !answer)
            continue;
        log_softmax(full, f->vocab, p);
        log_softmax(other, f->vocab, q);
        for (int i = 0; i < f->vocab; i++)
            s.kl += exp(p[i]) * (p[i] - q[i]);
        s.nats -= q[next];
        s.same_top += first_largest(p, f->vocab) == first_largest(q, f->vocab);
        ++*tokens;
        if (!answer)
            continue;
        right = (item->answer[t] == answer ? right : true) && first_largest(q, f->vocab) == next;
        if (t + 2 == item->n || item->answer[t + 2] != answer) {
            s.answers++;
            s.correct += right;
        }
    }
    plm_session_close(full);
    plm_session_close(other);
    free(p);
    free(q);
    return s;
}

/* Replace what follows the prompt by what the full cache says. */
static void continue_greedily(struct fixture *f, struct kv_item *item)
{
    struct plm_session *s = open_session(f, "full", 0, item);
    struct plm_status st = {0};
    double *p = calloc((size_t)f->vocab, sizeof *p);
    for (size_t t = item->prompt; t + 1 < item->n; t++) {
        if (plm_session_append(s, item->tokens + t, 1, &st))
            fail_msg("%s", st.message);
        log_softmax(s, f->vocab, p);
        item->tokens[t + 1] = first_largest(p, f->vocab);
    }
    plm_session_close(s);
    free(p);
}

static void scores_are_those_of_sessions(void **state)
{
    struct fixture *f = *state;
    static int32_t tokens[N_ITEMS][128], answers[N_ITEMS][128];
    static const char *const names[N_CELLS] = {"full", "streaming", "h2o", "d2o", "d2o+count", "d2o+count"};
    struct kv_item items[N_ITEMS];
    struct kv_method methods[N_CELLS];
    struct kv_cell cells[N_CELLS];
    struct kv_score scores[N_ITEMS * N_CELLS] = {0};
    int64_t counted[N_ITEMS] = {0};
    struct plm_status st = {0};
    for (int i = 0; i < N_ITEMS; i++) {
        const size_t n = 100 + 5 * (size_t)i, prompt = 60 + 7 * (size_t)i;
        for (size_t t = 0; t < n; t++) {
            tokens[i][t] = (int32_t)((t * (size_t)(7 + i) + t * t / 5) % (size_t)f->vocab);
            answers[i][t] = t > prompt + 1 && t % 4 != 0 ? (int32_t)(t / 4) : 0;
        }
        items[i] = (struct kv_item){.tokens = tokens[i], .n = n, .prompt = prompt, .answer = i % 2 ? answers[i] : NULL};
        if (i == 3)
            continue_greedily(f, &items[i]);
    }
    for (int c = 0; c < N_CELLS; c++) {
        assert_int_equal(kv_method_parse(&methods[c], names[c], DTYPE_F16, &st), PLM_OK);
        cells[c] = (struct kv_cell){&methods[c], c == 0 ? 0 : c == N_CELLS - 1 ? 0.6 : 0.3};
    }
    if (kv_run(f->model, 2, cells, N_CELLS, DTYPE_F16, items, N_ITEMS, scores, counted, &st))
        fail_msg("%s", st.message);
    const struct model_config c = small_config();
    const double row = 2.0 * (c.kv_lora_rank + c.qk_rope_head_dim) + 4;
    static const double metadata[N_CELLS] = {0, 0, 4, 8, 16, 16};
    for (int i = 0; i < N_ITEMS; i++)
        for (int k = 0; k < N_CELLS; k++) {
            const struct kv_score *s = &scores[i * N_CELLS + k];
            const double slots = floor(cells[k].share * (double)items[i].prompt * row / (row + metadata[k]));
            int64_t n;
            const struct kv_score want = reference(f, names[k], (int)slots - 1, &items[i], &n);
            assert_int_equal(counted[i], n);
            assert_true(n > 10);
            assert_float_equal(s->nats, want.nats, 1e-4 * want.nats);
            assert_float_equal(s->kl, want.kl, 1e-4 * want.kl + 2e-6 * (double)n);
            assert_true(llabs(s->same_top - want.same_top) <= 1);
            assert_int_equal(s->answers, want.answers);
            assert_true(llabs(s->correct - want.correct) <= 1);
            assert_true((i % 2 == 1) == (s->answers > 0));
            assert_float_equal(s->bytes,
                               (k == 0 ? (double)(items[i].n - 1) : slots) * (row + metadata[k]) * c.num_hidden_layers, 0.5);
            if (k == 0 && i == 3)
                assert_int_equal(s->correct, s->answers); /* what the full cache says itself */
            if (k == 0)
                assert_true(s->kl < 1e-5 && s->same_top == n);
            else
                assert_true(s->kl > 1e-4);
        }
}

static void small_budgets_are_refused(void **state)
{
    struct fixture *f = *state;
    int32_t tokens[60] = {1, 2, 3};
    struct kv_method full, h2o;
    struct kv_score scores[2] = {0};
    int64_t counted;
    struct plm_status st = {0};
    assert_int_equal(kv_method_parse(&full, "full", DTYPE_F16, &st), PLM_OK);
    assert_int_equal(kv_method_parse(&h2o, "h2o", DTYPE_F16, &st), PLM_OK);
    const struct kv_cell cells[] = {{&full, 0}, {&h2o, 0.1}};
    const struct kv_item item = {.tokens = tokens, .n = 60, .prompt = 50};
    assert_int_equal(kv_run(f->model, 1, cells, 2, DTYPE_F16, &item, 1, scores, &counted, &st), PLM_EINVAL);
    assert_non_null(strstr(
        st.message, "a budget of 10 % of a prompt of 50 tokens leaves 3 slots per layer to method h2o, the minimum is 8"));
}

static void methods_have_options(void **state)
{
    (void)state;
    struct kv_method m;
    struct plm_status st = {0};
    assert_int_equal(kv_method_parse(&m, "d2o+count:ungated:q8_0:uniform", DTYPE_F16, &st), PLM_OK);
    assert_int_equal(m.policy.policy, POLICY_D2O_COUNT);
    assert_int_equal(m.type, DTYPE_Q8_0);
    assert_false(m.policy.gate);
    /* the budgets of two very different layers */
    const double density[] = {0, 1};
    int64_t budgets[2];
    assert_int_equal(policy_allocate(&m.policy, density, 2, 20, 100, budgets, &st), PLM_OK);
    assert_int_equal(budgets[0], 20);
    assert_int_equal(budgets[1], 20);
    assert_int_equal(kv_method_parse(&m, "h2o", DTYPE_F32, &st), PLM_OK);
    assert_int_equal(m.type, DTYPE_F32);
    static const char *const bad[][2] = {
        {"snapkv", "'snapkv', expected full, streaming"},
        {"h2o:uniform", "expected f32, f16 or q8_0"},
        {"d2o:", "'' of method 'd2o:'"},
        {"d2o:bf16", "uniform or ungated"},
        {"", "the policy is ''"},
        {"a_policy_whose_name_is_longer_than_any_buffer_that_holds_the_names_of_policies", "the policy is 'a_policy"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(kv_method_parse(&m, bad[i][0], DTYPE_F16, &st), PLM_EINVAL);
        assert_non_null(strstr(st.message, bad[i][1]));
    }
}

struct sample {
    const double *x;
    size_t n;
};

static double mean(const void *ctx, const int32_t *weight)
{
    const struct sample *s = ctx;
    double sum = 0, n = 0;
    for (size_t i = 0; i < s->n; i++) {
        sum += s->x[i] * (weight ? weight[i] : 1);
        n += weight ? weight[i] : 1;
    }
    return n > 0 ? sum / n : NAN;
}

static double not_a_number(const void *ctx, const int32_t *weight)
{
    (void)ctx, (void)weight;
    return NAN;
}

static void intervals_are_those_of_the_mean(void **state)
{
    (void)state;
    enum { N = 400 };
    double x[N], interval[2], again[2];
    struct kv_resamples r;
    struct plm_status st = {0};
    const struct sample s = {x, N};
    for (int i = 0; i < N; i++)
        x[i] = (i * 7919 % N) / (double)N; /* uniform: standard deviation 1 / sqrt(12) */
    assert_int_equal(kv_resamples_draw(&r, N, 4000, 1, &st), PLM_OK);
    for (size_t k = 0; k < r.count; k++) {
        int32_t copies = 0;
        for (size_t i = 0; i < N; i++)
            copies += r.weight[k * N + i];
        assert_int_equal(copies, N);
    }
    const double half = 1.96 / sqrt(12.0 * N), middle = mean(&s, NULL);
    kv_interval(&r, mean, &s, interval);
    assert_float_equal(interval[0], middle - half, 0.08 * half);
    assert_float_equal(interval[1], middle + half, 0.08 * half);
    kv_interval(&r, mean, &s, again);
    assert_memory_equal(interval, again, sizeof interval);
    kv_interval(&r, not_a_number, &s, interval);
    assert_true(isnan(interval[0]) && isnan(interval[1]));
    kv_resamples_free(&r);
    assert_int_equal(kv_resamples_draw(&r, 1, 10, 1, &st), PLM_OK);
    kv_interval(&r, mean, &(struct sample){x, 1}, interval); /* one item says nothing about others */
    assert_true(isnan(interval[0]));
    kv_resamples_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_those_of_sessions),
        cmocka_unit_test(small_budgets_are_refused),
        cmocka_unit_test(methods_have_options),
        cmocka_unit_test(intervals_are_those_of_the_mean),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
