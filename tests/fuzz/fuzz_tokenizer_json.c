/* Bytes as a tokenizer.json: an error, or a tokenizer that survives being written and read again. A file of 256 tokens is
 * out of a fuzzer's reach, so most inputs are edits of a good one: (position, new byte) in three bytes each. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *make_json(size_t *length)
{
    static const int32_t merges[][2] = {{'a', 'b'}, {256, 'c'}, {'a', 258}, {'b', 'c'}};
    static const char *const merged[] = {"ab", "abc", "bc"};
    static const struct special_token specials[] = {{"<|endoftext|>", 259}, {"<s>", 260, ADDED_PLAIN | ADDED_NORMALIZED | ADDED_LSTRIP}};
    char bytes[256];
    const char *token[259];
    size_t n[259];
    struct tokenizer *t;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        token[i] = &bytes[i];
        n[i] = 1;
    }
    for (int i = 0; i < 3; i++) {
        token[256 + i] = merged[i];
        n[256 + i] = strlen(merged[i]);
    }
    if (tokenizer_create(&t, token, n, 259, merges, 4, specials, 2, NULL))
        abort();
    char *json = tokenizer_to_json(t, length);
    if (!json)
        abort();
    tokenizer_free(t);
    return json;
}

static void check(const char *text, size_t size)
{
    struct tokenizer *t, *again;
    struct plm_status st = {0};
    size_t length;
    if (tokenizer_from_json(&t, text, size, "fuzz", &st)) {
        if (t || !st.code || !st.message[0])
            abort();
        return;
    }
    char *json = tokenizer_to_json(t, &length);
    if (!json || tokenizer_from_json(&again, json, length, "again", &st) ||
        tokenizer_vocab_size(again) != tokenizer_vocab_size(t) || tokenizer_n_merges(again) != tokenizer_n_merges(t))
        abort();
    free(json);
    tokenizer_free(again);
    tokenizer_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char *good;
    static size_t length;
    if (!good)
        good = make_json(&length);
    if (size == 0 || data[0] == '{') {
        check((const char *)data, size);
        return 0;
    }
    char *text = malloc(length);
    if (!text)
        return 0;
    memcpy(text, good, length);
    for (size_t i = 0; i + 3 <= size; i += 3)
        text[(size_t)(data[i] << 8 | data[i + 1]) % length] = (char)data[i + 2];
    check(text, length);
    free(text);
    return 0;
}
