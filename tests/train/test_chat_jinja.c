/* Chat templates as Jinja: PLM's own to the byte, quotes and backslashes, no default system message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train/chat_jinja.h"
#include "train/manifest.h"

static char *jinja_of(const char *json)
{
    struct chat_template *t;
    char *text;
    struct plm_status st = {0};
    int code = json ? chat_template_from_json(&t, json, strlen(json), "a template", &st) : chat_template_open(&t, NULL, NULL, &st);
    if (code || chat_template_jinja(&text, t, &st))
        fail_msg("%s", st.message);
    chat_template_free(t);
    return text;
}

static void chatml_is_the_recorded_one(void **state)
{
    (void)state;
    char hash[SHA256_HEX], *text = jinja_of(NULL);
    assert_int_equal(sha256_bytes(text, strlen(text), hash, NULL), PLM_OK);
    assert_string_equal(hash, "af9c0233881b083b52ff773580215222b5440ac3d0beeeca99b76329b048f8db"); /* plm.md 3.3 */
    free(text);
}

static void others(void **state)
{
    (void)state;
    char *text = jinja_of("{\"turn\": \"[it's {role}]\\\\ {content}</s>\", \"end\": \"</s>\"}");
    assert_string_equal(text, "{% for message in messages %}{{'[it\\'s ' + message['role'] + ']\\\\ ' + message['content'] + '</s>'}}{% endfor %}"
                              "{% if add_generation_prompt %}{{ '[it\\'s assistant]\\\\ ' }}{% endif %}");
    free(text);
    text = jinja_of("{\"turn\": \"{role}\\r{content}</s>\", \"end\": \"</s>\"}");
    assert_non_null(strstr(text, "message['role'] + '\\r' + message"));
    free(text);
    text = jinja_of("{\"system\": \"Don't\", \"turn\": \"{role}: {content}\\n</s>\\n\", \"end\": \"</s>\"}");
    assert_string_equal(text, "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ 'system: Don\\'t\n</s>\n' }}{% endif %}"
                              "{{'' + message['role'] + ': ' + message['content'] + '\n</s>' + '\n'}}{% endfor %}"
                              "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(chatml_is_the_recorded_one), cmocka_unit_test(others)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
