/* Column sums against the matrix of probabilities in double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/cache/column_sums.h"
#include "tests/cache/support.h"
#include "tests/ops/tables.h"

enum { HEADS = 3, NOPE = 32, ROPE = 32, V = 32, KEYS = 600 };

static float q[KEYS * HEADS * (NOPE + ROPE)], kv[KEYS * HEADS * (NOPE + V)], k_pe[KEYS * ROPE], out[KEYS * HEADS * V],
    lse[KEYS * HEADS];
static double expected[HEADS][KEYS]; /* of all queries */

static void *scratch_or_fail(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(p);
    return p;
}

/* Attention of the last `n` of KEYS queries. */
static struct attention attention_of_last(int64_t n)
{
    return (struct attention){.n_seq = 1, .q_len = n, .past = KEYS - n, .n_head = HEADS, .nope = NOPE, .rope = ROPE, .v = V,
                              .q = q + (KEYS - n) * HEADS * (NOPE + ROPE), .ldq = HEADS * (NOPE + ROPE), .kv = kv,
                              .ldkv = HEADS * (NOPE + V), .k_pe = k_pe, .ld_pe = ROPE, .out = out + (KEYS - n) * HEADS * V,
                              .lse = lse + (KEYS - n) * HEADS};
}

static int set_up(void **state)
{
    (void)state;
    const struct ops *ops = ops_select(OPS_BEST);
    for (size_t i = 0; i < sizeof q / sizeof *q; i++)
        q[i] = 2 * normal(1, i);
    for (size_t i = 0; i < sizeof kv / sizeof *kv; i++)
        kv[i] = normal(2, i);
    for (size_t i = 0; i < sizeof k_pe / sizeof *k_pe; i++)
        k_pe[i] = normal(3, i);
    const struct attention a = attention_of_last(KEYS);
    void *scratch = scratch_or_fail(attention_scratch_bytes(ops, KEYS, 1));
    attention_forward(&a, ops, NULL, scratch, KEYS);
    free(scratch);
    memset(expected, 0, sizeof expected);
    for (int h = 0; h < HEADS; h++)
        for (int i = 0; i < KEYS; i++) {
            double p[KEYS], sum = 0;
            for (int j = 0; j <= i; j++) {
                double logit = 0;
                for (int k = 0; k < NOPE; k++)
                    logit += (double)q[(i * HEADS + h) * (NOPE + ROPE) + k] * kv[(j * HEADS + h) * (NOPE + V) + k];
                for (int k = 0; k < ROPE; k++)
                    logit += (double)q[(i * HEADS + h) * (NOPE + ROPE) + NOPE + k] * k_pe[j * ROPE + k];
                sum += p[j] = exp(logit / sqrt(NOPE + ROPE));
            }
            for (int j = 0; j <= i; j++)
                expected[h][j] += p[j] / sum;
        }
    return 0;
}

static void assert_sums(const double *sums, int from, int to)
{
    for (int j = 0; j < KEYS; j++) {
        double want = 0;
        for (int h = from; h < to; h++)
            want += expected[h][j];
        if (!(fabs(sums[j] - want) <= 1e-5 * (1 + want)))
            fail_msg("column %d: %.9g, expected %.9g", j, sums[j], want);
    }
}

static void sums_agree_in_one_piece_and_in_chunks(void **state)
{
    (void)state;
    const struct ops *ops = ops_select(OPS_BEST);
    void *scratch = scratch_or_fail(column_sums_scratch_bytes(ops, 1));
    const struct attention a = attention_of_last(KEYS);
    const struct column_sums all = column_sums_of_attention(&a, 0);
    double sums[KEYS] = {0};
    column_sums_add(&all, ops, NULL, scratch, sums);
    assert_sums(sums, 0, HEADS);
    for (int h = 0; h < HEADS; h++) {
        const struct column_sums one = column_sums_heads(&all, h, 1);
        memset(sums, 0, sizeof sums);
        column_sums_add(&one, ops, NULL, scratch, sums);
        assert_sums(sums, h, h + 1);
    }
    memset(sums, 0, sizeof sums);
    for (int64_t from = 0, n = 170; from < KEYS;
         from += n) { /* chunks of a prefill: queries [from, from + n) over the keys so far */
        n = KEYS - from < n ? KEYS - from : n;
        struct column_sums chunk = all;
        chunk.past = from, chunk.n_query = n, chunk.q += from * all.ldq, chunk.lse += from * all.ld_lse;
        column_sums_add(&chunk, ops, NULL, scratch, sums);
    }
    assert_sums(sums, 0, HEADS);
    free(scratch);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    const struct ops *ops = ops_select(OPS_BEST);
    struct plm_status st = {0};
    struct thread_pool *pool;
    assert_int_equal(pool_create(&pool, 3, &st), PLM_OK);
    void *scratch = scratch_or_fail(column_sums_scratch_bytes(ops, 3));
    const struct attention a = attention_of_last(KEYS);
    const struct column_sums all = column_sums_of_attention(&a, 0);
    double one[KEYS] = {0}, three[KEYS] = {0};
    column_sums_add(&all, ops, NULL, scratch, one);
    column_sums_add(&all, ops, pool, scratch, three);
    assert_memory_equal(one, three, sizeof one);
    pool_destroy(pool);
    free(scratch);
}

/* All heads over the same keys, as absorbed queries over latents or a GQA group; stored in f16 and q8_0 too. */
static void shared_and_stored_keys(void **state)
{
    (void)state;
    enum { N = 100, WIDTH = 64 };
    const struct ops *ops = ops_select(OPS_BEST);
    void *scratch = scratch_or_fail(column_sums_scratch_bytes(ops, 1));
    const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_Q8_0};
    for (int t = 0; t < 3; t++) {
        static _Alignas(64) unsigned char rows[N * WIDTH * sizeof(float)];
        static float keys[N][WIDTH], logs[N][HEADS];
        double want[N] = {0}, sums[N] = {0};
        const size_t row_bytes = dtype_row_bytes(types[t], WIDTH);
        for (int j = 0; j < N; j++) {
            for (int k = 0; k < WIDTH; k++)
                keys[j][k] = normal(5, (uint64_t)(j * WIDTH + k));
            dtype_from_f32(types[t], rows + (size_t)j * row_bytes, keys[j], WIDTH);
            dtype_to_f32(types[t], keys[j], rows + (size_t)j * row_bytes, WIDTH);
        }
        for (int i = 0; i < N; i++)
            for (int h = 0; h < HEADS; h++) {
                double p[N], sum = 0;
                for (int j = 0; j <= i; j++) {
                    double logit = 0;
                    for (int k = 0; k < WIDTH; k++)
                        logit += (double)q[(i * HEADS + h) * WIDTH + k] * keys[j][k];
                    sum += p[j] = exp(0.1 * logit);
                }
                for (int j = 0; j <= i; j++)
                    want[j] += p[j] / sum;
                logs[i][h] = (float)log(sum);
            }
        const struct column_sums whole = {.n_query = N, .n_head = HEADS, .width1 = WIDTH, .scale = 0.1f, .q = q,
                                          .ldq = HEADS * WIDTH, .k1 = rows, .ld1 = WIDTH, .key_type = types[t], .lse = logs[0],
                                          .ld_lse = HEADS};
        column_sums_add(&whole, ops, NULL, scratch, sums);
        for (int j = 0; j < N; j++)
            assert_float_equal(sums[j], want[j], 2e-5 * (1 + want[j]));
        struct column_sums split = whole; /* the same vectors as [latent, rotated key] */
        split.width1 = split.width2 = WIDTH / 2, split.k2 = rows + dtype_row_bytes(types[t], WIDTH / 2), split.ld2 = WIDTH;
        memset(sums, 0, sizeof sums);
        column_sums_add(&split, ops, NULL, scratch, sums);
        for (int j = 0; j < N; j++)
            assert_float_equal(sums[j], want[j], 2e-5 * (1 + want[j]));
    }
    free(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_agree_in_one_piece_and_in_chunks),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(shared_and_stored_keys),
    };
    return RUN_WITH_EVERY_TABLE(tests, set_up, NULL);
}
