#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/random.h"
#include "infer/model/engine.h"
#include "tests/model/support.h"
#include "tests/ops/tables.h"

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

/* Several tokens of one sequence in a batch, as drafts are verified: what one by one gives, also beside other sequences
 * that have fewer tokens, a policy, or a prompt in the same step; and what was wrong can be cut off again. */
static void a_sequence_takes_several_tokens_at_once(void **state)
{
    enum { PROMPT = 270, N = 290, POLICY_TOKENS = 60 };
    struct fixture *f = *state;
    struct engine *one;
    const struct engine_options o = {.n_threads = 2, .max_batch = 1, .context = 400, .policies = true};
    int32_t tokens[3][N];
    float *want[3], *got[3];
    struct engine *keep = f->engine;
    assert_int_equal(engine_create(&one, f->model, &o, NULL), PLM_OK);
    for (int k = 0; k < 3; k++) {
        want[k] = malloc(N * f->vocab * sizeof **want);
        got[k] = malloc(N * f->vocab * sizeof **got);
        for (int i = 0; i < N; i++)
            tokens[k][i] = token_at(k, i);
    }
    for (int round = 0; round < 2; round++) {
        float **out = round ? got : want;
        struct sequence *s[4];
        const struct sequence_options so = {.type = DTYPE_F32, .policy = policy_options_default(POLICY_H2O), .budget = 16};
        f->engine = round ? keep : one;
        for (int k = 0; k < 2; k++)
            s[k] = new_sequence(f, k ? DTYPE_F16 : DTYPE_F32);
        s[3] = new_sequence(f, DTYPE_F32);
        assert_int_equal(sequence_create(&s[2], f->engine, &so, NULL), PLM_OK);
        const int prompts[3] = {PROMPT, 30, 40}, ends[3] = {N, 35, POLICY_TOKENS};
        for (int k = 0; k < 3; k++)
            step(f, &(struct engine_item){.sequence = s[k], .tokens = tokens[k], .n = prompts[k]}, 1);
        struct engine_item items[4];
        for (int k = 0; k < 3; k++)
            items[k] = (struct engine_item){.sequence = s[k], .tokens = tokens[k] + prompts[k], .n = ends[k] - prompts[k], .decode = true, .all = true, .logits = out[k]};
        items[3] = (struct engine_item){.sequence = s[3], .tokens = tokens[0], .n = 20};
        if (round)
            step(f, items, 4);
        else
            for (int k = 0; k < 3; k++)
                step(f, &items[k], 1);
        /* wrong drafts, cut off again: as if they had never been there */
        if (round) {
            const int32_t drafts[4] = {tokens[0][N - 3], 1, 2, 3};
            assert_int_equal(sequence_truncate(s[0], N - 3, NULL), PLM_OK);
            step(f, &(struct engine_item){.sequence = s[0], .tokens = drafts, .n = 4, .decode = true}, 1);
            assert_int_equal(sequence_truncate(s[0], N - 2, NULL), PLM_OK);
            step(f, &(struct engine_item){.sequence = s[0], .tokens = tokens[0] + N - 2, .n = 2, .decode = true, .logits = out[0] + (N - PROMPT - 1) * f->vocab}, 1);
            assert_memory_equal(sequence_tokens(s[0]), tokens[0], N * sizeof **tokens);
        }
        for (int k = 0; k < 4; k++)
            sequence_destroy(s[k]);
    }
    f->engine = keep;
    for (int k = 0; k < 3; k++) {
        static const int n[3] = {N - PROMPT, 5, POLICY_TOKENS - 40};
        assert_true(relative_error(got[k], want[k], (size_t)n[k] * f->vocab) < TOLERANCE);
        free(got[k]);
        free(want[k]);
    }
    engine_destroy(one);
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

static uint64_t fnv1a(const unsigned char *p, size_t n)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001B3u;
    return h;
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

/* Twenty times the trained context within a budget: the memory stays, and the angles of positions beyond the table are those that
 * a model with a longer table has. Half way a copy and a loaded file take over. */
static void generation_has_no_end(void **state)
{
    enum { TRAINED = 60, PROMPT = 50, N = 20 * TRAINED, POLICIES = POLICY_COUNT - 1 };
    struct fixture *f = *state, other = *f;
    struct model_config c = small_config();
    float *want[POLICIES] = {0};
    for (int longer = 1; longer >= 0; longer--) {
        struct plm_status st = {0};
        struct sequence *s[POLICIES];
        struct engine_item items[POLICIES];
        c.max_position_embeddings = longer ? N + 1 : TRAINED;
        write_random_model(&c, DTYPE_F32, other.path, sizeof other.path);
        assert_int_equal(plm_model_open(&other.model, other.path, NULL), PLM_OK);
        assert_int_equal(engine_create(&other.engine, other.model, &(struct engine_options){.n_threads = 1, .max_batch = POLICIES, .policies = true}, NULL), PLM_OK);
        int32_t tokens[PROMPT];
        float *got[POLICIES];
        for (int i = 0; i < PROMPT; i++)
            tokens[i] = token_at(3, i);
        for (int k = 0; k < POLICIES; k++) {
            s[k] = policy_sequence(&other, POLICY_FULL + 1 + k, 24);
            got[k] = malloc(f->vocab * sizeof *got[k]);
            step(&other, &(struct engine_item){.sequence = s[k], .tokens = tokens, .n = PROMPT}, 1);
        }
        for (int i = PROMPT; i < N; i++) {
            const int32_t token = token_at(3, i);
            for (int k = 0; k < POLICIES; k++)
                items[k] = (struct engine_item){.sequence = s[k], .tokens = &token, .n = 1, .logits = got[k]};
            step(&other, items, POLICIES);
            if (i != N / 2 || longer)
                continue;
            for (int k = 0; k < POLICIES; k++) {
                struct sequence *twin = policy_sequence(&other, POLICY_FULL + 1 + k, 24), *loaded = policy_sequence(&other, POLICY_FULL + 1 + k, 24);
                assert_int_equal(sequence_copy(twin, s[k], NULL), PLM_OK);
                if (sequence_save(twin, "endless.session", &st) || sequence_load(loaded, "endless.session", &st))
                    fail_msg("%s", st.message);
                sequence_destroy(s[k]);
                sequence_destroy(twin);
                s[k] = loaded;
            }
            remove("endless.session");
        }
        for (int k = 0; k < POLICIES; k++) {
            assert_int_equal(sequence_length(s[k]), N);
            assert_true(sequence_slots(s[k]) == 2 * 24);
            const int64_t held = sequence_held(s[k]), capacity = sequence_capacity(s[k]);
            assert_true(longer ? held == N : held <= capacity && held >= capacity / 2 - 1);
            for (int64_t i = 0; i < held; i++)
                assert_int_equal(sequence_tokens(s[k])[i], token_at(3, (int)(N - held + i)));
            assert_int_equal(sequence_truncate(s[k], N - 1, &st), PLM_EUNSUPPORTED);
            if (!longer)
                assert_true(relative_error(got[k], want[k], f->vocab) < TOLERANCE);
            sequence_destroy(s[k]);
            free(want[k]);
            want[k] = got[k];
        }
        /* a budget that the context cannot hold is no budget: the sequence ends with the context */
        struct sequence *roomy = policy_sequence(&other, POLICY_STREAMING, longer ? N + 1 : TRAINED);
        step(&other, &(struct engine_item){.sequence = roomy, .tokens = tokens, .n = PROMPT}, 1);
        for (int i = PROMPT; i < TRAINED; i++)
            step(&other, &(struct engine_item){.sequence = roomy, .tokens = tokens, .n = 1}, 1);
        assert_int_equal(engine_step(other.engine, &(struct engine_item){.sequence = roomy, .tokens = tokens, .n = 1}, 1, &st), longer ? PLM_OK : PLM_ELIMIT);
        sequence_destroy(roomy);
        engine_destroy(other.engine);
        plm_model_close(other.model);
        remove_model(other.path);
    }
    for (int k = 0; k < POLICIES; k++)
        free(want[k]);
}

/* Session files with any bytes changed and the checksum made to fit: refused, or sound enough to go on with. */
static void forged_sessions_do_no_harm(void **state)
{
    enum { PROMPT = 40, HEADER = 56, MOST = 1 << 17 };
    struct fixture *f = *state;
    unsigned char *good = malloc(MOST), *bad = malloc(MOST);
    int32_t tokens[PROMPT];
    int loaded = 0, refused = 0;
    for (int i = 0; i < PROMPT; i++)
        tokens[i] = token_at(3, i);
    for (int policy = 0; policy < POLICY_COUNT; policy++) {
        const struct sequence_options o = {.type = DTYPE_Q8_0, .capacity = 60, .policy = policy_options_default((enum cache_policy)policy), .budget = 16};
        struct sequence *a, *b;
        assert_int_equal(sequence_create(&a, f->engine, &o, NULL), PLM_OK);
        assert_int_equal(sequence_create(&b, f->engine, &o, NULL), PLM_OK);
        step(f, &(struct engine_item){.sequence = a, .tokens = tokens, .n = PROMPT}, 1);
        assert_int_equal(sequence_save(a, "forged.session", NULL), PLM_OK);
        FILE *file = fopen("forged.session", "rb");
        const size_t size = fread(good, 1, MOST, file);
        fclose(file);
        assert_true(size > HEADER && size < MOST);
        for (int k = 0; k < 150; k++) {
            memcpy(bad, good, size);
            size_t length = size;
            for (int m = 0; m < 1 + k % 3; m++) { /* numbers and positions come first in a layer and in the file */
                const double where = random_uniform(9, RANDOM_TEST, (uint32_t)policy, (uint64_t)(k * 8 + m));
                const size_t at = 24 + (size_t)(where * (double)((k & 1 ? size : 500) - 24));
                bad[at] = (unsigned char)random_u64(9, RANDOM_TEST, (uint32_t)policy + 100, (uint64_t)(k * 8 + m));
            }
            length -= k % 7 == 0 ? (size_t)(k % 100) : 0;
            const uint64_t sum = fnv1a(bad + HEADER, length - HEADER);
            memcpy(bad + 16, &sum, sizeof sum);
            file = fopen("forged.session", "wb");
            assert_int_equal(fwrite(bad, 1, length, file), length);
            fclose(file);
            sequence_truncate(b, 0, NULL);
            const int code = sequence_load(b, "forged.session", NULL);
            loaded += !code;
            refused += code != PLM_OK;
            for (int i = 0; i < 3 && !code; i++)
                (void)engine_step(f->engine, &(struct engine_item){.sequence = b, .tokens = tokens, .n = 1}, 1, NULL);
        }
        sequence_destroy(a);
        sequence_destroy(b);
    }
    remove("forged.session");
    assert_true(loaded > 80 && refused > 80);
    free(good);
    free(bad);
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
        cmocka_unit_test(a_batch_computes_what_each_does_alone), cmocka_unit_test(a_sequence_takes_several_tokens_at_once),
        cmocka_unit_test(copies_share_their_past_and_nothing_else),
        cmocka_unit_test(smaller_caches_stay_close), cmocka_unit_test(saved_sequences_go_on), cmocka_unit_test(policies_hold_their_budgets),
        cmocka_unit_test(generation_has_no_end), cmocka_unit_test(forged_sessions_do_no_harm), cmocka_unit_test(errors_change_nothing),
    };
    return RUN_WITH_EVERY_TABLE(tests, setup, teardown);
}
