/* Eviction and merging: the properties of d2o.md 5.4. Agreement with the reference, number for number: test_verify_d2o.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "tests/cache/support.h"
#include "tests/ops/tables.h"

#define E 2.718281828459045
#define THETA 10000.0

static const struct kv_shape latent = {.content = 64, .rotary = 32, .type = DTYPE_F32, .rope_theta = (float)THETA};
static const struct kv_shape mha = {.content = 32, .rotary = 32, .value = 64, .type = DTYPE_F32, .rope_theta = (float)THETA};

static void compress_or_fail(struct group *g, const struct policy_options *o, int64_t budget)
{
    struct plm_status st = {0};
    if (group_compress(g, o, budget, &st))
        fail_msg("%s", st.message);
    assert_true(g->slots.length <= budget);
}

/* The same slots with everything about them, by position; bits must agree. */
static void assert_same_slots(const struct kv_slots *a, const struct kv_slots *b)
{
    assert_int_equal(a->length, b->length);
    for (int64_t i = 0; i < a->length; i++) {
        const int64_t j = slot_at(b, a->pos[i]);
        assert_true(j >= 0);
        assert_memory_equal(kv_row(a, i), kv_row(b, j), a->row_bytes);
        assert_memory_equal(&a->score[i], &b->score[j], sizeof(float));
        assert_memory_equal(&a->count[i], &b->count[j], sizeof(float));
        assert_memory_equal(&a->norm[i], &b->norm[j], sizeof(float));
    }
}

/* 1: eight vectors, five copies each, one of them popular. Evicting the others with their counts changes no output. */
static void duplicates_lose_nothing(struct kv_shape shape)
{
    enum { KINDS = 8, COPIES = 5, N = 4 + KINDS * COPIES, BUDGET = 24 };
    struct group g;
    float q[2 * 64], before[2 * 64], after[2 * 64], scratch[2 * N], parts[3][64];
    const struct policy_options o = policy_options_default(POLICY_D2O_COUNT);
    const int width = shape.value ? shape.value : shape.content;
    shape.rotary = 0; /* rotated copies at different positions are different keys */
    group_create(&g, &shape, true);
    for (int32_t i = 0; i < N; i++) {
        const int kind = i < 4 ? 100 + i : i % KINDS;
        for (int p = 0; p < 3; p++)
            for (int k = 0; k < 64; k++)
                parts[p][k] = normal((uint32_t)p, (uint64_t)(kind * 64 + k));
        kv_append(&g.slots, i, parts[0], parts[1], parts[2]);
        g.slots.score[i] = i < 4 + KINDS ? 10 : 1 + 0.01f * (float)i;
    }
    for (int i = 0; i < 2 * shape.content; i++)
        q[i] = normal(7, (uint64_t)i);
    kv_attend(&g.slots, ops_select(OPS_BEST), 2, q, NULL, 0.2f, false, before, scratch);
    compress_or_fail(&g, &o, BUDGET);
    kv_attend(&g.slots, ops_select(OPS_BEST), 2, q, NULL, 0.2f, true, after, scratch);
    float total = 0;
    for (int64_t i = 0; i < BUDGET; i++)
        total += g.slots.count[i];
    assert_true(total == N);
    for (int i = 0; i < 2 * width; i++)
        assert_float_equal(after[i], before[i], 1e-5);
    group_free(&g);
}

static void merging_duplicates_with_counts_is_exact(void **state)
{
    (void)state;
    duplicates_lose_nothing(latent);
    duplicates_lose_nothing(mha);
}

/* 2: a gate that nothing passes. */
static void without_merges_d2o_is_h2o(void **state)
{
    (void)state;
    struct group a, b;
    struct policy_options d2o = policy_options_default(POLICY_D2O);
    const struct policy_options h2o = policy_options_default(POLICY_H2O);
    group_create(&a, &latent, true);
    group_create(&b, &latent, true);
    group_fill(&a, 90);
    group_fill(&b, 90);
    d2o.beta = 0;
    a.slots.tau = 2, a.slots.has_tau = true;
    compress_or_fail(&a, &d2o, 30);
    compress_or_fail(&b, &h2o, 30);
    for (int32_t pos = 90; pos < 120; pos++) {
        group_append_random(&a, pos);
        group_append_random(&b, pos);
        compress_or_fail(&a, &d2o, 30);
        compress_or_fail(&b, &h2o, 30);
        assert_same_slots(&a.slots, &b.slots);
    }
    group_free(&a);
    group_free(&b);
}

static double product(const float *a, const float *b, int n)
{
    double sum = 0;
    for (int k = 0; k < n; k++)
        sum += (double)a[k] * b[k];
    return sum;
}

static double length(const float *a, int n) { return sqrt(product(a, a, n)); }

static double cosine(const float *a, const float *b, int n) { return product(a, b, n) / (length(a, n) * length(b, n)); }

/* 3, 4, 5: two victims and one target. Weights exp(u) and e; a linear map of the latents (W_UK, W_UV) commutes with the merge;
 * equal keys rotated to their positions merge into that key rotated to the target's position. */
static void weights_linearity_and_rotation(void **state)
{
    (void)state;
    enum { N = 12, TARGET = 5, MAPPED = 24 };
    struct group g;
    struct policy_options o = policy_options_default(POLICY_D2O);
    float content[N][64], base[32], got[64], rotary[32];
    double u[2], w[3], total = E;
    group_create(&g, &latent, true);
    for (int k = 0; k < 32; k++)
        base[k] = normal(50, (uint64_t)k);
    for (int32_t i = 0; i < N; i++) {
        for (int k = 0; k < 64; k++) /* slots 6 and 7 lie near the target, the others anywhere */
            content[i][k] = i == 6 || i == 7 ? content[TARGET][k] + 0.3f * normal(60, (uint64_t)(i * 64 + k))
                                             : normal(61, (uint64_t)(i * 64 + k));
        memcpy(rotary, base, sizeof rotary);
        rotate(rotary, 32, i, THETA);
        kv_append(&g.slots, i, content[i], rotary, NULL);
        g.slots.score[i] = i == 6 || i == 7 ? 0.1f : 1;
    }
    o.gate = false;
    compress_or_fail(&g, &o, N - 2);
    for (int v = 0; v < 2; v++) {
        u[v] = cosine(content[6 + v], content[TARGET], 64);
        total += exp(u[v]);
    }
    w[0] = E / total, w[1] = exp(u[0]) / total, w[2] = exp(u[1]) / total;
    assert_true(slot_at(&g.slots, 6) < 0 && slot_at(&g.slots, 7) < 0);
    assert_float_equal(g.slots.tau, (u[0] + u[1]) / 2, 1e-6);
    const int64_t target = slot_at(&g.slots, TARGET);
    kv_read(&g.slots, target, got, rotary, NULL);
    for (int k = 0; k < 64; k++)
        assert_float_equal(got[k], w[0] * content[TARGET][k] + w[1] * content[6][k] + w[2] * content[7][k], 1e-5);
    for (int row = 0; row < MAPPED; row++) { /* expand, then merge; merge, then expand */
        double expanded = 0, merged = 0;
        for (int k = 0; k < 64; k++) {
            const double map = normal(70, (uint64_t)(row * 64 + k));
            merged += map * got[k];
            expanded += w[0] * map * content[TARGET][k] + w[1] * map * content[6][k] + w[2] * map * content[7][k];
        }
        assert_float_equal(merged, expanded, 1e-5);
    }
    rotate(rotary, 32, -TARGET, THETA);
    for (int k = 0; k < 32; k++)
        assert_float_equal(rotary[k], base[k], 1e-5);
    assert_float_equal(g.slots.norm[target], length(got, 64), 1e-5);
    group_free(&g);
}

/* Counts weigh both sides, and add up together with the scores. */
static void counts_weigh_the_merge(void **state)
{
    (void)state;
    enum { N = 12, TARGET = 5, VICTIM = 6 };
    struct group g;
    float a[64], b[64], got[64];
    const struct policy_options o = policy_options_default(POLICY_D2O_COUNT);
    group_create(&g, &latent, true);
    group_fill(&g, N);
    kv_read(&g.slots, TARGET, a, NULL, NULL);
    for (int k = 0; k < 64; k++)
        b[k] = a[k] + 0.2f * normal(80, (uint64_t)k);
    kv_write(&g.slots, VICTIM, b, NULL, NULL);
    g.slots.count[TARGET] = 5, g.slots.count[VICTIM] = 3, g.slots.score[TARGET] = 2, g.slots.score[VICTIM] = 0.001f;
    compress_or_fail(&g, &o, N - 1);
    const int64_t j = slot_at(&g.slots, TARGET);
    const double wj = 5 * E, we = 3 * exp(cosine(a, b, 64));
    kv_read(&g.slots, j, got, NULL, NULL);
    assert_true(slot_at(&g.slots, VICTIM) < 0);
    for (int k = 0; k < 64; k++)
        assert_float_equal(got[k], (wj * a[k] + we * b[k]) / (wj + we), 1e-5);
    assert_float_equal(g.slots.count[j], 8, 0);
    assert_float_equal(g.slots.bias[j], log(8), 1e-6);
    assert_float_equal(g.slots.score[j], 2.001, 1e-6);
    group_free(&g);
}

/* A run of a sequence: a prompt of 60, then 60 tokens with scores that grow. */
static void run_sequence(struct group *g, const struct policy_options *o, int64_t budget)
{
    group_fill(g, 60);
    compress_or_fail(g, o, budget);
    for (int32_t pos = 60; pos < 120; pos++) {
        group_append_random(g, pos);
        for (int64_t i = 0; i < g->slots.length; i++)
            g->slots.score[i] += expf(normal(90, (uint64_t)(g->slots.pos[i] * 200 + pos)));
        if (policy_due(o, &g->slots, budget))
            compress_or_fail(g, o, budget);
        assert_true(g->slots.length < budget + o->batch);
    }
}

/* 7 */
static void the_threshold_belongs_to_one_sequence(void **state)
{
    (void)state;
    struct group a, b;
    const struct policy_options o = policy_options_default(POLICY_D2O);
    group_create(&a, &mha, true);
    group_create(&b, &mha, true);
    run_sequence(&a, &o, 24);
    a.slots.tau = 0.9f;
    kv_slots_reset(&a.slots);
    assert_true(!a.slots.has_tau && a.slots.length == 0);
    run_sequence(&a, &o, 24);
    run_sequence(&b, &o, 24);
    assert_same_slots(&a.slots, &b.slots);
    assert_memory_equal(&a.slots.tau, &b.slots.tau, sizeof(float));
    group_free(&a);
    group_free(&b);
}

/* 8 */
static void sinks_and_recent_slots_stay(void **state)
{
    (void)state;
    const enum cache_policy policies[] = {POLICY_STREAMING, POLICY_H2O, POLICY_D2O, POLICY_D2O_COUNT};
    for (int p = 0; p < 4; p++) {
        struct group fresh, g;
        const struct policy_options o = policy_options_default(policies[p]);
        const int64_t budget = 18, recent = policy_recent(budget);
        assert_int_equal(recent, 5);
        group_create(&fresh, &latent, true);
        group_create(&g, &latent, true);
        group_fill(&fresh, 4);
        run_sequence(&g, &o, budget);
        for (int32_t sink = 0; sink < o.n_sink; sink++) {
            const int64_t i = slot_at(&g.slots, sink);
            assert_true(i >= 0 && g.slots.count[i] == 1);
            assert_memory_equal(kv_row(&g.slots, i), kv_row(&fresh.slots, sink), fresh.slots.row_bytes);
        }
        for (int32_t pos = (int32_t)(120 - recent); pos < 120; pos++)
            assert_true(slot_at(&g.slots, pos) >= 0);
        if (policies[p] == POLICY_STREAMING)
            for (int32_t pos = (int32_t)(120 - (budget - o.n_sink)); pos < 120; pos++)
                assert_true(slot_at(&g.slots, pos) >= 0);
        group_free(&fresh);
        group_free(&g);
    }
}

/* 9: a batch of one is a compression at every step; larger batches let the group grow by that much. */
static void batches(void **state)
{
    (void)state;
    struct group a, b;
    struct policy_options o = policy_options_default(POLICY_D2O_COUNT);
    group_create(&a, &latent, true);
    group_create(&b, &latent, true);
    run_sequence(&a, &o, 20);
    group_fill(&b, 60);
    compress_or_fail(&b, &o, 20);
    for (int32_t pos = 60; pos < 120; pos++) {
        group_append_random(&b, pos);
        for (int64_t i = 0; i < b.slots.length; i++)
            b.slots.score[i] += expf(normal(90, (uint64_t)(b.slots.pos[i] * 200 + pos)));
        compress_or_fail(&b, &o, 20);
    }
    assert_same_slots(&a.slots, &b.slots);
    o.batch = 7;
    run_sequence(&b, &o, 20);
    assert_int_equal(b.slots.length, 20 + 60 % 7);
    group_free(&a);
    group_free(&b);
}

static void shuffle(struct kv_slots *s)
{
    float a[3][64], b[3][64];
    for (int64_t i = 0; i < s->length; i++) {
        const int64_t j = (i * 37 + 11) % s->length;
        kv_read(s, i, a[0], a[1], a[2]);
        kv_read(s, j, b[0], b[1], b[2]);
        kv_write(s, i, b[0], b[1], b[2]);
        kv_write(s, j, a[0], a[1], a[2]);
        const int32_t pos = s->pos[i];
        const float score = s->score[i];
        s->pos[i] = s->pos[j], s->score[i] = s->score[j];
        s->pos[j] = pos, s->score[j] = score;
    }
}

/* 10: neither ties nor recency depend on the order in memory, nor the number of threads. */
static void the_order_of_slots_does_not_matter(void **state)
{
    (void)state;
    struct group a, b;
    struct plm_status st = {0};
    struct thread_pool *pool;
    const struct policy_options o = policy_options_default(POLICY_D2O_COUNT);
    assert_int_equal(pool_create(&pool, 3, &st), PLM_OK);
    group_create(&a, &mha, true);
    group_create(&b, &mha, true);
    for (int round = 0; round < 2; round++) {
        group_fill(&a, 100);
        group_fill(&b, 100);
        for (int64_t i = 0; i < 100; i++)
            a.slots.score[i] = b.slots.score[i] = (float)(i % 5); /* many ties */
        for (int64_t i = 12; i < 100; i += 3) { /* and many equal slots */
            float x[3][64];
            kv_read(&a.slots, 4 + i % 4, x[0], x[1], x[2]);
            kv_write(&a.slots, i, x[0], x[1], x[2]);
            kv_write(&b.slots, i, x[0], x[1], x[2]);
        }
        if (round)
            shuffle(&b.slots);
        compress_or_fail(&a, &o, 33);
        assert_int_equal(policy_compress(&o, &b.slots, 33, ops_select(OPS_BEST), round ? NULL : pool, b.scratch, &st), PLM_OK);
        if (!round)
            assert_same_slots(&a.slots, &b.slots);
        for (int64_t i = 0; i < 33; i++) {
            const int64_t j = slot_at(&b.slots, a.slots.pos[i]);
            float x[3][64], y[3][64];
            assert_true(j >= 0);
            kv_read(&a.slots, i, x[0], x[1], x[2]);
            kv_read(&b.slots, j, y[0], y[1], y[2]);
            for (int k = 0; k < 64; k++) {
                assert_float_equal(x[2][k], y[2][k], 1e-5);
                assert_true(k >= 32 || (fabsf(x[0][k] - y[0][k]) < 1e-5f && fabsf(x[1][k] - y[1][k]) < 1e-5f));
            }
            assert_true(a.slots.count[i] == b.slots.count[j]);
        }
    }
    pool_destroy(pool);
    group_free(&a);
    group_free(&b);
}

/* Stored types: the same victims as in float32 (they hang on scores alone), merged rows within the rounding, equal rows merge. */
static void stored_types_compress_alike(void **state)
{
    (void)state;
    const enum dtype types[] = {DTYPE_F16, DTYPE_Q8_0};
    const float tolerance[] = {4e-3f, 6e-2f};
    struct group want;
    struct policy_options o = policy_options_default(POLICY_D2O);
    o.gate = false;
    group_create(&want, &latent, true);
    group_fill(&want, 80);
    compress_or_fail(&want, &o, 60);
    for (int t = 0; t < 2; t++) {
        struct group g;
        struct kv_shape shape = latent;
        int far = 0;
        shape.type = types[t];
        group_create(&g, &shape, true);
        group_fill(&g, 80);
        compress_or_fail(&g, &o, 60);
        for (int64_t i = 0; i < 60; i++) {
            float x[64], y[64], worst = 0;
            const int64_t j = slot_at(&want.slots, g.slots.pos[i]);
            assert_true(j >= 0);
            kv_read(&g.slots, i, x, NULL, NULL);
            kv_read(&want.slots, j, y, NULL, NULL);
            for (int k = 0; k < 64; k++)
                worst = fmaxf(worst, fabsf(x[k] - y[k]));
            far += worst > tolerance[t]; /* a victim may find another neighbour after rounding: two slots differ then */
        }
        assert_true(far <= 2);
        group_free(&g);
    }
    group_free(&want);
}

/* The similarity is the cosine of what is stored, in every type: tau, after one victim and after many, is its mean. */
static void similarity_is_of_stored_rows(void **state)
{
    (void)state;
    const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_Q8_0};
    const struct policy_options o = policy_options_default(POLICY_D2O), h2o = policy_options_default(POLICY_H2O);
    for (int t = 0; t < 3; t++)
        for (int n_victim = 1; n_victim < 50; n_victim += 16) {
            enum { N = 70 };
            struct group g, kept;
            struct kv_shape shape = mha;
            float keys[N][64];
            double mean = 0;
            shape.type = types[t];
            group_create(&g, &shape, true);
            group_create(&kept, &shape, true);
            group_fill(&g, N);
            group_fill(&kept, N);
            for (int i = 0; i < N; i++)
                kv_read(&g.slots, i, keys[i], keys[i] + 32, NULL);
            compress_or_fail(&kept, &h2o, N - n_victim);
            compress_or_fail(&g, &o, N - n_victim);
            for (int e = 0; e < N; e++) {
                double best = -2;
                if (slot_at(&kept.slots, e) >= 0)
                    continue;
                for (int j = 4; j < N; j++)
                    if (slot_at(&kept.slots, j) >= 0)
                        best = fmax(best, cosine(keys[e], keys[j], 64));
                mean += best / n_victim;
            }
            assert_float_equal(g.slots.tau, mean, 1e-6);
            group_free(&g);
            group_free(&kept);
        }
}

static void bad_calls_change_nothing(void **state)
{
    (void)state;
    struct group g, plain;
    struct plm_status st = {0};
    const struct policy_options o = policy_options_default(POLICY_D2O), full = policy_options_default(POLICY_FULL);
    const struct policy_options streaming = policy_options_default(POLICY_STREAMING);
    group_create(&g, &latent, true);
    group_create(&plain, &latent, false);
    group_fill(&g, 40);
    group_fill(&plain, 40);
    assert_int_equal(group_compress(&g, &o, 4, &st), PLM_EINVAL); /* 4 sinks and 1 recent */
    assert_non_null(strstr(st.message, "4 slots"));
    assert_int_equal(group_compress(&g, &o, 0, &st), PLM_EINVAL);
    assert_int_equal(group_compress(&plain, &o, 10, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "policy data"));
    assert_int_equal(g.slots.length, 40);
    compress_or_fail(&g, &o, 40);
    assert_int_equal(group_compress(&g, &full, 5, &st), PLM_OK);
    assert_int_equal(g.slots.length, 40);
    compress_or_fail(&plain, &streaming, 12);
    assert_int_equal(plain.slots.length, 12);
    for (int32_t pos = 0; pos < 40; pos++)
        assert_int_equal(slot_at(&plain.slots, pos) >= 0, pos < 4 || pos >= 32);
    group_free(&g);
    group_free(&plain);
}

/* A model gone wrong (NaN in scores and vectors) still gets a cache of the right size with its sinks and recent slots. */
static void survives_nan(void **state)
{
    (void)state;
    struct group g;
    const struct policy_options o = policy_options_default(POLICY_D2O_COUNT);
    float bad[64];
    for (int k = 0; k < 64; k++)
        bad[k] = NAN;
    group_create(&g, &latent, true);
    group_fill(&g, 100);
    for (int64_t i = 10; i < 90; i += 3) {
        g.slots.score[i] = NAN;
        kv_write(&g.slots, i, bad, NULL, NULL);
    }
    compress_or_fail(&g, &o, 20);
    assert_int_equal(g.slots.length, 20);
    for (int32_t pos = 0; pos < 4; pos++)
        assert_true(slot_at(&g.slots, pos) >= 0 && slot_at(&g.slots, 99 - pos) >= 0);
    group_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merging_duplicates_with_counts_is_exact),
        cmocka_unit_test(without_merges_d2o_is_h2o),
        cmocka_unit_test(weights_linearity_and_rotation),
        cmocka_unit_test(counts_weigh_the_merge),
        cmocka_unit_test(the_threshold_belongs_to_one_sequence),
        cmocka_unit_test(sinks_and_recent_slots_stay),
        cmocka_unit_test(batches),
        cmocka_unit_test(the_order_of_slots_does_not_matter),
        cmocka_unit_test(stored_types_compress_alike),
        cmocka_unit_test(similarity_is_of_stored_rows),
        cmocka_unit_test(bad_calls_change_nothing),
        cmocka_unit_test(survives_nan),
    };
    return RUN_WITH_EVERY_TABLE(tests, NULL, NULL);
}
