/* Any bytes as text: encoding ends, decoding gives the text back (its NFC, where it is UTF-8), and encoding that again
 * gives the same tokens. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/nfc.h"
#include "infer/text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* 256 bytes, a few merges that meet in one token, two special tokens of which one begins the other. */
static struct tokenizer *make_tokenizer(void)
{
    static const char *const merged[] = {"aa", "ab", "aaa", " a", "\xCC\x81", "\n\n", "aab", "'s"};
    static const int32_t merges[][2] = {{'a', 'b'}, {256, 'a'},   {'a', 256}, {'a', 'a'}, {' ', 'a'},
                                        {0xCC, 0x81}, {'\n', '\n'}, {256, 'b'}, {'a', 257}, {'\'', 's'}};
    static const struct special_token specials[] = {{"<|x|>", 264}, {"<|x|>a", 265}};
    char bytes[256];
    const char *token[264];
    size_t length[264];
    struct tokenizer *t;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        token[i] = &bytes[i];
        length[i] = 1;
    }
    for (int i = 0; i < 8; i++) {
        token[256 + i] = merged[i];
        length[256 + i] = strlen(merged[i]);
    }
    if (tokenizer_create(&t, token, length, 264, merges, 10, specials, 2, NULL))
        abort();
    return t;
}

static void encode(struct encoder *e, const char *text, size_t n, bool special, struct token_list *ids)
{
    ids->length = 0;
    if (encoder_encode(e, text, n, special, ids, NULL))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tokenizer *t;
    static struct encoder *e; /* kept: what its cache holds must not matter */
    struct token_list ids = {0}, again = {0};
    struct nfc nfc = {0};
    const char *normal;
    char *text;
    size_t n_text, n_normal;
    if (!t && encoder_create(&e, t = make_tokenizer(), NULL))
        abort();
    if (nfc_normalize(&nfc, (const char *)data, size, &normal, &n_normal, NULL))
        abort();
    encode(e, (const char *)data, size, false, &ids);
    if (tokenizer_decode(t, ids.data, ids.length, true, &text, &n_text, NULL) || n_text != n_normal ||
        memcmp(text, normal, n_text))
        abort();
    encode(e, text, n_text, false, &again);
    if (again.length != ids.length || (ids.length && memcmp(again.data, ids.data, ids.length * sizeof *ids.data)))
        abort();
    free(text);
    encode(e, (const char *)data, size, true, &ids);
    if (tokenizer_decode(t, ids.data, ids.length, true, &text, &n_text, NULL))
        abort();
    free(text);
    free(ids.data);
    free(again.data);
    nfc_free(&nfc);
    return 0;
}
