/* A case of the float64 reference: latent, MHA and GQA layouts under every policy; the same budgets and kept positions, and
 * logits within 1e-4, with every table of operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/format/safetensors.h"
#include "tests/ops/tables.h"
#include "train/verify_d2o.h"

#define TOLERANCE 1e-4

static const char *const policies[] = {"full", "streaming", "h2o", "d2o", "d2o+count"};

static json_t *load(const char *path)
{
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    if (!root)
        fail_msg("%s:%d: %s", path, error.line, error.text);
    return root;
}

static void assert_close(const char *file, const char *reference, const char *const *prefixes, int n_prefix)
{
    struct plm_status st = {0};
    struct safetensors got, want;
    assert_int_equal(safetensors_open(&got, file, &st), PLM_OK);
    assert_int_equal(safetensors_open(&want, reference, &st), PLM_OK);
    for (int i = 0; i < n_prefix; i++)
        for (int p = 0; p < 5; p++) {
            char name[64];
            snprintf(name, sizeof name, "%s.%s", prefixes[i], policies[p]);
            const struct stored_tensor *a = safetensors_find(&got, name), *b = safetensors_find(&want, name);
            if (!a || !b || a->n_dims != b->n_dims || memcmp(a->shape, b->shape, (size_t)a->n_dims * sizeof *a->shape) != 0)
                fail_msg("%s is missing or of another shape", name);
            const float *x = a->data, *y = b->data;
            for (size_t k = 0; k < a->bytes / sizeof *x; k++)
                if (!(fabs((double)x[k] - y[k]) <= TOLERANCE))
                    fail_msg("%s: element %zu is %.9g, expected %.9g", name, k, (double)x[k], (double)y[k]);
        }
    safetensors_close(&got);
    safetensors_close(&want);
}

static void assert_same_decisions(const char *file)
{
    static const char *const layouts[] = {"mla", "mha"};
    json_t *got = load(file), *want = load(GOLDEN "/d2o/d2o.json"), *gqa = load(GOLDEN "/d2o/gqa.json");
    for (int l = 0; l < 2; l++)
        for (int p = 0; p < 5; p++) {
            char name[64];
            snprintf(name, sizeof name, "%s.%s", layouts[l], policies[p]);
            const json_t *a = json_object_get(json_object_get(got, "runs"), name),
                         *b = json_object_get(json_object_get(want, "runs"), name);
            assert_true(json_array_size(json_object_get(b, "kept")) > 1);
            if (!json_equal(json_object_get(a, "budgets"), json_object_get(b, "budgets")))
                fail_msg("%s: other budgets than the reference", name);
            for (size_t step = 0; step < json_array_size(json_object_get(b, "kept")); step++)
                if (!json_equal(json_array_get(json_object_get(a, "kept"), step),
                                json_array_get(json_object_get(b, "kept"), step)))
                    fail_msg("%s: other positions kept than in the reference, first at step %zu", name, step);
        }
    for (int p = 0; p < 5; p++) {
        const json_t *expected = json_object_get(json_object_get(gqa, "kept"), policies[p]);
        assert_non_null(expected);
        if (!json_equal(json_object_get(json_object_get(json_object_get(got, "gqa"), "kept"), policies[p]), expected))
            fail_msg("GQA, %s: other positions kept than in the reference", policies[p]);
    }
    json_decref(got);
    json_decref(want);
    json_decref(gqa);
}

static void agrees_with_the_reference(void **state)
{
    (void)state;
    static const char *const logits[] = {"logits.mla", "logits.mha"}, *const out[] = {"out"};
    char dir[] = "verify-XXXXXX", file[64], json[64];
    struct plm_status st = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(file, sizeof file, "%s/mine.safetensors", dir);
    snprintf(json, sizeof json, "%s/mine.json", dir);
    if (verify_d2o(GOLDEN "/plain", GOLDEN "/d2o", file, 2, &st))
        fail_msg("%s", st.message);
    assert_close(file, GOLDEN "/d2o/d2o.safetensors", logits, 2);
    assert_close(file, GOLDEN "/d2o/gqa.safetensors", out, 1);
    assert_same_decisions(json);
    remove(file);
    remove(json);
    rmdir(dir);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0)
        fail_msg("cannot write %s", path);
}

static void bad_cases_are_refused(void **state)
{
    (void)state;
    static const char options[] = "\"options\": {\"n_sink\": 4, \"s_min\": 8, \"temperature\": 1, \"beta\": 0.7, \"slack\": 0, "
                                  "\"gate\": true, \"batch\": 1}";
    static const struct { const char *head, *says; } bad[] = {
        {"\"prompt\": [1], \"tokens\": [], \"budget\": 20,", "tokens has 0"},
        {"\"prompt\": [1, 61], \"tokens\": [1], \"budget\": 20,", "prompt[1]"},
        {"\"prompt\": [1], \"tokens\": [1], \"budget\": 0,", "budget is 0"},
        {"\"prompt\": [1], \"tokens\": [1],", "budget"},
    };
    char dir[] = "verify-XXXXXX", path[64], text[512];
    struct plm_status st = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/d2o.json", dir);
    assert_int_equal(verify_d2o(GOLDEN "/plain", dir, "unwritten.safetensors", 1, &st), PLM_EIO);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "{%s %s}", bad[i].head, options);
        write_text(path, text);
        assert_int_equal(verify_d2o(GOLDEN "/plain", dir, "unwritten.safetensors", 1, &st), PLM_EFORMAT);
        if (!strstr(st.message, bad[i].says))
            fail_msg("message '%s' does not say '%s'", st.message, bad[i].says);
    }
    snprintf(text, sizeof text, "{\"prompt\": [1], \"tokens\": [1], \"budget\": 20, %s}", options);
    write_text(path, text);
    assert_int_equal(verify_d2o(GOLDEN "/plain", dir, "unwritten.safetensors", 1, &st), PLM_EIO);
    assert_non_null(strstr(st.message, "gqa.json"));
    remove(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_reference),
        cmocka_unit_test(bad_cases_are_refused),
    };
    return RUN_WITH_EVERY_TABLE(tests, NULL, NULL);
}
