#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/engine.h"
#include "tests/model/support.h"

#define TOLERANCE 1e-5 /* relative, of float32 logits */

struct fixture {
    char path[64];
    struct plm_model *model;
    struct engine *engine;
    size_t vocab;
};

static int setup(void **state)
{
    static struct fixture f;
    struct plm_status st = {0};
    struct model_config c = small_config();
    c.qk_rope_head_dim = 32; /* whole blocks of a q8_0 cache */
    write_random_model(&c, DTYPE_F32, f.path, sizeof f.path);
    const struct engine_options o = {.n_threads = 2, .max_batch = 8, .context = 400, .policies = true};
    if (plm_model_open(&f.model, f.path, &st) || engine_create(&f.engine, f.model, &o, &st)) {
        fprintf(stderr, "%s\n", st.message);
        return 1;
    }
    f.vocab = (size_t)c.vocab_size;
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    engine_destroy(f->engine);
    plm_model_close(f->model);
    remove_model(f->path);
    return 0;
}

static struct sequence *new_sequence(struct fixture *f, enum dtype type)
{
    struct plm_status st = {0};
    struct sequence *s;
    const struct sequence_options o = {.type = type, .policy = policy_options_default(POLICY_FULL)};
    if (sequence_create(&s, f->engine, &o, &st))
        fail_msg("%s", st.message);
    return s;
}

static void step(struct fixture *f, const struct engine_item *items, int n)
{
    struct plm_status st = {0};
    if (engine_step(f->engine, items, n, &st))
        fail_msg("%s", st.message);
}

static int32_t token_at(int sequence, int i)
{
    return (sequence * 31 + i * 17 + i / 3) % 101;
}

/* Logits of `n` tokens of a sequence of its own, one step for the prompt and one for each other token. */
static void alone(struct fixture *f, int sequence, int prompt, int n, float *logits)
{
    int32_t tokens[400];
    for (int i = 0; i < n; i++)
        tokens[i] = token_at(sequence, i);
    struct sequence *s = new_sequence(f, DTYPE_F32);
    step(f, &(struct engine_item){.sequence = s, .tokens = tokens, .n = prompt, .all = true, .logits = logits}, 1);
    for (int i = prompt; i < n; i++)
        step(f, &(struct engine_item){.sequence = s, .tokens = &tokens[i], .n = 1, .logits = logits + (size_t)i * f->vocab}, 1);
    sequence_destroy(s);
}

/* Five sequences of different lengths that join and leave as they go: each computes what it computes alone. */
static void a_batch_computes_what_each_does_alone(void **state)
{
    enum { SEQUENCES = 5, N = 60 };
    struct fixture *f = *state;
    static const int prompts[SEQUENCES] = {1, 7, 30, 2, 20}, joins[SEQUENCES] = {0, 3, 5, 0, 11}, leaves[SEQUENCES] = {60, 40, 60, 25, 60};
    struct sequence *s[SEQUENCES];
    int at[SEQUENCES] = {0};
    float *got[SEQUENCES], *want = malloc(N * f->vocab * sizeof *want);
    int32_t tokens[SEQUENCES][N];
    for (int k = 0; k < SEQUENCES; k++) {
        s[k] = new_sequence(f, DTYPE_F32);
        got[k] = calloc(N * f->vocab, sizeof *got[k]);
        for (int i = 0; i < N; i++)
            tokens[k][i] = token_at(k, i);
    }
    for (int time = 0; time < 2 * N; time++) {
        struct engine_item items[SEQUENCES];
        int n = 0;
        for (int k = 0; k < SEQUENCES; k++) {
            if (time < joins[k] || at[k] >= leaves[k])
                continue;
            const int take = at[k] == 0 ? prompts[k] : 1;
            items[n++] = (struct engine_item){.sequence = s[k], .tokens = &tokens[k][at[k]], .n = take, .all = true, .logits = got[k] + (size_t)at[k] * f->vocab};
            at[k] += take;
        }
        if (n)
            step(f, items, n);
    }
    for (int k = 0; k < SEQUENCES; k++) {
        assert_int_equal(at[k], leaves[k]);
        assert_int_equal(sequence_length(s[k]), leaves[k]);
        alone(f, k, prompts[k], leaves[k], want);
        assert_true(relative_error(got[k], want, (size_t)leaves[k] * f->vocab) < TOLERANCE);
        sequence_destroy(s[k]);
        free(got[k]);
    }
    free(want);
}

/* N samples of one prompt: prefilled once, copied, continued differently. */
static void copies_share_their_past_and_nothing_else(void **state)
{
    enum { PROMPT = 300, N = 310 };
    struct fixture *f = *state;
    int32_t tokens[N];
    float *got = malloc(2 * f->vocab * sizeof *got), *want = malloc(N * f->vocab * sizeof *want);
    for (int i = 0; i < N; i++)
        tokens[i] = token_at(2, i);
    struct sequence *a = new_sequence(f, DTYPE_F32), *b = new_sequence(f, DTYPE_F32);
    step(f, &(struct engine_item){.sequence = a, .tokens = tokens, .n = PROMPT}, 1);
    assert_int_equal(sequence_copy(b, a, NULL), PLM_OK);
    const int32_t other = 5;
    const struct engine_item both[] = {{.sequence = a, .tokens = &other, .n = 1, .logits = got},
                                       {.sequence = b, .tokens = &tokens[PROMPT], .n = N - PROMPT, .decode = true, .logits = got + f->vocab}};
    step(f, both, 2);
    alone(f, 2, PROMPT, N, want);
    assert_true(relative_error(got + f->vocab, want + (N - 1) * f->vocab, f->vocab) < TOLERANCE);
    assert_true(relative_error(got, want + PROMPT * f->vocab, f->vocab) > 1e-3);
    assert_int_equal(sequence_length(a), PROMPT + 1);
    assert_int_equal(sequence_tokens(a)[PROMPT], 5);
    sequence_destroy(a);
    sequence_destroy(b);
    free(got);
    free(want);
}

static void smaller_caches_stay_close(void **state)
{
    enum { N = 320 };
    struct fixture *f = *state;
    static const struct {
        enum dtype type;
        double low, high;
    } cases[] = {{DTYPE_F16, 1e-6, 2e-3}, {DTYPE_Q8_0, 1e-5, 3e-2}};
    int32_t tokens[N];
    float *want = malloc(N * f->vocab * sizeof *want), *got = malloc(N * f->vocab * sizeof *got);
    for (int i = 0; i < N; i++)
        tokens[i] = token_at(1, i);
    alone(f, 1, 290, N, want);
    for (int k = 0; k < 2; k++) {
        struct sequence *s = new_sequence(f, cases[k].type);
        step(f, &(struct engine_item){.sequence = s, .tokens = tokens, .n = 290, .all = true, .logits = got}, 1);
        step(f, &(struct engine_item){.sequence = s, .tokens = tokens + 290, .n = N - 290, .decode = true, .all = true, .logits = got + 290 * f->vocab}, 1);
        const double error = relative_error(got + 290 * f->vocab, want + 290 * f->vocab, (N - 290) * f->vocab);
        assert_true(error > cases[k].low && error < cases[k].high);
        sequence_destroy(s);
    }
    free(want);
    free(got);
}

static void saved_sequences_go_on(void **state)
{
    enum { N = 50 };
    struct fixture *f = *state;
    struct plm_status st = {0};
    int32_t tokens[N];
    float *want = malloc(f->vocab * sizeof *want), *got = malloc(f->vocab * sizeof *got);
    for (int i = 0; i < N; i++)
        tokens[i] = token_at(4, i);
    struct sequence *a = new_sequence(f, DTYPE_F16), *b = new_sequence(f, DTYPE_F16), *other = new_sequence(f, DTYPE_F32);
    step(f, &(struct engine_item){.sequence = a, .tokens = tokens, .n = N - 1}, 1);
    assert_int_equal(sequence_save(a, "test.session", &st), PLM_OK);
    assert_int_equal(sequence_load(b, "test.session", &st), PLM_OK);
    assert_int_equal(sequence_length(b), N - 1);
    assert_memory_equal(sequence_tokens(b), tokens, (N - 1) * sizeof *tokens);
    step(f, &(struct engine_item){.sequence = a, .tokens = &tokens[N - 1], .n = 1, .logits = want}, 1);
    step(f, &(struct engine_item){.sequence = b, .tokens = &tokens[N - 1], .n = 1, .logits = got}, 1);
    assert_memory_equal(got, want, f->vocab * sizeof *got);
    assert_int_equal(sequence_load(other, "test.session", &st), PLM_EINVAL); /* another cache type */
    assert_non_null(strstr(st.message, "type"));
    /* damage: any byte changed or missing is noticed */
    FILE *file = fopen("test.session", "r+b");
    assert_non_null(file);
    fseek(file, 500, SEEK_SET);
    const int byte = fgetc(file);
    fseek(file, 500, SEEK_SET);
    fputc(byte ^ 1, file);
    fclose(file);
    assert_int_equal(sequence_load(b, "test.session", &st), PLM_EFORMAT);
    assert_non_null(strstr(st.message, "checksum"));
    /* another model */
    struct model_config c = small_config();
    char path[64];
    struct plm_model *m;
    struct engine *e;
    struct sequence *s;
    write_random_model(&c, DTYPE_F32, path, sizeof path);
    assert_int_equal(plm_model_open(&m, path, NULL), PLM_OK);
    assert_int_equal(engine_create(&e, m, NULL, NULL), PLM_OK);
    const struct sequence_options so = {.type = DTYPE_F16, .policy = policy_options_default(POLICY_FULL)};
    assert_int_equal(sequence_create(&s, e, &so, NULL), PLM_OK);
    assert_int_equal(sequence_load(s, "test.session", &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "another model"));
    sequence_destroy(s);
    engine_destroy(e);
    plm_model_close(m);
    remove_model(path);
    remove("test.session");
    sequence_destroy(a);
    sequence_destroy(b);
    sequence_destroy(other);
    free(want);
    free(got);
}

static struct sequence *policy_sequence(struct fixture *f, enum cache_policy policy, int64_t budget)
{
    struct plm_status st = {0};
    struct sequence *s;
    const struct sequence_options o = {.type = DTYPE_F32, .policy = policy_options_default(policy), .budget = budget};
    if (sequence_create(&s, f->engine, &o, &st))
        fail_msg("%s", st.message);
    return s;
}

/* Each policy keeps its budget and, in a batch with sequences of other policies, computes what it computes alone; with room for
 * everything it computes what the full cache does; a copy goes on as the original. */
static void policies_hold_their_budgets(void **state)
{
    enum { PROMPT = 200, N = 230, BUDGET = 40 };
    struct fixture *f = *state;
    int32_t tokens[N];
    float *logits[POLICY_COUNT], *want = malloc(f->vocab * sizeof *want), *full = malloc(N * f->vocab * sizeof *full);
    struct sequence *batch[POLICY_COUNT];
    for (int i = 0; i < N; i++)
        tokens[i] = token_at(3, i);
    alone(f, 3, PROMPT, N, full);
    struct engine_item items[POLICY_COUNT];
    for (int p = POLICY_STREAMING; p < POLICY_COUNT; p++) {
        logits[p] = malloc(f->vocab * sizeof *logits[p]);
        batch[p] = policy_sequence(f, (enum cache_policy)p, BUDGET);
        step(f, &(struct engine_item){.sequence = batch[p], .tokens = tokens, .n = PROMPT, .logits = logits[p]}, 1);
        assert_true(relative_error(logits[p], full + (PROMPT - 1) * f->vocab, f->vocab) < TOLERANCE); /* the prompt is attended in full */
        assert_int_equal(sequence_slots(batch[p]), 2 * BUDGET);
        items[p] = (struct engine_item){.sequence = batch[p], .tokens = tokens + PROMPT, .n = N - PROMPT, .logits = logits[p]};
    }
    step(f, items + POLICY_STREAMING, POLICY_COUNT - POLICY_STREAMING);
    for (int p = POLICY_STREAMING; p < POLICY_COUNT; p++) {
        struct sequence *s = policy_sequence(f, (enum cache_policy)p, BUDGET), *copy = policy_sequence(f, (enum cache_policy)p, BUDGET);
        step(f, &(struct engine_item){.sequence = s, .tokens = tokens, .n = PROMPT}, 1);
        step(f, &(struct engine_item){.sequence = s, .tokens = tokens + PROMPT, .n = 10}, 1);
        assert_int_equal(sequence_copy(copy, s, NULL), PLM_OK);
        step(f, &(struct engine_item){.sequence = copy, .tokens = tokens + PROMPT + 10, .n = N - PROMPT - 10, .logits = want}, 1);
        assert_true(relative_error(logits[p], want, f->vocab) < TOLERANCE);
        assert_int_equal(sequence_slots(batch[p]), 2 * BUDGET);
        assert_int_equal(sequence_length(batch[p]), N);
        const double error = relative_error(logits[p], full + (N - 1) * f->vocab, f->vocab);
        assert_true(error > 1e-4 && error < 2); /* something was lost, not everything */
        assert_int_equal(sequence_truncate(batch[p], 10, NULL), PLM_EUNSUPPORTED);
        assert_int_equal(sequence_truncate(batch[p], 0, NULL), PLM_OK);
        struct sequence *roomy = policy_sequence(f, (enum cache_policy)p, 300);
        step(f, &(struct engine_item){.sequence = roomy, .tokens = tokens, .n = PROMPT}, 1);
        step(f, &(struct engine_item){.sequence = roomy, .tokens = tokens + PROMPT, .n = N - PROMPT, .logits = want}, 1);
        assert_true(relative_error(want, full + (N - 1) * f->vocab, f->vocab) < TOLERANCE);
        sequence_destroy(s);
        sequence_destroy(copy);
        sequence_destroy(roomy);
        sequence_destroy(batch[p]);
        free(logits[p]);
    }
    free(want);
    free(full);
}

static void errors_change_nothing(void **state)
{
    struct fixture *f = *state;
    struct plm_status st = {0};
    const int32_t good[] = {1, 2, 3}, bad[] = {1, 500};
    struct sequence *a = new_sequence(f, DTYPE_F32), *b = new_sequence(f, DTYPE_F32), *none;
    const struct engine_item second_is_bad[] = {{.sequence = a, .tokens = good, .n = 3}, {.sequence = b, .tokens = bad, .n = 2}};
    assert_int_equal(engine_step(f->engine, second_is_bad, 2, &st), PLM_EINVAL);
    assert_int_equal(sequence_length(a), 0);
    const struct engine_item twice[] = {{.sequence = a, .tokens = good, .n = 3}, {.sequence = a, .tokens = good, .n = 1}};
    assert_int_equal(engine_step(f->engine, twice, 2, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "same sequence"));
    struct sequence_options o = {.capacity = 401, .policy = policy_options_default(POLICY_FULL)};
    assert_int_equal(sequence_create(&none, f->engine, &o, &st), PLM_ELIMIT);
    o = (struct sequence_options){.type = DTYPE_BF16, .policy = policy_options_default(POLICY_FULL)};
    assert_int_not_equal(sequence_create(&none, f->engine, &o, &st), PLM_OK);
    o = (struct sequence_options){.policy = policy_options_default(POLICY_D2O)};
    assert_int_equal(sequence_create(&none, f->engine, &o, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "budget"));
    o.budget = 3;
    assert_int_equal(sequence_create(&none, f->engine, &o, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "minimum"));
    assert_null(none);
    struct engine *e;
    assert_int_equal(engine_create(&e, f->model, &(struct engine_options){.context = 701}, &st), PLM_ELIMIT);
    assert_null(e);
    sequence_destroy(a);
    sequence_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_computes_what_each_does_alone), cmocka_unit_test(copies_share_their_past_and_nothing_else),
        cmocka_unit_test(smaller_caches_stay_close), cmocka_unit_test(saved_sequences_go_on), cmocka_unit_test(policies_hold_their_budgets),
        cmocka_unit_test(errors_change_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
