#include "tests/format/files.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/format/safetensors_set.h"

/* A file of tensors of two floats, (i, -i) of the i-th name; names up to NULL. */
static void write_file(const char *file, ...)
{
    struct safetensors_writer *w;
    assert_int_equal(safetensors_create(&w, file_path(file), NULL), PLM_OK);
    for (int pass = 0; pass < 2; pass++) {
        va_list args;
        va_start(args, file);
        const char *name;
        for (int i = 0; (name = va_arg(args, const char *)); i++) {
            const float data[2] = {(float)i, (float)-i};
            if (pass == 0)
                assert_int_equal(safetensors_declare(w, name, DTYPE_F32, 1, (int64_t[]){2}, NULL), PLM_OK);
            else
                assert_int_equal(safetensors_write(w, data, sizeof data, NULL), PLM_OK);
        }
        va_end(args);
    }
    assert_int_equal(safetensors_finish(w, NULL), PLM_OK);
}

static int open_index(const char *index, struct safetensors_set *s, struct plm_status *st)
{
    char dir[256];
    file_write(SAFETENSORS_INDEX, index, strlen(index));
    snprintf(dir, sizeof dir, "%s", file_path(""));
    int code = safetensors_set_open(s, dir, st);
    if (code) {
        assert_null(s->files);
        assert_int_equal(s->n_files, 0);
    }
    return code;
}

static void several_files_are_one_set(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct safetensors_set s;
    write_file("model-00001-of-00002.safetensors", "a", "b", NULL);
    write_file("model-00002-of-00002.safetensors", "c", NULL);
    if (open_index("{\"metadata\": {\"total_size\": 24}, \"weight_map\": {\"c\": \"model-00002-of-00002.safetensors\", "
                   "\"a\": \"model-00001-of-00002.safetensors\", \"b\": \"model-00001-of-00002.safetensors\"}}", &s, &st))
        fail_msg("%s", st.message);
    assert_int_equal(s.n_files, 2);
    assert_int_equal(s.n_tensors, 3);
    assert_float_equal(*(const float *)safetensors_set_find(&s, "b")->data, 1, 0);
    assert_string_equal(safetensors_set_find(&s, "c")->name, "c");
    assert_null(safetensors_set_find(&s, "d"));
    int seen = 0;
    for (int i = 0; i < 3; i++)
        seen |= 1 << (safetensors_set_at(&s, i)->name[0] - 'a');
    assert_int_equal(seen, 7);
    assert_null(safetensors_set_at(&s, 3));
    safetensors_set_close(&s);

    write_file("model.safetensors", "only", NULL); /* goes before an index, as in transformers */
    char dir[256];
    snprintf(dir, sizeof dir, "%s", file_path(""));
    assert_int_equal(safetensors_set_open(&s, dir, &st), PLM_OK);
    assert_int_equal(s.n_tensors, 1);
    assert_non_null(safetensors_set_find(&s, "only"));
    safetensors_set_close(&s);
    unlink(file_path("model.safetensors"));
}

static void a_wrong_index_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *index, *want, *also;
        int code;
    } cases[] = {
        {"{\"weight_map\": {\"a\": \"../p.safetensors\", \"b\": \"p.safetensors\"}}", "'a' is said to be in '../p.safetensors'", "plain name", PLM_EFORMAT},
        {"{\"weight_map\": {\"a\": \"/etc/p.safetensors\"}}", "'/etc/p.safetensors'", "plain name", PLM_EFORMAT},
        {"{\"weight_map\": {\"a\": \"x\\\\p.safetensors\"}}", "plain name", "'a'", PLM_EFORMAT},
        {"{\"weight_map\": {\"a\": \"..safetensors\"}}", "plain name", "'a'", PLM_EFORMAT},
        {"{\"weight_map\": {\"a\": \".safetensors\"}}", "plain name", "'a'", PLM_EFORMAT},
        {"{\"weight_map\": {\"a\": \"\"}}", "plain name", "'a'", PLM_EFORMAT},
        {"{\"weight_map\": {\"a\": \"p.safetensors\\u0000.safetensors\"}}", "plain name", "'a'", PLM_EFORMAT},
        {"{\"weight_map\": {\"a\": \"p.bin\"}}", "plain name of a .safetensors file", "'a'", PLM_EFORMAT},
        {"{\"weight_map\": {\"a\": 1}}", "(not a string)", "'a'", PLM_EFORMAT},
        {"{\"weight_map\": {\"a\": \"nowhere.safetensors\"}}", "nowhere.safetensors", "No such file", PLM_EIO},
        {"{\"weight_map\": {\"a\": \"p.safetensors\", \"b\": \"q.safetensors\", \"c\": \"q.safetensors\"}}", "'b' is missing in q.safetensors", "index", PLM_EFORMAT},
        {"{\"weight_map\": {\"a\": \"p.safetensors\", \"c\": \"q.safetensors\"}}", "'b' is in p.safetensors", "does not list it", PLM_EFORMAT},
        {"{\"weight_map\": {\"a\": \"p.safetensors\", \"b\": \"p.safetensors\", \"c\": \"twice.safetensors\"}}", "'a' is in twice.safetensors",
         "says p.safetensors", PLM_EFORMAT},
        {"{\"weight_map\": {\"a\": \"p.safetensors\", \"a\": \"q.safetensors\"}}", "\"a\"", "index.json", PLM_EFORMAT},
        {"{\"weight_map\": {\"a\": \"damaged.safetensors\"}}", "damaged.safetensors", "header", PLM_EFORMAT},
        {"{\"weight_map\": {}}", "weight_map", "object", PLM_EFORMAT},
        {"{\"weight_map\": [\"p.safetensors\"]}", "weight_map", "object", PLM_EFORMAT},
        {"{\"metadata\": {}}", "weight_map", "object", PLM_EFORMAT},
        {"[]", "weight_map", "object", PLM_EFORMAT},
        {"{\"weight_map\": {\"a\": ", "index.json", "line 1", PLM_EFORMAT},
    };
    write_file("p.safetensors", "a", "b", NULL);
    write_file("q.safetensors", "c", NULL);
    write_file("twice.safetensors", "a", "c", NULL);
    file_write("damaged.safetensors", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plm_status st = {0};
        struct safetensors_set s;
        assert_int_equal(open_index(cases[i].index, &s, &st), cases[i].code);
        assert_message(&st, cases[i].code, cases[i].want, cases[i].also, NULL);
    }
}

static void there_is_a_limit_of_files(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct safetensors_set s;
    char *text = malloc(64 * (SAFETENSORS_MAX_FILES + 2)), *at = text;
    at += sprintf(at, "{\"weight_map\": {");
    for (int i = 0; i <= SAFETENSORS_MAX_FILES; i++)
        at += sprintf(at, "%s\"%d\": \"%d.safetensors\"", i ? "," : "", i, i);
    strcpy(at, "}}");
    assert_int_equal(open_index(text, &s, &st), PLM_ELIMIT);
    assert_message(&st, PLM_ELIMIT, "more than 1024 files", NULL);
    free(text);
    unlink(file_path(SAFETENSORS_INDEX));
    char dir[256];
    snprintf(dir, sizeof dir, "%s", file_path(""));
    assert_int_equal(safetensors_set_open(&s, dir, &st), PLM_EIO);
    assert_message(&st, PLM_EIO, "model.safetensors", "No such file", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(several_files_are_one_set), cmocka_unit_test(a_wrong_index_is_refused),
                                       cmocka_unit_test(there_is_a_limit_of_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
