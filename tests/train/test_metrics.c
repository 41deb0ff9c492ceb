/* metrics.jsonl, the status line and the signals. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "train/metrics.h"
#include "train/progress.h"
#include "train/signals.h"

static char path[] = "test_metrics_XXXXXX";

static int setup(void **state)
{
    (void)state;
    strcpy(path, "test_metrics_XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 || close(fd);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

static size_t read_back(char *out, size_t size)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(out, 1, size - 1, f);
    out[n] = 0;
    fclose(f);
    return n;
}

static void write_steps(int64_t from, int64_t to, int64_t resume, double loss)
{
    struct metrics *m;
    struct plm_status st = {0};
    assert_int_equal(metrics_open(&m, path, resume, &st), PLM_OK);
    for (int64_t step = from; step <= to; step++)
        assert_int_equal(metrics_write(m, step, (struct metric[]){{"loss", loss, NULL}}, 1, &st), PLM_OK);
    metrics_close(m);
}

static void lines_are_json_and_exact(void **state)
{
    (void)state;
    struct metrics *m;
    struct plm_status st = {0};
    const double third = 1.0 / 3;
    assert_int_equal(metrics_open(&m, path, 0, &st), PLM_OK);
    const struct metric values[] = {{"a", third, NULL}, {"b", NAN, NULL}, {"c", 0, "x\"\n"}, {"d", 3e-4, NULL}};
    assert_int_equal(metrics_write(m, 7, values, 4, &st), PLM_OK);
    char text[512]; /* flushed: readable while the file is open */
    read_back(text, sizeof text);
    assert_non_null(strstr(text, "\"d\": 0.0003}\n"));
    json_t *v = json_loads(text, 0, NULL);
    assert_non_null(v);
    assert_int_equal(json_integer_value(json_object_get(v, "step")), 7);
    assert_true(json_real_value(json_object_get(v, "a")) == third);
    assert_true(json_is_null(json_object_get(v, "b")));
    assert_string_equal(json_string_value(json_object_get(v, "c")), "x\"\n");
    json_decref(v);
    metrics_close(m);
}

static void resume_cuts_what_is_repeated(void **state)
{
    (void)state;
    char text[512];
    write_steps(1, 5, 0, 1);
    FILE *f = fopen(path, "a"); /* a line that was cut off by a crash */
    assert_true(fputs("{\"step\": 6, \"lo", f) >= 0);
    fclose(f);
    write_steps(4, 5, 3, 2);
    read_back(text, sizeof text);
    assert_string_equal(text, "{\"step\": 1, \"loss\": 1}\n{\"step\": 2, \"loss\": 1}\n{\"step\": 3, \"loss\": 1}\n"
                              "{\"step\": 4, \"loss\": 2}\n{\"step\": 5, \"loss\": 2}\n");
    write_steps(6, 6, 5, 3); /* nothing to cut */
    read_back(text, sizeof text);
    assert_non_null(strstr(text, "{\"step\": 5, \"loss\": 2}\n{\"step\": 6, \"loss\": 3}\n"));
    struct metrics *m;
    assert_int_equal(metrics_open(&m, path, 6, NULL), PLM_OK);
    assert_false(metrics_evaluated(m, "text"));
    assert_int_equal(metrics_write(m, 6, (struct metric[]){{"eval", 0, "text"}}, 1, NULL), PLM_OK);
    metrics_close(m);
    for (int64_t step = 6; step <= 7; step++) { /* what was evaluated after the step to go on from */
        assert_int_equal(metrics_open(&m, path, step, NULL), PLM_OK);
        assert_int_equal(metrics_evaluated(m, "text"), step == 6);
        assert_false(metrics_evaluated(m, "code"));
        metrics_close(m);
    }
    write_steps(1, 1, 0, 4); /* a run from the start starts anew */
    read_back(text, sizeof text);
    assert_string_equal(text, "{\"step\": 1, \"loss\": 4}\n");
}

static void write_errors(void **state)
{
    (void)state;
    struct metrics *m;
    struct plm_status st = {0};
    assert_int_equal(metrics_open(&m, "/dev/full", 0, &st), PLM_OK);
    assert_int_equal(metrics_write(m, 1, NULL, 0, &st), PLM_EIO);
    assert_non_null(strstr(st.message, "/dev/full"));
    metrics_close(m);
    assert_int_equal(metrics_open(&m, "no/such/directory/m.jsonl", 0, &st), PLM_EIO);
    assert_null(m);
}

static const struct progress_status status = {
    .phase = "stable", .step = 10, .total_steps = 100, .tokens = 20480, .total_tokens = 204800, .loss = 4.25,
    .learning_rate = 3e-4, .grad_norm = 1.5, .tokens_per_second = 2048,
};

static void status_text(void **state)
{
    (void)state;
    char text[512];
    assert_string_equal(progress_format(&status, 0, text, sizeof text),
                        "stable  step 10/100  loss 4.2500  lr 3.00e-04  |g| 1.500  2048 tok/s  ETA 1m30s");
    assert_string_equal(progress_format(&status, 20, text, sizeof text), "stable  step 10/100 ");
    struct progress_status s = status;
    s.phase = "\xc3\xa9\xc3\xa9\x1b[2J"; /* two letters of two bytes, and an escape that must not reach the terminal */
    assert_string_equal(progress_format(&s, 1, text, sizeof text), "\xc3\xa9");
    assert_null(strchr(progress_format(&s, 0, text, sizeof text), '\x1b'));
    s = status, s.tokens_per_second = 0;
    assert_non_null(strstr(progress_format(&s, 0, text, sizeof text), "ETA -"));
    s.tokens_per_second = 2.048;
    assert_non_null(strstr(progress_format(&s, 0, text, sizeof text), "ETA 1d01h"));
}

static void plain_lines(void **state)
{
    (void)state;
    FILE *f = fopen(path, "w");
    struct progress p;
    progress_open(&p, f, 10);
    assert_false(p.terminal);
    struct progress_status s = status;
    for (s.step = 1; s.step <= 25; s.step++) {
        s.total_steps = 25;
        progress_update(&p, &s);
    }
    progress_note(&p, "saved %d", 3);
    progress_log_sink(&p, LOG_WARN, "low");
    progress_close(&p);
    progress_update(&p, &s); /* closed: silent */
    fclose(f);
    char text[1024];
    read_back(text, sizeof text);
    int lines = 0;
    for (char *c = text; *c; c++)
        lines += *c == '\n';
    assert_int_equal(lines, 5); /* steps 10, 20, 25, the note and the warning */
    assert_non_null(strstr(text, "saved 3\nwarning: low\n"));
    assert_null(strchr(text, '\r'));
}

static void status_line_is_redrawn(void **state)
{
    (void)state;
    FILE *f = fopen(path, "w");
    struct progress p;
    progress_open(&p, f, 10);
    p.terminal = true; /* what isatty would have said */
    progress_update(&p, &status);
    progress_update(&p, &status); /* too soon: not drawn */
    progress_note(&p, "note");
    progress_close(&p);
    fclose(f);
    char text[1024], line[512], want[1024];
    read_back(text, sizeof text);
    progress_format(&status, 79, line, sizeof line);
    snprintf(want, sizeof want, "\r\033[K%s\r\033[Knote\n%s\n", line, line);
    assert_string_equal(text, want);
}

static void signals(void **state)
{
    (void)state;
    struct plm_status st = {0};
    assert_int_equal(signals_open(&st), PLM_OK);
    assert_int_equal(signals_open(&st), PLM_EINVAL);
    assert_int_equal(signals_stop_requested(), 0);
    raise(SIGTERM);
    assert_int_equal(signals_stop_requested(), SIGTERM);
    raise(SIGTERM); /* asking again changes nothing */
    raise(SIGUSR1);
    assert_int_equal(signals_stop_requested(), SIGUSR1);
    raise(SIGINT);
    assert_int_equal(signals_stop_requested(), SIGINT);
    signals_close();
    struct sigaction now;
    assert_int_equal(sigaction(SIGTERM, NULL, &now), 0);
    assert_true(now.sa_handler == SIG_DFL);
    assert_int_equal(signals_open(&st), PLM_OK);
    assert_int_equal(signals_stop_requested(), 0);
    pid_t child = fork();
    if (child == 0) {
        raise(SIGINT);
        raise(SIGINT);
        _exit(0);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGINT);
    signals_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lines_are_json_and_exact, setup, teardown),
        cmocka_unit_test_setup_teardown(resume_cuts_what_is_repeated, setup, teardown),
        cmocka_unit_test(write_errors),
        cmocka_unit_test(status_text),
        cmocka_unit_test_setup_teardown(plain_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(status_line_is_redrawn, setup, teardown),
        cmocka_unit_test(signals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
