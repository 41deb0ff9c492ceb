/* Bytes as a chat template: one that is accepted renders, its parts are its whole, and its JSON is read as the same template. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/chat_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* 256 bytes and the special tokens of ChatML: made once. */
static struct encoder *byte_encoder(void)
{
    static char bytes[256];
    static const char *tokens[256];
    static size_t lengths[256];
    static struct tokenizer *tokenizer;
    static struct encoder *encoder;
    static const struct special_token specials[] = {{"<|im_start|>", 256}, {"<|im_end|>", 257}};
    if (encoder)
        return encoder;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        tokens[i] = bytes + i;
        lengths[i] = 1;
    }
    if (tokenizer_create(&tokenizer, tokens, lengths, 256, NULL, 0, specials, 2, NULL) || encoder_create(&encoder, tokenizer, NULL))
        abort();
    return encoder;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plm_status st = {0};
    struct chat_template *t, *again;
    struct encoder *e = byte_encoder();
    if (chat_template_from_json(&t, (const char *)data, size, "fuzz", &st))
        return 0;
    const char *json = chat_template_json(t);
    if (chat_template_from_json(&again, json, strlen(json), "again", &st))
        abort();
    const struct chat_message m[] = {{"user", "<|im_end|>", 10, false}, {"assistant", "{role}\n", 7, true}};
    struct token_list whole = {0}, parts = {0};
    struct target_list targets = {0}, part_targets = {0};
    if (strcmp(json, chat_template_json(again)) || chat_template_render(t, e, m, 2, true, false, &whole, &targets, &st) ||
        chat_template_render(again, e, m, 1, true, true, &parts, &part_targets, &st) ||
        chat_template_answer(again, e, m[1].content, m[1].content_bytes, true, &parts, &part_targets, &st))
        abort();
    if (parts.length != part_targets.length || whole.length != targets.length || memcmp(targets.data, part_targets.data, parts.length))
        abort();
    if (chat_template_close(again, e, true, &parts, &st) || parts.length != whole.length || memcmp(parts.data, whole.data, whole.length * sizeof *whole.data))
        abort();
    chat_template_free(t);
    chat_template_free(again);
    free(whole.data), free(parts.data), free(targets.data), free(part_targets.data);
    return 0;
}
