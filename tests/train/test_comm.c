/* The communicator. Without arguments: a job of one. As `test_comm ranks` under mpirun: all collectives. As
 * `test_comm fail`: rank 1 aborts while the others wait for it. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "train/comm.h"

static void job_of_one(void **state)
{
    (void)state;
    struct comm c;
    struct plm_status st = {0};
    assert_int_equal(comm_open(&c, &st), PLM_OK);
    assert_int_equal(c.rank, 0);
    assert_int_equal(c.size, 1);
    assert_string_equal(c.ops->name, "single");
    float x[3] = {1, 2, 3};
    assert_int_equal(comm_sum_floats(&c, x, 3, &st), PLM_OK);
    assert_true(x[0] == 1 && x[2] == 3);
    struct step_control control = {2.5, 4, 0, 1};
    assert_int_equal(comm_step_control(&c, &control, &st), PLM_OK);
    assert_true(control.loss_sum == 2.5 && control.weight_sum == 4 && control.stop == 1);
    assert_int_equal(comm_agree(&c, PLM_OK, &st), PLM_OK);
    int code = status_set(&st, PLM_EIO, "cannot open 'x'");
    assert_int_equal(comm_agree(&c, code, &st), PLM_EIO);
    assert_string_equal(st.message, "cannot open 'x'");
    comm_close(&c);
    comm_close(&c);
}

static void launched_environment(void **state)
{
    (void)state;
#ifndef HAVE_MPI
    struct comm c;
    struct plm_status st = {0};
    setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    assert_int_equal(comm_open(&c, &st), PLM_EUNSUPPORTED);
    assert_non_null(strstr(st.message, "built without MPI"));
    unsetenv("OMPI_COMM_WORLD_SIZE");
#else
    skip();
#endif
}

#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            snprintf(st.message, sizeof st.message, "line %d: %s is false", __LINE__, #condition); \
            comm_abort(&c, &st);                                                                \
            return 1;                                                                           \
        }                                                                                       \
    } while (0)

/* Outside cmocka: a failure on one rank must end the other, which waits in a collective call. */
static int ranks(void)
{
    struct comm c;
    struct plm_status st = {0};
    if (comm_open(&c, &st))
        return fprintf(stderr, "%s\n", st.message), 1;
    CHECK(c.size > 1);
    CHECK(c.rank >= 0 && c.rank < c.size);

    enum { N = (1 << 24) + 12345 }; /* more than one chunk */
    float *x = malloc(sizeof *x * N);
    CHECK(x != NULL);
    for (int i = 0; i < N; i++)
        x[i] = (float)(i % 1000 + c.rank);
    CHECK(comm_sum_floats(&c, x, N, &st) == PLM_OK);
    int wrong = 0;
    for (int i = 0; i < N; i++)
        wrong += x[i] != (float)(c.size * (i % 1000) + c.size * (c.size - 1) / 2);
    CHECK(wrong == 0);

    /* the same inputs give the same bits, on every rank */
    float first[1000], again[1000];
    for (int i = 0; i < 1000; i++)
        first[i] = again[i] = 1.0f / (float)(3 + i + 7 * c.rank);
    CHECK(comm_sum_floats(&c, first, 1000, &st) == PLM_OK);
    CHECK(comm_sum_floats(&c, again, 1000, &st) == PLM_OK);
    CHECK(memcmp(first, again, sizeof first) == 0);
    CHECK(comm_broadcast(&c, again, sizeof again, c.size - 1, &st) == PLM_OK);
    CHECK(memcmp(first, again, sizeof first) == 0);

    memset(x, c.rank == 1 ? 0x41 : 0, sizeof *x * N);
    CHECK(comm_broadcast(&c, x, sizeof *x * N, 1, &st) == PLM_OK);
    CHECK(((char *)x)[0] == 0x41 && ((char *)x)[sizeof *x * N - 1] == 0x41);
    free(x);

    struct step_control control = {.loss_sum = 1.5, .weight_sum = 2, .stop = c.rank == 1};
    CHECK(comm_step_control(&c, &control, &st) == PLM_OK);
    CHECK(control.loss_sum == 1.5 * c.size && control.weight_sum == 2.0 * c.size);
    CHECK(control.stop == 1 && control.nonfinite == 0);

    CHECK(comm_agree(&c, PLM_OK, &st) == PLM_OK);
    int code = c.rank == 1 ? status_set(&st, PLM_EIO, "shard 'b' is missing") : PLM_OK;
    CHECK(comm_agree(&c, code, &st) == PLM_EIO);
    CHECK(st.code == PLM_EIO && strcmp(st.message, "rank 1: shard 'b' is missing") == 0);
    code = status_set(&st, c.rank == 0 ? PLM_ENOMEM : PLM_EIO, "rank-%d-message", c.rank);
    CHECK(comm_agree(&c, code, &st) == PLM_ENOMEM);
    CHECK(strcmp(st.message, "rank 0: rank-0-message") == 0);
    CHECK(comm_barrier(&c, &st) == PLM_OK);
    comm_close(&c);
    return 0;
}

static int abort_while_others_wait(void)
{
    struct comm c;
    struct plm_status st = {0};
    if (comm_open(&c, &st))
        return 0; /* the test wants a failing exit status from comm_abort */
    if (c.rank == 1) {
        status_set(&st, PLM_EIO, "disk full on purpose");
        comm_abort(&c, &st);
    }
    comm_barrier(&c, &st);
    for (;;)
        pause(); /* the job must be ended from outside */
    comm_close(&c);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "ranks") == 0)
        return ranks();
    if (argc > 1 && strcmp(argv[1], "fail") == 0)
        return abort_while_others_wait();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(job_of_one),
        cmocka_unit_test(launched_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
