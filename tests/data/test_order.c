/* Packing, permutation, mixture and order: their promises, checked on small cases exhaustively. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/mixture.h"
#include "data/order.h"
#include "data/pack.h"
#include "data/permutation.h"
#include "infer/base/random.h"

/* Every input of every document in exactly one piece, no overlap in a row, no row that another could have held. */
static void check_packing(int64_t n, int max_length, int seq_len, uint32_t salt)
{
    struct plm_status st = {0};
    uint64_t *offsets = calloc((size_t)n + 1, sizeof *offsets);
    for (int64_t i = 0; i < n; i++)
        offsets[i + 1] = offsets[i] + 1 + random_u64(3, RANDOM_TEST, salt, (uint64_t)i) % (uint64_t)max_length;
    unsigned char *seen = calloc(offsets[n] + 1, 1);
    struct packing p;
    assert_int_equal(pack_documents(&p, offsets, n, seq_len, &st), PLM_OK);
    assert_int_equal(p.n_inputs, (int64_t)offsets[n] - n);
    int64_t inputs = 0;
    int half_empty = 0;
    for (int64_t r = 0; r < p.n_rows; r++) {
        int column = 0;
        assert_true(p.row_begin[r + 1] > p.row_begin[r]);
        for (int64_t i = p.row_begin[r]; i < p.row_begin[r + 1]; i++) {
            assert_int_equal(p.pieces[i].column, column);
            assert_true(p.pieces[i].length > 0);
            column += p.pieces[i].length;
            inputs += p.pieces[i].length;
            for (int k = 0; k < p.pieces[i].length; k++)
                assert_int_equal(seen[p.pieces[i].begin + (uint64_t)k]++, 0);
        }
        assert_true(column <= seq_len);
        half_empty += 2 * column <= seq_len;
    }
    assert_true(half_empty <= 1);
    assert_int_equal(inputs, p.n_inputs);
    assert_int_equal(p.row_begin[p.n_rows], p.n_pieces);
    for (int64_t i = 0; i < n; i++)
        assert_int_equal(seen[offsets[i + 1] - 1], 0); /* the last token is only a target */
    /* only documents longer than a row are split: pieces of a document fill rows, but for one */
    int64_t expected = 0;
    for (int64_t i = 0; i < n; i++)
        expected += (int64_t)(offsets[i + 1] - offsets[i] - 1 + (uint64_t)seq_len - 1) / seq_len;
    assert_int_equal(p.n_pieces, expected);
    packing_free(&p);
    free(seen);
    free(offsets);
}

static void test_packing(void **state)
{
    (void)state;
    uint32_t salt = 0;
    for (int seq_len = 1; seq_len < 10000; seq_len = seq_len * 3 + 1)
        for (int64_t n = 0; n < 3000; n = n * 7 + 1) {
            check_packing(n, 2 * seq_len + 3, seq_len, salt++);
            check_packing(n, 5, seq_len, salt++);
        }
    check_packing(100, 1, 8, 1); /* nothing to predict: no rows */
}

/* Worst fit would open a third row here; best fit must not. */
static void test_packing_best_fit(void **state)
{
    (void)state;
    struct packing p;
    struct plm_status st = {0};
    const uint64_t lengths[] = {6, 5, 4, 3, 2}; /* inputs; rows of 10: 6 + 4 and 5 + 3 + 2 */
    uint64_t offsets[6] = {0};
    for (int i = 0; i < 5; i++)
        offsets[i + 1] = offsets[i] + lengths[i] + 1;
    assert_int_equal(pack_documents(&p, offsets, 5, 10, &st), PLM_OK);
    assert_int_equal(p.n_rows, 2);
    packing_free(&p);
}

static void test_permutation(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 600; n = n < 20 ? n + 1 : 2 * n - 3) {
        unsigned char seen[1024] = {0};
        uint64_t moved = 0;
        for (uint64_t i = 0; i < n; i++) {
            uint64_t j = permutation_apply(99, n, i);
            assert_true(j < n);
            assert_int_equal(seen[j]++, 0);
            moved += j != i;
        }
        assert_true(n < 10 || moved > n / 2);
    }
    uint64_t big = ((uint64_t)1 << 40) + 12345;
    assert_true(permutation_apply(1, big, big - 1) < big);
    assert_true(permutation_apply(1, big, 7) != permutation_apply(2, big, 7));
    assert_true(permutation_apply(1, UINT64_MAX, 7) < UINT64_MAX);
}

/* In every prefix, every source within one sample of its share; any access pattern gives the same answer. */
static void test_mixture(void **state)
{
    (void)state;
    static const double cases[][6] = {
        {1}, {0.5, 0.5}, {0.7, 0.2, 0.1}, {1, 1, 1, 1, 1, 1}, {0.9, 0.02, 0.02, 0.02, 0.02, 0.02}, {100, 3, 2, 1, 1e-3, 1e-7},
        {0.3334, 0.3333, 0.3333}, {5, 4, 3, 2, 1, 0.5},
    };
    enum { N = 20000 };
    static int chosen[N];
    struct plm_status st = {0};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        int n = 0;
        double sum = 0;
        while (n < 6 && cases[c][n] > 0)
            sum += cases[c][n++];
        struct mixture *m;
        assert_int_equal(mixture_create(&m, cases[c], n, &st), PLM_OK);
        int64_t count[6] = {0};
        for (int64_t k = 0; k < N; k++) {
            int source;
            int64_t drawn;
            assert_int_equal(mixture_locate(m, k, &source, &drawn, &st), PLM_OK);
            assert_int_equal(drawn, count[source]++);
            chosen[k] = source;
            for (int i = 0; i < n; i++)
                assert_true(fabs((double)count[i] - (double)(k + 1) * cases[c][i] / sum) < 1);
        }
        for (uint64_t i = 0; i < 300; i++) { /* anywhere, in any order */
            int64_t k = (int64_t)(random_u64(1, RANDOM_TEST, 0, i) % N), drawn, counts[6], total = 0;
            int source;
            assert_int_equal(mixture_locate(m, k, &source, &drawn, &st), PLM_OK);
            assert_int_equal(source, chosen[k]);
            assert_int_equal(mixture_counts(m, k, counts, &st), PLM_OK);
            assert_int_equal(counts[source], drawn);
            for (int j = 0; j < n; j++)
                total += counts[j];
            assert_int_equal(total, k);
        }
        mixture_free(m);
    }
    struct mixture *m;
    assert_int_equal(mixture_create(&m, (double[]){1, 0}, 2, &st), PLM_EINVAL);
    assert_int_equal(mixture_create(&m, (double[]){1, NAN}, 2, &st), PLM_EINVAL);
    assert_int_equal(mixture_create(&m, NULL, 0, &st), PLM_EINVAL);
}

static void test_order(void **state)
{
    (void)state;
    static const int64_t rows[2][11] = {{3, 0, 5, 1, 2, 7, 0, 0, 4, 1, 2}, {6}};
    struct order_source sources[] = {{2, rows[0], 11}, {1, rows[1], 1}};
    struct order *o, *other;
    struct plm_status st = {0};
    assert_int_equal(order_create(&o, 5, 0, sources, 2, &st), PLM_OK);
    assert_int_equal(order_create(&other, 5, 1, sources, 2, &st), PLM_OK);
    int seen[2][10][11][8] = {0}, differs = 0, repeats = 0;
    struct order_place first_epoch[25], p, q;
    int64_t drawn[2] = {0};
    for (int64_t k = 0; k < 150; k++) {
        assert_int_equal(order_locate(o, k, &p, &st), PLM_OK);
        assert_int_equal(order_locate(other, k, &q, &st), PLM_OK);
        assert_true(p.window < sources[p.source].n_windows && p.row < rows[p.source][p.window]);
        assert_int_equal(p.epoch, drawn[p.source] / (p.source ? 6 : 25));
        int64_t position = drawn[p.source]++ % (p.source ? 6 : 25);
        seen[p.source][p.epoch][p.window][p.row]++;
        differs += p.window != q.window || p.row != q.row;
        if (p.source == 0 && p.epoch == 0)
            first_epoch[position] = p;
        if (p.source == 0 && p.epoch == 1)
            repeats += first_epoch[position].window == p.window && first_epoch[position].row == p.row;
    }
    for (int64_t e = 0; e < 4; e++)
        for (int w = 0; w < 11; w++)
            for (int64_t r = 0; r < rows[0][w]; r++)
                assert_int_equal(seen[0][e][w][r], 1);
    assert_true(differs > 75);
    assert_true(repeats < 10);
    order_free(o);
    order_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packing), cmocka_unit_test(test_packing_best_fit), cmocka_unit_test(test_permutation),
        cmocka_unit_test(test_mixture), cmocka_unit_test(test_order),
    };
    return cmocka_run_group_tests_name("order", tests, NULL, NULL);
}
