#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/text/random_vocab.h"

#define MAX_TOKENS 1024
#define MAX_LENGTH 64

struct tokenizer *random_vocab(struct random_source *r, const char *letters, int n_merges)
{
    static char bytes[MAX_TOKENS][MAX_LENGTH];
    const char *token[MAX_TOKENS];
    size_t length[MAX_TOKENS];
    int32_t merges[MAX_TOKENS][2], usable[MAX_TOKENS], n_tokens = 256, n_usable = 0;
    assert_true(n_merges + 256 + 3 <= MAX_TOKENS);
    for (int i = 0; i < 256; i++) {
        bytes[i][0] = (char)i;
        length[i] = 1;
    }
    for (const char *c = letters; *c; c++)
        usable[n_usable++] = (unsigned char)*c;
    for (int m = 0; m < n_merges;) {
        int32_t left = usable[random_below(r, (uint64_t)n_usable)], right = usable[random_below(r, (uint64_t)n_usable)];
        size_t n = length[left] + length[right];
        if (n > MAX_LENGTH / 2)
            continue;
        int known = 0;
        for (int k = 0; k < m; k++)
            known |= merges[k][0] == left && merges[k][1] == right;
        if (known)
            continue;
        memcpy(bytes[n_tokens], bytes[left], length[left]);
        memcpy(bytes[n_tokens] + length[left], bytes[right], length[right]);
        length[n_tokens] = n;
        int32_t same = 0;
        while (length[same] != n || memcmp(bytes[same], bytes[n_tokens], n))
            same++;
        if (same == n_tokens)
            usable[n_usable++] = n_tokens++;
        /* insert at a random rank */
        int at = (int)random_below(r, (uint64_t)m + 1);
        memmove(merges[at + 1], merges[at], (size_t)(m - at) * sizeof merges[0]);
        merges[at][0] = left;
        merges[at][1] = right;
        m++;
    }
    for (int i = 0; i < n_tokens; i++)
        token[i] = bytes[i];
    const struct special_token specials[] = {
        {"<|endoftext|>", n_tokens}, {"<|im_start|>", n_tokens + 1}, {"<|im_end|>", n_tokens + 2}};
    struct plm_status st = {0};
    struct tokenizer *t;
    if (tokenizer_create(&t, token, length, n_tokens, (const int32_t(*)[2])merges, n_merges, specials, 3, &st))
        fail_msg("%s", st.message);
    return t;
}

int32_t random_vocab_join(const struct tokenizer *t, int32_t left, int32_t right)
{
    char joined[MAX_LENGTH];
    size_t n_left, n_right, n;
    const char *a = tokenizer_token(t, left, &n_left, NULL), *b = tokenizer_token(t, right, &n_right, NULL);
    memcpy(joined, a, n_left);
    memcpy(joined + n_left, b, n_right);
    for (int32_t id = 0; id < tokenizer_vocab_size(t); id++) {
        const char *bytes = tokenizer_token(t, id, &n, NULL);
        if (n == n_left + n_right && !memcmp(bytes, joined, n))
            return id;
    }
    fail_msg("no token for a merge");
    return -1;
}
