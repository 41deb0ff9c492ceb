/* Jinja as chat templates use it: white space, expressions, scopes, filters, what is refused, and what a hostile
 * template cannot do. The right values are those of jinja2 with trim_blocks and lstrip_blocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "infer/text/jinja.h"

static const struct chat_message talk[] = {{"system", " be kind ", 9, false},
                                           {"user", "How?", 4, false},
                                           {"assistant", "So.\n", 4, true},
                                           {"user", "\xc3\xa9\xe3\x80\x80", 5, false}};

static char *render(const char *template, bool generation, int n, struct plm_status *st)
{
    struct jinja *t;
    const struct jinja_input input = {talk, n, generation, "<s>", "</s>"};
    jinja_byte *out;
    size_t length;
    int code = jinja_parse(&t, template, strlen(template), "t", st);
    if (code)
        return NULL;
    code = jinja_render(t, &input, &out, &length, st);
    jinja_free(t);
    if (code)
        return NULL;
    char *text = malloc(length + 1);
    for (size_t i = 0; i < length; i++)
        text[i] = (char)out[i];
    text[length] = 0;
    free(out);
    return text;
}

static void test_right(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        /* white space */
        {"a\n  {% if true %}\n b\n  {% endif %}\nc\n", "a\n b\nc"},
        {"a  {%- if true -%}  b  {%- endif %}  c", "ab  c"},
        {"a\n  {{ 1 }}\nb\r\nc", "a\n  1\nb\nc"},
        {"a {#- no -#} b{# x #}\nc", "abc"},
        {"x {%+ if true %}y{% endif +%}\nz", "x y\nz"},
        {"{% if true %}   {% endif %}|", "   |"},
        /* texts */
        {"{{ 'a\\n\\'\\\\\\x41\\u00e9\\q' \"b\" }}", "a\n'\\A\xc3\xa9\\qb"},
        {"{{ bos_token + 'x' ~ 1 ~ none ~ true ~ nothing }}", "<s>x1NoneTrue"},
        {"{{ messages[3].content | trim }}|{{ messages[0]['content'].strip() }}|{{ 'xxabx'.strip('x') }}",
         "\xc3\xa9|be kind|ab"},
        {"{{ 'aBc'.upper() ~ 'aBc' | lower ~ 'the end'.title() ~ 'uSER' | capitalize }}", "ABCabcThe EndUser"},
        {"{{ 'a-b-c'.replace('-', '+') }} {{ 'a-b-c'.split('-')[-1] }} {{ 'a-b-c'.split('-', 1)[1] }}", "a+b+c c b-c"},
        {"{{ '\xc3\xa9tude'[1:3] ~ 'abc'[-1] ~ 'abc'[:-1] ~ messages[1:] | length ~ [1, 2, 3][::-1][0] }}", "tucab33"},
        {"{{ ['a', 1, true] | join('-') }}{{ {'a': ['x\"\\n', none, 2]} | tojson }}",
         "a-1-True{\"a\": [\"x\\\"\\n\", null, 2]}"},
        /* conditions */
        {"{{ 1 if 0 else 2 }}{{ 1 if false }}{{ 'a' in 'cat' and not 'b' in ['a'] }}{{ 3 not in [1, 2] }}",
         "2TrueTrue"},
        {"{{ x is defined }}{{ x is not defined }}{{ none is none }}{{ 'a' is string }}{{ messages is iterable }}",
         "FalseTrueTrueTrueTrue"},
        {"{{ (messages[1].role == 'user') != (1 % 2 == 0) }}{{ 1 < 2 < 3 }}{{ 2 >= 3 or 'b' > 'a' }}", "TrueTrueTrue"},
        {"{{ x | default('d') }}{{ '' | default('e', true) }}{{ '' or 'f' }}{{ -7 // 2 }}{{ -7 % 3 }}{{ 2 + 3 * 4 }}",
         "def-4214"},
        {"{% if x %}a{% elif messages %}b{% else %}c{% endif %}{% if messages[0] == messages[0] %}d{% endif %}", "bd"},
        /* loops and scopes */
        {"{% for m in messages %}{{ loop.index0 }}{{ m.role[0] }}{{ ',' if not loop.last }}{% endfor %}",
         "0s,1u,2a,3u"},
        {"{% set a = 1 %}{% for i in range(3) %}{% set a = i %}{{ a }}{% endfor %}{{ a }}", "0121"},
        {"{% set n = namespace(x=0) %}{% for i in [1, 2, 3, 4] if i != 2 %}{% set n.x = n.x + i %}{% endfor %}{{ n.x "
         "}}",
         "8"},
        {"{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k ~ v }}{% else %}no{% endfor %}{% for i in [] %}{% else "
         "%}none{% endfor %}",
         "a1b2none"},
        {"{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i > 3 %}{% break %}{% endif %}{{ i }}{% "
         "endfor %}",
         "023"},
        {"{% macro f(a, b='z') %}{{ a ~ b }}{% endmacro %}{{ f(1) }}{{ f(b=2, a='q') }}{% set t %}[{{ f('y') }}]{% "
         "endset %}{{ t }}",
         "1zq2[yz]"},
        {"{{ (messages | selectattr('role', 'equalto', 'user') | list)[-1].content }}{{ messages | "
         "map(attribute='role') | join }}",
         "\xc3\xa9\xe3\x80\x80systemuserassistantuser"},
        {"{% for m in messages %}{% generation %}{{ m.content | trim }}{% endgeneration %}{% endfor %}{% if "
         "add_generation_prompt %}>{% endif %}",
         "be kindHow?So.\xc3\xa9>"},
        {"{{ tools is none }}{{ strftime_now is defined }}{{ raise_exception('never') if false }}{{ messages[9] }}",
         "TrueTrue"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plm_status st = {0};
        char *text = render(cases[i][0], true, 4, &st);
        if (!text || strcmp(text, cases[i][1]))
            fail_msg("%s\n  gives '%s' %s\n  expected '%s'", cases[i][0], text ? text : "", st.message, cases[i][1]);
        free(text);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{{ raise_exception('roles must ' + 'alternate') }}", "line 1: the template says: roles must alternate"},
        {"a\n\n{{ messages | wordwrap }}", "line 3: the filter 'wordwrap'"},
        {"{% include 'x' %}", "line 1: the statement 'include'"},
        {"{{ 'a' is weird }}", "the test 'weird'"},
        {"{{ 'a'.zfill(3) }}", "the method 'zfill'"},
        {"{{ lipsum() }}", "the function 'lipsum'"},
        {"{{ nothing.role }}", "'nothing' is undefined"},
        {"{{ 'a' + nothing }}", "'nothing' is undefined"},
        {"{{ 'a' + 1 }}", "not two numbers or two texts"},
        {"{% if true %}a", "'endif' is missing"},
        {"{% for a in messages %}{% endif %}", "'endif' where 'endfor'"},
        {"{% endfor %}", "without its beginning"},
        {"{{ 'a }}", "without its closing"},
        {"{{ 1 ", "without its end"},
        {"{# a", "without its #}"},
        {"{{ [1, 2 }}", "line 1"},
        {"{{ 1 2 }}", "'2' where the end of the tag is expected"},
        {"{{ messages }}", "without tojson"},
        {"{{ 1 // 0 }}", "1 / 0"},
        {"{{ '\xc3\xa9' | upper }}", "beyond ASCII"},
        /* bounds */
        {"{% set r = range(100000) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
         "does not come to an end"},
        {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nests too deeply"},
        {"{% set n = namespace(x='0123456789') %}{% for i in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}",
         "more memory"},
        {"{% for i in range(2000000000) %}{% endfor %}", "more memory"},
        {"{{ 9223372036854775807 }}", "below two thousand million"},
        {"{{ 2000000000 * 2000000000 * 2000000000 }}", "*"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plm_status st = {0};
        char *text = render(cases[i][0], false, 4, &st);
        if (text || !strstr(st.message, cases[i][1]))
            fail_msg("%s\n  says '%s'\n  expected '%s'", cases[i][0], text ? "nothing" : st.message, cases[i][1]);
        free(text);
    }
    char deep[1000];
    struct plm_status st = {0};
    memset(deep, '(', sizeof deep - 1);
    deep[0] = deep[1] = '{';
    deep[sizeof deep - 1] = 0;
    assert_null(render(deep, false, 1, &st));
    assert_non_null(strstr(st.message, "levels of nesting"));
}

/* Through every operation a byte of a message stays one. */
static void test_origins(void **state)
{
    (void)state;
    struct jinja *t;
    const char *text =
        "{% set c = ('<' + messages[1].content.replace('o', '0') | upper + '>') | trim %}{{ c[:4] | tojson }}";
    const struct jinja_input input = {talk, 2, false, NULL, NULL};
    jinja_byte *out;
    size_t length;
    assert_int_equal(jinja_parse(&t, text, strlen(text), "t", NULL), PLM_OK);
    assert_int_equal(jinja_render(t, &input, &out, &length, NULL), PLM_OK);
    static const jinja_byte want[] = {'"', '<', 'H' | 2 << 8, '0', 'W' | 2 << 8, '"'};
    assert_int_equal(length, 6);
    assert_memory_equal(out, want, sizeof want);
    free(out);
    jinja_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_right), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_origins)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
