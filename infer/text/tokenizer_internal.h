/* Layout of a tokenizer, shared by its construction, its JSON form and the encoder. */
#ifndef INFER_TEXT_TOKENIZER_INTERNAL_H
#define INFER_TEXT_TOKENIZER_INTERNAL_H

#include <string.h>

#include "infer/text/added_set.h"
#include "infer/text/tokenizer.h"

#define TOKENIZER_MAX_VOCAB (1 << 26) /* ids; far above any model, so that a corrupt id cannot ask for all memory */
#define TOKENIZER_MAX_ADDED 4096      /* special and other added tokens */
#define MERGE_NONE UINT32_MAX

enum {
    FLAG_PRESENT = 1,  /* the id has a token */
    FLAG_ORDINARY = 2, /* a word of the vocabulary, which merges make */
    FLAG_ADDED = 4,    /* found in the text before anything else */
    FLAG_SPECIAL = 8,  /* added, and not part of decoded text */
    FLAG_BYTE = 16,    /* called BYTE by a file */
    FLAG_UNKNOWN = 32, /* called UNKNOWN */
    FLAG_TRAITS = 6,   /* shift of ADDED_NORMALIZED and the bits above it */
};

/* Ordinary tokens by their bytes. */
struct token_index {
    int32_t *ids; /* -1: free */
    size_t mask;
};

struct unused_token {
    int32_t id;
    char *text;
    size_t length;
};

struct merge_entry {
    uint64_t key;   /* left << 32 | right */
    uint32_t rank;  /* MERGE_NONE: free */
    int32_t merged; /* the token they make */
};

struct tokenizer {
    char *bytes;           /* all tokens, one after the other, each followed by a NUL */
    size_t *start;         /* (n_vocab + 1) */
    uint16_t *flags;       /* (n_vocab), FLAG_* */
    int32_t n_vocab;       /* highest id + 1 */
    int32_t (*merges)[2];  /* (n_merges, 2), by rank */
    int32_t n_merges;
    struct merge_entry *merge_table; /* open addressing, merge_mask + 1 entries, at most half full */
    size_t merge_mask;
    int32_t byte_token[256];
    int32_t *added; /* (n_added), in the order given */
    int n_added;
    struct added_set *raw, *normalized; /* of these: those found in the text as given, and in normalised text */
    struct tokenizer_pipeline pipeline;
    struct token_index words;    /* with ignore_merges */
    struct unused_token *unused; /* (n_unused) */
    int n_unused;
    struct tokenizer_marks marks;
};

static inline size_t token_length(const struct tokenizer *t, int32_t id)
{
    return t->start[id + 1] - t->start[id] - 1;
}

static inline uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static inline size_t hash_u64(uint64_t x)
{
    x *= 0x9E3779B97F4A7C15u;
    return (size_t)(x ^ x >> 32);
}

static inline uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = n * 0x9E3779B97F4A7C15u, word;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&word, s, 8);
        h = (h ^ word) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    word = 0;
    memcpy(&word, s, n);
    h = (h ^ word) * 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

/* The ordinary token with these bytes, -1: none; with ignore_merges only. */
int32_t tokenizer_word(const struct tokenizer *t, const char *bytes, size_t n);

/* The merge of a pair of tokens; NULL when they do not merge. */
static inline const struct merge_entry *merge_find(const struct tokenizer *t, int32_t left, int32_t right)
{
    uint64_t key = pair_key(left, right);
    for (size_t i = hash_u64(key) & t->merge_mask;; i = (i + 1) & t->merge_mask) {
        const struct merge_entry *e = &t->merge_table[i];
        if (e->key == key && e->rank != MERGE_NONE)
            return e;
        if (e->rank == MERGE_NONE)
            return NULL;
    }
}

#endif
