#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/text/refine_template.h"

static struct refine_template *from(const char *text)
{
    struct plm_status st = {0};
    struct refine_template *t;
    if (refine_template_from_text(&t, text, strlen(text), "test", &st))
        fail_msg("%s", st.message);
    return t;
}

static void expect(const char *template, const char *x, const char *y, const char *want)
{
    size_t length = 0;
    struct refine_template *t = from(template);
    char *message = refine_template_fill(t, x, strlen(x), y, strlen(y), &length);
    assert_non_null(message);
    assert_string_equal(message, want);
    assert_int_equal(length, strlen(want));
    free(message);
    refine_template_free(t);
}

static void slots_are_filled_in_either_order(void **state)
{
    (void)state;
    expect("Q: {x}\nA: {y_prev}\nBetter:", "1+1?", "3", "Q: 1+1?\nA: 3\nBetter:");
    expect("{y_prev} was said of {x}", "1+1?", "3", "3 was said of 1+1?");
    expect("{x}{y_prev}", "", "", "");
    expect("{y_prev}{x}", "x", "y", "yx");
    expect("{{x}} {y} {y_prev}", "1", "2", "{1} {y} 2"); /* other braces are text */
}

static void slots_in_the_texts_are_plain(void **state)
{
    (void)state;
    expect("{x}|{y_prev}|", "{y_prev}", "{x} {y_prev}", "{y_prev}|{x} {y_prev}|");
}

static void texts_need_no_end(void **state)
{
    (void)state;
    size_t length;
    struct refine_template *t = from("<{x}><{y_prev}>");
    char *message = refine_template_fill(t, "question, and more", 8, "an\0swer", 7, &length);
    assert_int_equal(length, 8 + 7 + 4);
    assert_memory_equal(message, "<question><an\0swer>", length + 1);
    free(message);
    refine_template_free(t);
}

static void the_built_in_template_is_the_documented_one(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct refine_template *t, *again;
    assert_int_equal(refine_template_open(&t, NULL, &st), PLM_OK);
    const char *text = refine_template_text(t);
    assert_ptr_equal(strstr(text, "You are given a QUESTION and a DRAFT ANSWER."), text);
    assert_non_null(strstr(text, "QUESTION:\n{x}\n\nDRAFT ANSWER:\n{y_prev}\n\nIf the draft"));
    assert_string_equal(text + strlen(text) - 8, "\nANSWER:");
    char *message = refine_template_fill(t, "Why?", 4, "Because.", 8, NULL);
    assert_non_null(strstr(message, "QUESTION:\nWhy?\n\nDRAFT ANSWER:\nBecause.\n\n"));
    free(message);
    again = from(text); /* as a checkpoint stores it */
    assert_string_equal(refine_template_text(again), text);
    refine_template_free(again);
    refine_template_free(t);
}

static void wrong_templates_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t length;
        const char *says;
    } wrong[] = {
        {"", 0, "{x} not at all"},
        {"{x} and no draft", 16, "{y_prev} not at all"},
        {"{y_prev}", 8, "{x} not at all"},
        {"{x}{x}{y_prev}", 14, "{x} more than once"},
        {"{x}{y_prev}{y_prev}", 19, "{y_prev} more than once"},
        {"{X}{y_prev}", 11, "{x} not at all"},
        {"{x}\0{y_prev}", 12, "byte 3 of the refinement template is 0x00"},
        {"{x}\xff{y_prev}", 12, "byte 3 of the refinement template is 0xff"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct plm_status st = {0};
        struct refine_template *t = (struct refine_template *)1;
        assert_int_equal(refine_template_from_text(&t, wrong[i].text, wrong[i].length, "z.txt", &st), PLM_EINVAL);
        assert_null(t);
        assert_ptr_equal(strstr(st.message, "z.txt: "), st.message);
        if (!strstr(st.message, wrong[i].says))
            fail_msg("'%s' does not say '%s'", st.message, wrong[i].says);
    }
}

static void a_file_is_taken_as_it_is(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct refine_template *t;
    char path[] = "refine-XXXXXX";
    FILE *f = fdopen(mkstemp(path), "w");
    fputs("{x}\r\n{y_prev}\n", f);
    fclose(f);
    assert_int_equal(refine_template_open(&t, path, &st), PLM_OK);
    assert_string_equal(refine_template_text(t), "{x}\r\n{y_prev}\n");
    refine_template_free(t);
    f = fopen(path, "w");
    for (int i = 0; i < 1 << 18; i++)
        fputs("{x} and {y_prev}", f);
    fclose(f);
    assert_int_equal(refine_template_open(&t, path, &st), PLM_ELIMIT);
    assert_non_null(strstr(st.message, path));
    remove(path);
    assert_int_equal(refine_template_open(&t, path, &st), PLM_EIO);
    assert_null(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_are_filled_in_either_order),
        cmocka_unit_test(slots_in_the_texts_are_plain),
        cmocka_unit_test(texts_need_no_end),
        cmocka_unit_test(the_built_in_template_is_the_documented_one),
        cmocka_unit_test(wrong_templates_are_refused),
        cmocka_unit_test(a_file_is_taken_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
