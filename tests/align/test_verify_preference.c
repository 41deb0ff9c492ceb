/* plm verify --preference on the golden case, on broken ones, and at the start, where policy and reference are the same model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/ops/tables.h"
#include "train/files.h"
#include "train/verify_preference.h"

static char directory[32]; /* a case: links to the golden models, and a preference.json of its own */

static const char *in_directory(const char *name)
{
    static char path[96];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void make_case(const char *reference)
{
    strcpy(directory, "preference-XXXXXX");
    assert_non_null(mkdtemp(directory));
    assert_int_equal(symlink(GOLDEN "/plain/model", in_directory("model")), 0);
    assert_int_equal(symlink(reference, in_directory("reference")), 0);
}

static json_t *golden_case(void)
{
    json_t *root = json_load_file(GOLDEN "/plain/preference.json", 0, NULL);
    assert_non_null(root);
    return root;
}

static double number(const json_t *root, const char *key, const char *part)
{
    const json_t *v = json_object_get(root, key);
    v = part ? json_object_get(v, part) : v;
    if (!json_is_number(v))
        fail_msg("%s is no number", key);
    return json_number_value(v);
}

/* The same keys; numbers within `limit` of want's, arrays of tokens the same. Returns the numbers compared. */
static int compare(const json_t *got, const json_t *want, const char *name, double limit)
{
    int n = 0;
    if (json_is_object(want)) {
        const char *key;
        json_t *value;
        assert_int_equal(json_object_size(got), json_object_size(want));
        json_object_foreach((json_t *)want, key, value)
            n += compare(json_object_get(got, key), value, key, limit);
        return n;
    }
    if (json_is_array(want)) {
        assert_true(json_equal(got, want));
        return 0;
    }
    const double a = json_number_value(got), b = json_number_value(want);
    if (!json_is_number(got) || !(fabs(a - b) <= limit * fabs(b)))
        fail_msg("%s: %.12g, expected %.12g", name, a, b);
    return 1;
}

static json_t *run(const char *case_dir, int threads)
{
    char out[] = "verified-XXXXXX";
    struct plm_status st = {0};
    const int fd = mkstemp(out);
    assert_true(fd >= 0);
    close(fd);
    if (verify_preference(case_dir, out, threads, &st))
        fail_msg("%s", st.message);
    json_t *got = json_load_file(out, 0, NULL);
    remove(out);
    assert_non_null(got);
    return got;
}

static void the_golden_case(void **state)
{
    (void)state;
    json_t *want = golden_case(), *got = run(GOLDEN "/plain", 2), *alone = run(GOLDEN "/plain", 1);
    assert_true(compare(got, want, "", 1e-5) > 40);
    static const char *const keys[] = {"policy_logprobs", "reference_logprobs", "dpo_loss", "refine_sft_loss"}; /* others are differences of these */
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        compare(json_object_get(got, keys[i]), json_object_get(want, keys[i]), keys[i], 1e-6);
    assert_true(json_equal(got, alone)); /* whatever the number of threads */
    json_decref(want);
    json_decref(got);
    json_decref(alone);
}

static void at_the_start(void **state)
{
    (void)state;
    make_case(GOLDEN "/plain/model");
    json_t *root = golden_case();
    assert_int_equal(json_dump_file(root, in_directory("preference.json"), 0), 0);
    json_t *got = run(directory, 2);
    assert_true(fabs(number(got, "dpo_loss", NULL) - log(2)) < 1e-15 && number(got, "refine_loss", NULL) == 0.5);
    assert_true(number(got, "h_l", NULL) == 0 && number(got, "h_w", NULL) == 0);
    assert_true(fabs(number(got, "total_loss_grad_of_logprob", "w") + 0.2 * 0.05) < 1e-15);
    assert_true(fabs(number(got, "total_loss_grad_of_logprob", "l_w") - 0.8 * 0.1) < 1e-15);
    assert_true(number(got, "grad_norm", NULL) > 0);
    assert_true(json_equal(json_object_get(got, "policy_logprobs"), json_object_get(got, "reference_logprobs")));
    json_decref(root);
    json_decref(got);
    assert_int_equal(directory_remove(directory, NULL), PLM_OK);
}

/* The golden case with `key` set to the JSON `value` is refused, with `what` in the message. */
static void refuse(const char *key, const char *value, const char *what)
{
    struct plm_status st = {0};
    json_t *root = golden_case();
    json_object_set_new(root, key, json_loads(value, JSON_DECODE_ANY, NULL));
    assert_int_equal(json_dump_file(root, in_directory("preference.json"), 0), 0);
    json_decref(root);
    const int code = verify_preference(directory, in_directory("out.json"), 1, &st);
    if (code != PLM_EFORMAT || !strstr(st.message, what) || access(in_directory("out.json"), F_OK) == 0)
        fail_msg("%s = %s: code %d, %s", key, value, code, st.message);
}

static void broken_cases(void **state)
{
    (void)state;
    struct plm_status st = {0};
    make_case(GOLDEN "/plain/reference");
    refuse("prompt", "[]", "prompt");
    refuse("chosen", "null", "chosen");
    refuse("rejected", "[1, 2.5]", "rejected[1]");
    refuse("rejected", "[1, -1]", "rejected[1]");
    refuse("refine_context_l", "[1, 61]", "token 61");
    refuse("refine_context_w", "[4294967297]", "refine_context_w[0]");
    refuse("alpha", "1.5", "alpha");
    refuse("beta_dpo", "0", "beta_dpo");
    refuse("beta_refine", "\"0.1\"", "beta_refine");
    assert_int_equal(file_replace(in_directory("preference.json"), "{\n \"prompt\": ]", 14, NULL), PLM_OK);
    assert_int_equal(verify_preference(directory, in_directory("out.json"), 1, &st), PLM_EFORMAT);
    assert_non_null(strstr(st.message, "preference.json:2:"));
    assert_int_equal(unlink(in_directory("preference.json")), 0);
    assert_int_equal(verify_preference(directory, in_directory("out.json"), 1, &st), PLM_EIO);
    assert_int_equal(directory_remove(directory, NULL), PLM_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_golden_case), cmocka_unit_test(at_the_start), cmocka_unit_test(broken_cases)};
    return RUN_WITH_EVERY_TABLE(tests, NULL, NULL);
}
