/* Attention over blocks of keys, of every table, against attention over all of them at once; and prompts taken in pieces. */
#include "tests/ops/ops_check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "infer/cache/column_sums.h"
#include "infer/model/engine.h"
#include "tests/model/support.h"

enum { HEADS = 3, NOPE = 24, ROPE = 10, V = 37, Q_LEN = 70, PAST = 251, KEYS = PAST + Q_LEN, LDQ = HEADS * (NOPE + ROPE), LDKV = HEADS * (NOPE + V) };

struct problem {
    struct attention a;
    float *q, *kv, *k_pe;
};

static struct problem problem_create(float sharpness)
{
    struct problem p = {.q = random_floats(Q_LEN * LDQ, 50), .kv = random_floats(KEYS * LDKV, 51), .k_pe = random_floats(KEYS * ROPE, 52)};
    for (int i = 0; i < Q_LEN * LDQ; i++)
        p.q[i] *= sharpness;
    p.a = (struct attention){.n_seq = 1, .q_len = Q_LEN, .past = PAST, .n_head = HEADS, .nope = NOPE, .rope = ROPE, .v = V, .q = p.q, .ldq = LDQ,
        .kv = p.kv, .ldkv = LDKV, .k_pe = p.k_pe, .ld_pe = ROPE, .out = random_floats(Q_LEN * HEADS * V, 53),
        .lse = random_floats(Q_LEN * HEADS, 54)};
    return p;
}

static void problem_free(struct problem *p)
{
    free(p->q);
    free(p->kv);
    free(p->k_pe);
    free(p->a.out);
    free(p->a.lse);
}

static void attend_in_blocks(struct problem *p, int64_t block, bool narrow, const struct ops *ops, struct thread_pool *pool)
{
    float *max = random_floats(Q_LEN * HEADS, 55), *sum = random_floats(Q_LEN * HEADS, 56);
    size_t bytes = attention_block_scratch_bytes(&p->a, block, ops, pool_size(pool));
    void *scratch = checked_alloc(bytes);
    memset(scratch, 0xFF, bytes); /* NaN: what is left in the scratch may not reach a result */
    struct attention a = p->a;
    for (int64_t first = 0; first < KEYS; first += block) {
        a.kv = p->kv + first * LDKV, a.k_pe = p->k_pe + first * ROPE;
        attention_add_block(&a, first, KEYS - first < block ? KEYS - first : block, max, sum, narrow, ops, pool, scratch);
    }
    free(scratch);
    free(max);
    free(sum);
}

static const int64_t blocks[] = {KEYS, 128, 100, 33, 1};
enum { N_BLOCKS = sizeof blocks / sizeof *blocks };

static void check_blocks(const struct ops *ops)
{
    for (int sharp = 0; sharp < 2; sharp++) {
        struct problem whole = problem_create(sharp ? 6 : 1), part = problem_create(sharp ? 6 : 1);
        void *scratch = checked_alloc(attention_scratch_bytes(ops, KEYS, 1));
        attention_forward(&whole.a, ops, NULL, scratch, KEYS);
        for (int b = 0; b < N_BLOCKS; b++)
            for (int narrow = 0; narrow < 2; narrow++) {
                attend_in_blocks(&part, blocks[b], narrow, ops, NULL);
                const double error = relative_error(part.a.out, whole.a.out, Q_LEN * HEADS * V), lse = relative_error(part.a.lse, whole.a.lse, Q_LEN * HEADS);
                if (!(error < (narrow ? 2e-3 : 2e-6) && lse < (narrow ? 1e-3 : 1e-6)))
                    fail_msg("%s: blocks of %d, narrow %d: error %g, of lse %g", ops->name, (int)blocks[b], narrow, error, lse);
            }
        free(scratch);
        problem_free(&whole);
        problem_free(&part);
    }
}

static void blocks_are_one_attention(void **state)
{
    (void)state;
    for_each_table(check_blocks);
}

/* The pieces of work depend on the threads, the results do not. */
static void check_threads(const struct ops *ops)
{
    struct thread_pool *pool;
    assert_int_equal(pool_create(&pool, 3, NULL), PLM_OK);
    for (int narrow = 0; narrow < 2; narrow++) {
        struct problem one = problem_create(1), three = problem_create(1);
        attend_in_blocks(&one, 100, narrow, ops, NULL);
        attend_in_blocks(&three, 100, narrow, ops, pool);
        assert_memory_equal(one.a.out, three.a.out, Q_LEN * HEADS * V * sizeof(float));
        problem_free(&one);
        problem_free(&three);
    }
    pool_destroy(pool);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    for_each_table(check_threads);
}

/* A NaN spoils what attends to it: here the last key, which only the last query sees. */
static void check_nan(const struct ops *ops)
{
    for (int narrow = 0; narrow < 2; narrow++) {
        struct problem p = problem_create(1);
        p.kv[(KEYS - 1) * LDKV] = NAN; /* of head 0 */
        attend_in_blocks(&p, 128, narrow, ops, NULL);
        assert_true(isnan(p.a.out[(Q_LEN - 1) * HEADS * V]));
        for (int i = 0; i < (Q_LEN - 1) * HEADS * V; i++)
            assert_true(isfinite(p.a.out[i]));
        problem_free(&p);
    }
}

static void damage_stays_visible(void **state)
{
    (void)state;
    for_each_table(check_nan);
}

static void column_sums_by_blocks(void **state)
{
    (void)state;
    enum { BLOCK = 128 };
    const struct ops *ops = ops_select(OPS_BEST);
    struct problem p = problem_create(1);
    double whole[KEYS] = {0}, part[KEYS] = {0};
    void *scratch = checked_alloc(column_sums_scratch_bytes(ops, 1));
    attend_in_blocks(&p, KEYS, false, ops, NULL);
    struct column_sums c = column_sums_of_attention(&p.a, 0);
    column_sums_add(&c, ops, NULL, scratch, whole);
    for (int64_t first = 0; first < KEYS; first += BLOCK) {
        struct attention a = p.a;
        a.kv = p.kv + first * LDKV, a.k_pe = p.k_pe + first * ROPE;
        c = column_sums_of_attention(&a, 0);
        c.past = PAST - first, c.n_key = KEYS - first < BLOCK ? KEYS - first : BLOCK;
        column_sums_add(&c, ops, NULL, scratch, part + first);
    }
    double total = 0;
    for (int j = 0; j < KEYS; j++) {
        assert_true(fabs(part[j] - whole[j]) <= 1e-6 * whole[j]);
        total += part[j];
    }
    assert_true(fabs(total - Q_LEN * HEADS) < 1e-3);
    free(scratch);
    problem_free(&p);
}

/* More than a chunk of tokens, and so several blocks of keys: at once, in pieces, and one by one at the end. */
static void prompts_in_pieces(void **state)
{
    (void)state;
    enum { N = 1150 };
    static const int pieces[] = {3, 500, 2, 640, 5};
    static const struct {
        enum dtype weights, cache;
        double tolerance;
    } cases[] = {{DTYPE_F32, DTYPE_F32, 2e-5}, {DTYPE_F32, DTYPE_F16, 2e-3}, {DTYPE_F32, DTYPE_Q8_0, 3e-2}, {DTYPE_BF16, DTYPE_F32, 3e-2}};
    struct model_config c = small_config();
    c.qk_rope_head_dim = 32;
    c.max_position_embeddings = N;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        char path[64];
        struct plm_model *m;
        struct engine *e;
        struct sequence *a, *b;
        struct plm_status st = {0};
        write_random_model(&c, cases[k].weights, path, sizeof path);
        const struct engine_options eo = {.n_threads = 2, .max_batch = 4};
        const struct sequence_options so = {.type = cases[k].cache, .policy = policy_options_default(POLICY_FULL)};
        if (plm_model_open(&m, path, &st) || engine_create(&e, m, &eo, &st) || sequence_create(&a, e, &so, &st) || sequence_create(&b, e, &so, &st))
            fail_msg("%s", st.message);
        const size_t vocab = (size_t)c.vocab_size;
        int32_t tokens[N];
        for (int i = 0; i < N; i++)
            tokens[i] = (i * 17 + i / 3) % 101;
        float *at_once = malloc(N * vocab * sizeof *at_once), *by_pieces = malloc(N * vocab * sizeof *by_pieces);
        assert_int_equal(engine_step(e, &(struct engine_item){.sequence = a, .tokens = tokens, .n = N, .all = true, .logits = at_once}, 1, &st), PLM_OK);
        for (int i = 0, at = 0; i < 5; at += pieces[i++]) {
            const struct engine_item item = {.sequence = b, .tokens = tokens + at, .n = pieces[i], .all = true, .logits = by_pieces + (size_t)at * vocab,
                                             .decode = i == 4};
            assert_int_equal(engine_step(e, &item, 1, &st), PLM_OK);
        }
        const double error = relative_error(by_pieces, at_once, N * vocab);
        if (!(error < cases[k].tolerance))
            fail_msg("case %zu: error %g", k, error);
        free(at_once);
        free(by_pieces);
        sequence_destroy(a);
        sequence_destroy(b);
        engine_destroy(e);
        plm_model_close(m);
        remove_model(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_one_attention), cmocka_unit_test(threads_change_nothing), cmocka_unit_test(damage_stays_visible),
        cmocka_unit_test(column_sums_by_blocks), cmocka_unit_test(prompts_in_pieces),
    };
    return RUN_WITH_EVERY_TABLE(tests, NULL, NULL);
}
