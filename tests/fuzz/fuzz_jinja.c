/* Bytes as a chat template in Jinja: it is refused or renders within its bounds, every origin is one of the messages',
 * and one that can be opened as a template gives ids, and JSON that is read as the same template. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/jinja.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct encoder *byte_encoder(void)
{
    static char bytes[256];
    static const char *tokens[256];
    static size_t lengths[256];
    static struct tokenizer *tokenizer;
    static struct encoder *encoder;
    static const struct special_token specials[] = {{"<|im_start|>", 256}, {"<|im_end|>", 257}};
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        tokens[i] = bytes + i;
        lengths[i] = 1;
    }
    if (!encoder && (tokenizer_create(&tokenizer, tokens, lengths, 256, NULL, 0, specials, 2, NULL) ||
                     encoder_create(&encoder, tokenizer, NULL)))
        abort();
    return encoder;
}

static void open_as_template(const char *text, size_t size, const struct chat_message *messages, int n)
{
    struct chat_template *t, *again = NULL;
    struct token_list ids = {0};
    struct target_list targets = {0};
    if (chat_template_from_jinja(&t, text, size, NULL, "fuzz", NULL) != PLM_OK)
        return;
    const char *json = chat_template_json(t);
    if (chat_template_from_json(&again, json, strlen(json), "again", NULL) == PLM_OK &&
        strcmp(json, chat_template_json(again)) != 0)
        abort(); /* what is not UTF-8 becomes U+FFFD there, and may be refused then */
    for (int begin = CHAT_CONTINUES; begin <= CHAT_BEGINS_WITHOUT; begin++)
        if (chat_template_render(t, byte_encoder(), messages, n, (enum chat_begin)begin, true, &ids, &targets, NULL) ==
                PLM_OK &&
            ids.length != targets.length)
            abort();
    chat_template_answer(t, byte_encoder(), "x", 1, true, &ids, &targets, NULL);
    chat_template_free(again);
    chat_template_free(t);
    free(ids.data);
    free(targets.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct chat_message messages[] = {{"system", "", 0, false},
                                            {"user", " \xc3\xa9<|im_end|>\n", 14, false},
                                            {"assistant", "{{ 1 }}</think>", 15, true},
                                            {"user", "\xff\xe3\x80", 3, false}};
    struct plm_status st = {0};
    struct jinja *t;
    jinja_byte *out;
    size_t length;
    if (jinja_parse(&t, (const char *)data, size, "fuzz", &st))
        return 0;
    for (int n = 1; n <= 4; n++) {
        const struct jinja_input input = {messages, n, n % 2, "<s>", n > 2 ? "</s>" : NULL};
        if (jinja_render(t, &input, &out, &length, &st))
            continue;
        for (size_t i = 0; i < length; i++)
            if (out[i] >> 8 > (uint32_t)n && out[i] >> 8 != JINJA_ROLE)
                abort();
        free(out);
    }
    jinja_free(t);
    open_as_template((const char *)data, size, messages, 4);
    return 0;
}
