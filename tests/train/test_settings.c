/* The run configuration's reader: defaults, types, ranges, unknown keys, overrides. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "train/settings.h"

struct values {
    int64_t steps, tokens;
    double rate;
    bool fast;
    const char *name, *optional;
    int shape, n;
    double weights[4];
};

static const char *const shapes[] = {"linear", "cosine", NULL};

static int read_values(struct settings *s, struct values *v, struct plm_status *st)
{
    struct section root = settings_root(s);
    v->steps = section_int(&root, "steps", SETTING_REQUIRED_INT, 1, 1000);
    v->tokens = section_int(&root, "tokens", 7, 0, INT64_MAX);
    v->name = section_text(&root, "name", "run");
    v->optional = section_text(&root, "optional", NULL);
    struct section o = section_object(&root, "optimizer");
    v->rate = section_number(&o, "rate", 0.5, 0, 1);
    v->fast = section_bool(&o, "fast", true);
    v->shape = section_choice(&o, "shape", 0, shapes);
    v->n = section_array(&root, "mixture", 0, 4);
    for (int i = 0; i < v->n; i++) {
        struct section e = section_entry(&root, "mixture", i);
        v->weights[i] = section_number(&e, "weight", SETTING_REQUIRED_NUMBER, 0, HUGE_VAL);
    }
    return settings_finish(s, st);
}

static int parse(const char *text, const char *override, struct values *v, struct settings **keep, struct plm_status *st)
{
    struct settings *s;
    int code = settings_parse(&s, text, strlen(text), "c.json", st);
    if (!code && override)
        code = settings_override(s, override, st);
    if (!code)
        code = read_values(s, v, st);
    if (keep && !code)
        *keep = s;
    else
        settings_close(s);
    return code;
}

static void refuse(const char *text, const char *override, const char *want)
{
    struct values v;
    struct plm_status st = {0};
    int code = parse(text, override, &v, NULL, &st);
    if (!code || !strstr(st.message, want))
        fail_msg("%s with %s: expected '%s', got '%s'", text, override ? override : "-", want, st.message);
}

static void defaults_are_filled_in(void **state)
{
    (void)state;
    struct values v;
    struct settings *s;
    assert_int_equal(parse("{\"steps\": 12, \"mixture\": [{\"weight\": 2}]}", NULL, &v, &s, NULL), PLM_OK);
    assert_int_equal(v.steps, 12);
    assert_int_equal(v.tokens, 7);
    assert_true(v.rate == 0.5 && v.fast && v.shape == 0 && v.n == 1 && v.weights[0] == 2);
    assert_string_equal(v.name, "run");
    assert_null(v.optional);
    static const char *const keys[] = {"tokens", "steps", "optimizer", NULL};
    char *text = settings_canonical(s, keys);
    assert_string_equal(text, "{\"optimizer\":{\"fast\":true,\"rate\":0.5,\"shape\":\"linear\"},\"steps\":12,\"tokens\":7}");
    free(text);
    text = settings_to_json(s);
    struct values again;
    assert_int_equal(parse(text, NULL, &again, NULL, NULL), PLM_OK); /* what is saved reads back */
    assert_int_equal(again.steps, 12);
    free(text);
    settings_close(s);
}

static void whole_numbers(void **state)
{
    (void)state;
    struct values v;
    assert_int_equal(parse("{\"steps\": 1e2, \"tokens\": 9223372036854775807}", NULL, &v, NULL, NULL), PLM_OK);
    assert_int_equal(v.steps, 100);
    assert_int_equal(v.tokens, INT64_MAX);
    refuse("{\"steps\": 1.5}", NULL, "c.json: steps: expected a whole number from 1 to 1000, found a number: 1.5");
    refuse("{\"steps\": 1001}", NULL, "expected a whole number from 1 to 1000, found a whole number: 1001");
    refuse("{\"steps\": 1, \"tokens\": -1}", NULL, "tokens: expected a whole number, at least 0");
    refuse("{\"steps\": 1, \"tokens\": 1e300}", NULL, "tokens: expected a whole number");
    refuse("{\"steps\": 1, \"tokens\": 99999999999999999999}", NULL, "c.json:1:");
}

static void wrong_types(void **state)
{
    (void)state;
    refuse("{}", NULL, "steps: missing; expected a whole number from 1 to 1000");
    refuse("{\"steps\": \"10\"}", NULL, "found text: \"10\"");
    refuse("{\"steps\": 1, \"name\": 5}", NULL, "name: expected text in quotes");
    refuse("{\"steps\": 1, \"name\": \"\"}", NULL, "name: expected text, found none");
    refuse("{\"steps\": 1, \"name\": null}", NULL, "name: expected text, found null");
    refuse("{\"steps\": 1, \"optimizer\": []}", NULL, "optimizer: expected an object, found an array: []");
    refuse("{\"steps\": 1, \"optimizer\": {\"rate\": 1.5}}", NULL, "optimizer.rate: expected a number from 0 to 1");
    refuse("{\"steps\": 1, \"optimizer\": {\"fast\": 1}}", NULL, "optimizer.fast: expected true or false");
    refuse("{\"steps\": 1, \"optimizer\": {\"shape\": \"square\"}}", NULL, "expected one of \"linear\", \"cosine\", found text");
    refuse("{\"steps\": 1, \"mixture\": {}}", NULL, "mixture: expected an array");
    refuse("{\"steps\": 1, \"mixture\": [1]}", NULL, "mixture[0]: expected an object, found a whole number: 1");
    refuse("{\"steps\": 1, \"mixture\": [{\"weight\": 1}, {}]}", NULL, "mixture[1].weight: missing");
    refuse("{\"steps\": 1, \"mixture\": [{}, {}, {}, {}, {}]}", NULL, "expected an array of 0 to 4 objects, found 5");
}

static void unknown_keys(void **state)
{
    (void)state;
    refuse("{\"steps\": 1, \"mixtur\": []}", NULL, "c.json: mixtur: unknown key; did you mean 'mixture'?");
    refuse("{\"stpes\": 1}", NULL, "stpes: unknown key; did you mean 'steps'?");
    refuse("{\"steps\": 1, \"mixture\": [{\"weight\": 1}, {\"wieght\": 1}]}", NULL,
           "mixture[1].wieght: unknown key; did you mean 'weight'?");
    refuse("{\"steps\": 1, \"optimizer\": {\"zzzzzzzzz\": 1}}", NULL, "the keys here are: rate, fast, shape");
}

static void syntax_errors(void **state)
{
    (void)state;
    refuse("{\"steps\": 1,\n  \"name\" 5}", NULL, "c.json:2:");
    refuse("{\"steps\": 1, \"steps\": 2}", NULL, "duplicate");
    refuse("", NULL, "c.json:1:");
    refuse("[1]", NULL, "expected an object");
    struct settings *s;
    struct plm_status st = {0};
    assert_int_equal(settings_open(&s, "no-such-file.json", &st), PLM_EIO);
    assert_null(s);
}

static void overrides(void **state)
{
    (void)state;
    const char *text = "{\"steps\": 1, \"mixture\": [{\"weight\": 1}]}";
    struct values v;
    struct settings *s;
    assert_int_equal(parse(text, "optimizer.shape=cosine", &v, NULL, NULL), PLM_OK);
    assert_int_equal(v.shape, 1);
    assert_int_equal(parse(text, "mixture.0.weight=2.5", &v, NULL, NULL), PLM_OK);
    assert_true(v.weights[0] == 2.5);
    assert_int_equal(parse(text, "mixture[0].weight=3", &v, NULL, NULL), PLM_OK);
    assert_true(v.weights[0] == 3);
    assert_int_equal(parse(text, "mixture=[{\"weight\": 4}, {\"weight\": 5}]", &v, NULL, NULL), PLM_OK);
    assert_true(v.n == 2 && v.weights[1] == 5);
    assert_int_equal(parse(text, "name=a=b c", &v, &s, NULL), PLM_OK);
    assert_string_equal(v.name, "a=b c");
    settings_close(s);
    assert_int_equal(parse("{}", "steps=9", &v, NULL, NULL), PLM_OK);
    assert_int_equal(v.steps, 9);
    refuse(text, "mixture.1.weight=3", "'1' is not an entry of an array of 1");
    refuse(text, "mixture.x=3", "'x' is not an entry");
    refuse(text, "steps.a=3", "'a' is not inside an object or array but inside a whole number");
    refuse(text, "steps", "expected key=value");
    refuse(text, "=3", "expected key=value");
    refuse(text, "optimizer..rate=3", "empty key");
    refuse(text, "optimizer.raet=0.5", "optimizer.raet: unknown key; did you mean 'rate'?");
    refuse(text, "name=12", "with --set");
    refuse(text, "name=\xff", "not UTF-8");
}

static void saved_file(void **state)
{
    (void)state;
    char path[] = "test_settings_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct values v;
    struct settings *s;
    struct plm_status st = {0};
    assert_int_equal(parse("{\"steps\": 3}", NULL, &v, &s, NULL), PLM_OK);
    assert_int_equal(settings_save(s, path, &st), PLM_OK);
    settings_close(s);
    assert_int_equal(settings_open(&s, path, &st), PLM_OK);
    assert_int_equal(read_values(s, &v, &st), PLM_OK);
    assert_int_equal(v.steps, 3);
    assert_int_equal(settings_save(s, "/dev/full", &st), PLM_EIO);
    settings_close(s);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_filled_in), cmocka_unit_test(whole_numbers), cmocka_unit_test(wrong_types),
        cmocka_unit_test(unknown_keys), cmocka_unit_test(syntax_errors), cmocka_unit_test(overrides),
        cmocka_unit_test(saved_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
