/* What the tests of the operations share: the tables of this machine, random data, float64 rows. */
#ifndef TESTS_OPS_OPS_CHECK_H
#define TESTS_OPS_OPS_CHECK_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "infer/base/random.h"
#include "tests/ops/tables.h"

/* Multiply-adds of the largest product to check; builds for emulated processors set it. */
#ifndef OPS_CHECK_WORK
#define OPS_CHECK_WORK INT64_MAX
#endif

static inline void *checked_alloc(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    assert_non_null(p);
    return p;
}

/* n standard normal numbers, a pure function of stream. Exactly n: a sanitizer sees reads past the end. */
static inline float *random_floats(int64_t n, uint32_t stream)
{
    float *x = malloc((size_t)(n > 0 ? n : 1) * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)random_normal(7, RANDOM_TEST, stream, (uint64_t)i);
    return x;
}

/* `rows` rows of n random elements of a type, ld elements apart, and their exact values in f32 at the same places. */
static inline void *random_rows(enum dtype type, int64_t rows, int64_t ld, uint32_t stream, float **values)
{
    size_t row_bytes = dtype_row_bytes(type, ld);
    char *data = malloc((size_t)rows * row_bytes + 1);
    assert_non_null(data);
    *values = random_floats(rows * ld, stream);
    for (int64_t r = 0; r < rows; r++) {
        dtype_from_f32(type, data + (size_t)r * row_bytes, *values + r * ld, ld);
        dtype_to_f32(type, *values + r * ld, data + (size_t)r * row_bytes, ld);
    }
    return data;
}

#endif
