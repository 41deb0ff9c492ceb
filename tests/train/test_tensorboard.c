/* TensorBoard event files, and the log that writes them beside metrics.jsonl and samples.jsonl. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/train/events.h"
#include "train/files.h"
#include "train/run_log.h"
#include "train/tensorboard.h"

enum { LIMIT = 64 };
static char dir[] = "test_tensorboard_XXXXXX";
static struct event events[LIMIT];

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "test_tensorboard_XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    return directory_remove(dir, NULL);
}

static int read_file(int i)
{
    char path[600];
    assert_true(events_path(dir, i, path, sizeof path));
    return events_read(path, events, LIMIT);
}

static void checksum_is_castagnoli(void **state)
{
    (void)state;
    assert_int_equal(crc32c((const unsigned char *)"123456789", 9), 0xe3069283u); /* the check value of its catalogue */
    const unsigned char zeros[32] = {0};
    assert_int_equal(crc32c(zeros, sizeof zeros), 0x8a9136aau); /* RFC 3720, B.4 */
}

static void values_come_back(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct tensorboard *t;
    const double before = (double)time(NULL);
    assert_int_equal(tensorboard_open(&t, dir, &st), PLM_OK);
    assert_int_equal(tensorboard_scalar(t, "loss", 0, 0.1, &st), PLM_OK);
    assert_int_equal(tensorboard_scalar(t, "loss/dpo", 1, -1e300, &st), PLM_OK);
    assert_int_equal(tensorboard_scalar(t, "grad_norm", INT64_MAX, NAN, &st), PLM_OK);
    char text[3000];
    memset(text, 'x', sizeof text); /* its length takes two bytes as a varint */
    memcpy(text, "**h\xc3\xa9**\n\n", 10);
    text[sizeof text - 1] = 0;
    assert_int_equal(tensorboard_text(t, "samples/0", 300, text, &st), PLM_OK);
    assert_int_equal(tensorboard_text(t, "samples/1", 300, "", &st), PLM_OK);
    assert_int_equal(tensorboard_flush(t, &st), PLM_OK);
    assert_int_equal(read_file(0), 6); /* while it is open */
    tensorboard_close(t);
    assert_int_equal(read_file(0), 6);
    assert_string_equal(events[0].version, "brain.Event:2");
    for (int i = 0; i < 6; i++)
        assert_true(events[i].wall_time >= before && events[i].wall_time < before + 60);
    assert_string_equal(events[1].tag, "loss");
    assert_true(events[1].step == 0 && events[1].has_scalar && events[1].scalar == 0.1f);
    assert_string_equal(events[2].tag, "loss/dpo");
    assert_true(events[2].step == 1 && isinf(events[2].scalar) && events[2].scalar < 0);
    assert_true(events[3].step == INT64_MAX && isnan(events[3].scalar));
    assert_string_equal(events[4].tag, "samples/0");
    assert_string_equal(events[4].text, text);
    assert_string_equal(events[4].plugin, "text");
    assert_true(events[4].dtype == 7 && events[4].step == 300 && !events[4].has_scalar);
    assert_string_equal(events[5].text, "");
}

static void sessions_have_files(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct tensorboard *t[3];
    char path[3][600];
    for (int i = 0; i < 3; i++) { /* within one second */
        assert_int_equal(tensorboard_open(&t[i], dir, &st), PLM_OK);
        assert_int_equal(tensorboard_restart(t[i], 10 * i, &st), PLM_OK);
    }
    for (int i = 0; i < 3; i++)
        tensorboard_close(t[i]);
    for (int i = 0; i < 3; i++) {
        assert_true(events_path(dir, i, path[i], sizeof path[i]));
        assert_int_equal(read_file(i), 2);
        assert_true(events[1].session_status == 1 && events[1].step == 10 * i); /* in the order they were opened in */
    }
    assert_true(strcmp(path[0], path[1]) < 0 && strcmp(path[1], path[2]) < 0);
}

static void tensorboard_errors(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct tensorboard *t;
    assert_int_equal(tensorboard_open(&t, "no/such/directory", &st), PLM_EIO);
    assert_null(t);
    assert_non_null(strstr(st.message, "no/such/directory/events.out.tfevents."));
    assert_int_equal(tensorboard_open(&t, dir, &st), PLM_OK);
    assert_int_equal(tensorboard_scalar(t, "bad\xff", 1, 1, &st), PLM_EINVAL);
    assert_int_equal(tensorboard_text(t, "tag", 1, "\xc3", &st), PLM_EINVAL);
    tensorboard_close(t);
    assert_int_equal(read_file(0), 1); /* nothing of them was written */
    tensorboard_close(NULL);
}

static json_t *read_lines(const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    json_t *rows = json_array(), *row;
    while ((row = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL)))
        json_array_append_new(rows, row);
    fclose(f);
    return rows;
}

static void rows_go_to_both(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct run_log *log;
    assert_int_equal(run_log_open(&log, dir, 0, &st), PLM_OK);
    const struct metric step[] = {{"phase", 0, "best"}, {"round", 1, NULL}, {"loss", 2.5, NULL}, {"rewards/margins", -0.5, NULL}};
    const struct metric held_out[] = {{"eval", 0, "gsm8k"}, {"turn", 2, NULL}, {"score", 0.75, NULL}};
    const struct metric turn[] = {{"round", 1, NULL}, {"turn", 1, NULL}, {"win_rate", 0.625, NULL}};
    const struct metric eval[] = {{"eval", 0, "text"}, {"eval_loss", 4, NULL}};
    assert_int_equal(run_log_write(log, 3, step, 4, &st), PLM_OK);
    assert_int_equal(run_log_write(log, 3, held_out, 3, &st), PLM_OK);
    assert_int_equal(run_log_write(log, 4, turn, 3, &st), PLM_OK);
    assert_int_equal(run_log_write(log, 4, eval, 2, &st), PLM_OK);
    assert_int_equal(run_log_sample(log, 4, "{\"prompt\": \"1+1\\n=\", \"step\": 9,\n \"answers\": [{\"turn\": 0, \"text\": \"3\", \"score\": 0}, "
                                            "{\"turn\": 1, \"text\": \"2\"}], \"reference\": \"two\"}", &st), PLM_OK);
    assert_int_equal(run_log_sample(log, 4, "{\"prompt\": \"q\", \"answers\": [{\"text\": \"a\"}]}", &st), PLM_OK);
    assert_int_equal(run_log_sample(log, 4, "[1]", &st), PLM_EINVAL);
    assert_int_equal(run_log_sample(log, 4, "{\"prompt\": ", &st), PLM_EINVAL);
    assert_int_equal(read_file(0), 9); /* flushed row by row: version, session, five values, two texts */
    run_log_close(log);

    assert_true(events[1].session_status == 1 && events[1].step == 0);
    const struct { const char *tag; int64_t step; float value; } expected[] = {
        {"loss", 3, 2.5f}, {"rewards/margins", 3, -0.5f}, {"eval/gsm8k/turn2/score", 3, 0.75f}, {"turn1/win_rate", 4, 0.625f}, {"eval/text/eval_loss", 4, 4}};
    for (int i = 0; i < 5; i++) {
        assert_string_equal(events[2 + i].tag, expected[i].tag);
        assert_true(events[2 + i].step == expected[i].step && events[2 + i].scalar == expected[i].value);
    }
    assert_string_equal(events[7].tag, "samples/0");
    assert_string_equal(events[7].text, "**prompt**\n\n    1+1\n    =\n\n**answer 0, score 0**\n\n    3\n\n**answer 1**\n\n    2\n\n**reference**\n\n    two\n\n");
    assert_string_equal(events[8].tag, "samples/1");

    json_t *rows = read_lines("metrics.jsonl"), *samples = read_lines("samples.jsonl");
    assert_int_equal(json_array_size(rows), 4);
    assert_string_equal(json_string_value(json_object_get(json_array_get(rows, 0), "phase")), "best");
    assert_int_equal(json_array_size(samples), 2);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(samples, 0), "step")), 4); /* the caller's, not the row's own */
    assert_string_equal(json_string_value(json_object_get(json_array_get(samples, 0), "prompt")), "1+1\n=");
    json_decref(rows);
    json_decref(samples);
}

/* A session that was killed after step 5 is continued from step 3; then the run begins anew. */
static void session(int64_t resume, int64_t last)
{
    struct plm_status st = {0};
    struct run_log *log;
    assert_int_equal(run_log_open(&log, dir, resume, &st), PLM_OK);
    for (int64_t step = resume + 1; step <= last; step++) {
        assert_int_equal(run_log_write(log, step, (struct metric[]){{"loss", (double)resume, NULL}}, 1, &st), PLM_OK);
        assert_int_equal(run_log_sample(log, step, "{\"prompt\": \"p\"}", &st), PLM_OK);
    }
    run_log_close(log);
}

static void resume_cuts_all_three(void **state)
{
    (void)state;
    session(0, 5);
    session(3, 4);
    for (int k = 0; k < 2; k++) {
        json_t *rows = read_lines(k ? "samples.jsonl" : "metrics.jsonl");
        assert_int_equal(json_array_size(rows), 4);
        for (int i = 0; i < 4; i++)
            assert_int_equal(json_integer_value(json_object_get(json_array_get(rows, (size_t)i), "step")), i + 1);
        json_decref(rows);
    }
    assert_int_equal(read_file(1), 4);
    assert_true(events[1].session_status == 1 && events[1].step == 4); /* TensorBoard drops steps 4 and 5 of the first */
    struct plm_status st = {0};
    struct run_log *log;
    assert_int_equal(run_log_open(&log, dir, 0, &st), PLM_OK);
    run_log_close(log);
    char path[64];
    snprintf(path, sizeof path, "%s/samples.jsonl", dir);
    assert_int_not_equal(access(path, F_OK), 0);
    json_t *rows = read_lines("metrics.jsonl");
    assert_int_equal(json_array_size(rows), 0);
    json_decref(rows);
}

static void log_errors(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct run_log *log;
    assert_int_equal(run_log_open(&log, "no/such/directory", 0, &st), PLM_EIO);
    assert_null(log);
    /* Ranks without a log, and no name may end a run. */
    assert_int_equal(run_log_write(NULL, 1, NULL, 0, &st), PLM_OK);
    assert_int_equal(run_log_sample(NULL, 1, "not JSON", &st), PLM_OK);
    run_log_close(NULL);
    char longest[2001] = "x";
    for (int i = 1; i < 2000; i += 2)
        memcpy(longest + i, "\xc3\xa9", 2);
    longest[1999] = 0;
    assert_int_equal(run_log_open(&log, dir, 0, &st), PLM_OK);
    assert_int_equal(run_log_write(log, 1, (struct metric[]){{"eval", 0, longest}, {longest, 1, NULL}, {"\xff", 2, NULL}}, 3, &st), PLM_OK);
    run_log_close(log);
    assert_int_equal(read_file(0), 4);
    char path[64];
    snprintf(path, sizeof path, "%s/samples.jsonl", dir);
    assert_int_equal(symlink("/dev/full", path), 0);
    assert_int_equal(run_log_open(&log, dir, 1, &st), PLM_EINVAL); /* not a regular file: it cannot be cut back */
    assert_non_null(strstr(st.message, "samples.jsonl"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checksum_is_castagnoli),
        cmocka_unit_test_setup_teardown(values_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(sessions_have_files, setup, teardown),
        cmocka_unit_test_setup_teardown(tensorboard_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(rows_go_to_both, setup, teardown),
        cmocka_unit_test_setup_teardown(resume_cuts_all_three, setup, teardown),
        cmocka_unit_test_setup_teardown(log_errors, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
