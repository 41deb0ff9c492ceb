/* Any bytes as text: encoding ends, decoding gives the text back (its NFC, where it is UTF-8), and encoding that again
 * gives the same tokens. With added tokens of every trait it ends, and no text is there twice. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/nfc.h"
#include "infer/text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* 256 bytes, a few merges that meet in one token, two special tokens of which one begins the other. */
static struct tokenizer *make_tokenizer(const struct special_token *specials, int n_specials)
{
    static const char *const merged[] = {"aa", "ab", "aaa", " a", "\xCC\x81", "\n\n", "aab", "'s"};
    static const int32_t merges[][2] = {{'a', 'b'}, {256, 'a'},   {'a', 256}, {'a', 'a'}, {' ', 'a'},
                                        {0xCC, 0x81}, {'\n', '\n'}, {256, 'b'}, {'a', 257}, {'\'', 's'}};
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
    if (tokenizer_create(&t, token, length, 264, merges, 10, specials, n_specials, NULL))
        abort();
    return t;
}

static void encode(struct encoder *e, const char *text, size_t n, bool special, struct token_list *ids)
{
    ids->length = 0;
    if (encoder_encode(e, text, n, special, ids, NULL))
        abort();
}

static const struct special_token specials[] = {{"<|x|>", 264}, {"<|x|>a", 265}};
static const struct special_token traits[] = {
    {"a", 264, ADDED_PLAIN | ADDED_SINGLE_WORD},
    {"ab", 265, ADDED_PLAIN | ADDED_LSTRIP},
    {"<", 266, ADDED_RSTRIP},
    {" <x", 267, ADDED_PLAIN | ADDED_LSTRIP | ADDED_RSTRIP},
    {"e\xCC\x81", 268, ADDED_PLAIN | ADDED_NORMALIZED | ADDED_SINGLE_WORD},
    {"\n", 269, ADDED_NORMALIZED | ADDED_LSTRIP},
};

/* White space goes with tokens, and is given back by none but the one that it is part of. */
static void check_traits(const uint8_t *data, size_t size)
{
    static struct tokenizer *t;
    static struct encoder *e;
    struct token_list ids = {0};
    char *text;
    size_t n;
    if (!t && encoder_create(&e, t = make_tokenizer(traits, 6), NULL))
        abort();
    for (int special = 0; special < 2; special++) {
        encode(e, (const char *)data, size, special, &ids);
        if (tokenizer_decode(t, ids.data, ids.length, true, &text, &n, NULL) || n > 3 * size)
            abort();
        free(text);
    }
    free(ids.data);
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
    if (!t && encoder_create(&e, t = make_tokenizer(specials, 2), NULL))
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
    check_traits(data, size);
    free(ids.data);
    free(again.data);
    nfc_free(&nfc);
    return 0;
}
