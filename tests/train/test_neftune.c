/* NEFTune: the size of the noise, which positions get it, and what it depends on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/ops/tables.h"
#include "train/neftune.h"

enum { ROWS = 3, LEN = 50, WIDTH = 37 }; /* an odd width: the last draw of a position serves one value */

static struct batch batch;
static float x[ROWS * LEN * WIDTH];

/* Every row: documents [0, 20) and [20, 44), then padding, each position of which is its own document. */
static int setup(void **state)
{
    (void)state;
    if (batch_create(&batch, ROWS, LEN, NULL))
        return 1;
    for (int i = 0; i < ROWS * LEN; i++) {
        const int t = i % LEN;
        batch.doc_start[i] = t < 20 ? 0 : t < 44 ? 20 : t;
        batch.weight[i] = (t >= 12 && t < 20) || (t >= 21 && t < 44); /* a prompt has no weight, and gets noise */
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    batch_free(&batch);
    return 0;
}

static void add(uint64_t seed, int64_t step, int64_t first_row)
{
    memset(x, 0, sizeof x);
    neftune_add(x, &batch, WIDTH, 5, seed, step, first_row);
}

static void size_of_the_noise(void **state)
{
    (void)state;
    add(1, 7, 0);
    for (int row = 0; row < ROWS; row++)
        for (int document = 0; document < 2; document++) {
            const int begin = document ? 20 : 0, end = document ? 44 : 20, n = (end - begin) * WIDTH;
            const double bound = 5 / sqrt((double)n);
            const float *noise = x + (row * LEN + begin) * WIDTH;
            double sum = 0, square = 0, most = 0;
            for (int i = 0; i < n; i++)
                sum += noise[i], square += (double)noise[i] * noise[i], most = fmax(most, fabs((double)noise[i]));
            assert_true(most <= bound * 1.000001 && most > 0.98 * bound);
            assert_true(fabs(sum) < 4 * bound * sqrt(n / 3.0));
            assert_true(fabs(square / (n * bound * bound) - 1.0 / 3) < 4 * sqrt(4.0 / 45 / n)); /* uniform: variance 1/3 */
            /* the expected length of a document's noise is alpha / sqrt(3), whatever its length */
            assert_true(fabs(sqrt(square) - 5 / sqrt(3)) < 0.3);
        }
    for (int row = 0; row < ROWS; row++)
        for (int i = (row * LEN + 44) * WIDTH; i < (row + 1) * LEN * WIDTH; i++)
            assert_true(x[i] == 0);
    for (int i = 0; i < WIDTH * 20; i++) /* nothing is drawn twice */
        for (int k = 0; k < i; k++)
            assert_true(x[i] != x[k]);
}

static void added_to_what_is_there(void **state)
{
    (void)state;
    add(1, 7, 0);
    float noise = x[5];
    for (int i = 0; i < ROWS * LEN * WIDTH; i++)
        x[i] = 2;
    neftune_add(x, &batch, WIDTH, 5, 1, 7, 0);
    assert_true(x[5] == 2 + noise && x[45 * WIDTH] == 2);
    neftune_add(x, &batch, WIDTH, 0, 1, 7, 0);
    assert_true(x[5] == 2 + noise);
}

static void depends_on_the_row_alone(void **state)
{
    (void)state;
    static float whole[ROWS * LEN * WIDTH];
    add(1, 7, 4);
    memcpy(whole, x, sizeof whole);
    for (int row = 0; row < ROWS; row++) { /* one row at a time */
        const int64_t at = row * LEN;
        struct batch one = {1, LEN, batch.tokens + at, batch.targets + at, batch.weight + at, batch.doc_start + at};
        memset(x, 0, sizeof x);
        neftune_add(x, &one, WIDTH, 5, 1, 7, 4 + row);
        assert_memory_equal(x, whole + at * WIDTH, LEN * WIDTH * sizeof *x);
    }
    struct batch narrow = {1, 44, batch.tokens, batch.targets, batch.weight, batch.doc_start}; /* cut where the padding begins */
    memset(x, 0, sizeof x);
    neftune_add(x, &narrow, WIDTH, 5, 1, 7, 4);
    assert_memory_equal(x, whole, 44 * WIDTH * sizeof *x);
    const int64_t others[][3] = {{2, 7, 4}, {1, 8, 4}, {1, 7, 5}};
    for (int i = 0; i < 3; i++) {
        add((uint64_t)others[i][0], others[i][1], others[i][2]);
        int same = 0;
        for (int k = 0; k < 20 * WIDTH; k++)
            same += x[k] == whole[k];
        assert_int_equal(same, 0);
    }
    assert_memory_not_equal(whole, whole + LEN * WIDTH, 20 * WIDTH * sizeof *x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(size_of_the_noise), cmocka_unit_test(added_to_what_is_there),
                                       cmocka_unit_test(depends_on_the_row_alone)};
    return RUN_WITH_EVERY_TABLE(tests, setup, teardown);
}
