#include "data/tokenizer_train.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "data/bpe_merge.h"
#include "data/word_count.h"
#include "infer/base/log.h"
#include "infer/text/nfc.h"
#include "infer/text/splitter.h"

#define BLOCK (16u << 20)  /* bytes counted between two looks at memory: fixed, or pruning would depend on the threads */
#define PIECE (256u << 10) /* bytes one thread takes at a time */
#define MAX_VOCAB (1 << 24)

struct piece {
    const char *text;
    size_t length;
};

struct counter { /* of one thread */
    struct word_table table;
    struct nfc nfc;
    int64_t words, long_words;
    struct plm_status status;
};

struct tokenizer_trainer {
    struct tokenizer_train_options options;
    const char **specials; /* (n_specials), copies */
    struct tokenizer_train_statistics statistics;
    struct word_table table;
    struct counter *counters; /* (pool_size) */
    char *pending;            /* (BLOCK) documents that wait for a full block */
    size_t pending_length;
    struct piece *pieces; /* of the block being filled */
    size_t n_pieces, pieces_capacity;
    atomic_bool failed;
};

static const char *const default_specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};

static int check_options(const struct tokenizer_train_options *o, struct plm_status *st)
{
    if (o->n_specials < 0 || o->n_specials > 4096)
        return status_set(st, PLM_EINVAL, "%d special tokens, expected 0 to 4096", o->n_specials);
    if (o->vocab_size < 256 + o->n_specials || o->vocab_size > MAX_VOCAB)
        return status_set(st, PLM_EINVAL, "vocabulary of %d tokens, expected %d (256 bytes and %d special tokens) to %d",
                          o->vocab_size, 256 + o->n_specials, o->n_specials, MAX_VOCAB);
    if (o->max_token_length < 0 || o->max_token_length == 1)
        return status_set(st, PLM_EINVAL, "longest token of %d bytes, expected 2 or more, or 0 for no limit",
                          o->max_token_length);
    if (o->min_count < 0)
        return status_set(st, PLM_EINVAL, "smallest count of a merge is %lld, expected 0 or more", (long long)o->min_count);
    return PLM_OK;
}

int tokenizer_trainer_create(struct tokenizer_trainer **out, const struct tokenizer_train_options *options,
                             struct plm_status *st)
{
    struct tokenizer_train_options o = *options;
    *out = NULL;
    if (!o.specials) {
        o.specials = default_specials;
        o.n_specials = 3;
    }
    o.min_count = o.min_count ? o.min_count : 2;
    o.word_memory = o.word_memory ? o.word_memory : (size_t)256 << 20;
    int code = check_options(&o, st);
    if (code)
        return code;
    struct tokenizer_trainer *t = calloc(1, sizeof *t);
    if (!t)
        return status_no_memory(st, sizeof *t, "a tokenizer trainer");
    t->options = o;
    t->specials = calloc((size_t)o.n_specials + 1, sizeof *t->specials);
    t->counters = calloc((size_t)pool_size(o.pool), sizeof *t->counters);
    t->pending = malloc(BLOCK);
    bool ok = t->specials && t->counters && t->pending;
    for (int i = 0; i < o.n_specials && ok; i++)
        ok = (t->specials[i] = strdup(o.specials[i])) != NULL;
    if (!ok) {
        tokenizer_trainer_free(t);
        return status_no_memory(st, BLOCK, "a tokenizer trainer");
    }
    *out = t;
    return PLM_OK;
}

void tokenizer_trainer_free(struct tokenizer_trainer *t)
{
    if (!t)
        return;
    for (int i = 0; t->specials && i < t->options.n_specials; i++)
        free((char *)t->specials[i]);
    for (int i = 0; t->counters && i < pool_size(t->options.pool); i++) {
        word_table_free(&t->counters[i].table);
        nfc_free(&t->counters[i].nfc);
    }
    word_table_free(&t->table);
    free(t->specials);
    free(t->counters);
    free(t->pending);
    free(t->pieces);
    free(t);
}

static int count_piece(struct counter *c, const struct piece *p)
{
    const char *text;
    size_t length;
    int code = nfc_normalize(&c->nfc, p->text, p->length, &text, &length, &c->status);
    for (size_t i = 0; i < length && !code;) {
        size_t end = splitter_next(text, length, i);
        if (end - i > TOKENIZER_TRAIN_MAX_WORD) {
            c->long_words++;
        } else {
            code = word_table_add(&c->table, text + i, (uint32_t)(end - i), 1, &c->status);
            c->words++;
        }
        i = end;
    }
    return code;
}

static void count_pieces(void *ctx, int64_t begin, int64_t end, int worker)
{
    struct tokenizer_trainer *t = ctx;
    for (int64_t i = begin; i < end && !atomic_load_explicit(&t->failed, memory_order_relaxed); i++)
        if (count_piece(&t->counters[worker], &t->pieces[i]))
            atomic_store(&t->failed, true);
}

/* Count the pieces of a block and add them up. */
static int count_block(struct tokenizer_trainer *t, struct plm_status *st)
{
    pool_for(t->options.pool, (int64_t)t->n_pieces, 1, count_pieces, t);
    t->n_pieces = 0;
    t->pending_length = 0;
    int code = PLM_OK;
    for (int i = 0; i < pool_size(t->options.pool) && !code; i++) {
        struct counter *c = &t->counters[i];
        code = c->status.code ? status_set(st, c->status.code, "%s", c->status.message)
                              : word_table_merge(&t->table, &c->table, st);
        t->statistics.words += c->words;
        t->statistics.long_words += c->long_words;
        c->words = c->long_words = 0;
        word_table_clear(&c->table);
    }
    if (!code && word_table_cost(&t->table) > t->options.word_memory)
        code = word_table_prune(&t->table, t->options.word_memory / 2, &t->statistics.dropped_words,
                                &t->statistics.dropped_count, st);
    return code;
}

static int add_piece(struct tokenizer_trainer *t, const char *text, size_t length, struct plm_status *st)
{
    if (t->n_pieces == t->pieces_capacity) {
        size_t capacity = t->pieces_capacity * 2 + 256;
        struct piece *pieces = realloc(t->pieces, capacity * sizeof *pieces);
        if (!pieces)
            return status_no_memory(st, capacity * sizeof *pieces, "the pieces of a block");
        t->pieces = pieces;
        t->pieces_capacity = capacity;
    }
    t->pieces[t->n_pieces++] = (struct piece){text, length};
    return PLM_OK;
}

/* Where a document may be cut without changing its words: at least `least` bytes in, after a newline, before a visible ASCII
 * character. Its length when there is no such place. */
static size_t find_cut(const char *text, size_t length, size_t least)
{
    while (least < length) {
        const char *newline = memchr(text + least, '\n', length - least);
        if (!newline || newline + 1 == text + length)
            return length;
        if (newline[1] > ' ' && newline[1] < 127)
            return (size_t)(newline + 1 - text);
        least = (size_t)(newline + 1 - text);
    }
    return length;
}

int tokenizer_trainer_feed(struct tokenizer_trainer *t, const char *text, size_t length, struct plm_status *st)
{
    t->statistics.documents++;
    t->statistics.bytes += (int64_t)length;
    int code = PLM_OK;
    while (length && !code) {
        size_t n = find_cut(text, length, PIECE);
        if (n > BLOCK - t->pending_length)
            code = count_block(t, st);
        if (!code && n > BLOCK) {
            code = add_piece(t, text, n, st);
            if (!code)
                code = count_block(t, st);
        } else if (!code) {
            memcpy(t->pending + t->pending_length, text, n);
            code = add_piece(t, t->pending + t->pending_length, n, st);
            t->pending_length += n;
        }
        text += n;
        length -= n;
    }
    return code;
}

/* Bytes in the order of their printable characters: those that stand for themselves are below U+0100. */
static void order_alphabet(unsigned char alphabet[256])
{
    int n = 0;
    for (int shifted = 0; shifted < 2; shifted++)
        for (int b = 0; b < 256; b++) {
            char byte = (char)b, printable[4];
            tokenizer_printable(&byte, 1, printable, sizeof printable);
            if (((unsigned char)printable[0] >= 0xC4) == shifted)
                alphabet[n++] = (unsigned char)b;
        }
}

static int make_tokenizer(struct tokenizer_trainer *t, const struct bpe_merges *m, struct tokenizer **out,
                          struct plm_status *st)
{
    int n_specials = t->options.n_specials;
    const char **bytes = calloc((size_t)m->n_tokens, sizeof *bytes);
    size_t *length = calloc((size_t)m->n_tokens, sizeof *length);
    struct special_token *specials = calloc((size_t)n_specials + 1, sizeof *specials);
    int code = bytes && length && specials ? PLM_OK : status_no_memory(st, (size_t)m->n_tokens * 16, "the vocabulary");
    for (int32_t i = 0; i < m->n_tokens && !code; i++) {
        bytes[i] = m->bytes + m->start[i];
        length[i] = m->start[i + 1] - m->start[i];
    }
    for (int i = 0; i < n_specials && !code; i++)
        specials[i] = (struct special_token){t->specials[i], m->n_tokens + i};
    if (!code)
        code = tokenizer_create(out, bytes, length, m->n_tokens, (const int32_t(*)[2])m->merges, m->n_merges, specials,
                                n_specials, st);
    free(bytes);
    free(length);
    free(specials);
    return code;
}

int tokenizer_trainer_finish(struct tokenizer_trainer *t, struct tokenizer **out, struct plm_status *st)
{
    unsigned char alphabet[256];
    struct bpe_merges merges = {0};
    struct tokenizer_train_statistics *s = &t->statistics;
    int32_t n_ordinary = t->options.vocab_size - t->options.n_specials;
    *out = NULL;
    int code = count_block(t, st);
    if (!code && t->table.n_words == 0)
        code = status_set(st, PLM_EINVAL, "no text to train a tokenizer on: %lld documents, %lld bytes",
                          (long long)s->documents, (long long)s->bytes);
    if (code)
        return code;
    s->distinct_words = (int64_t)t->table.n_words;
    order_alphabet(alphabet);
    code = bpe_merge(&merges, &t->table, alphabet, n_ordinary, t->options.max_token_length, t->options.min_count, st);
    if (!code)
        code = make_tokenizer(t, &merges, out, st);
    if (!code) {
        s->merges = merges.n_merges;
        s->vocab_size = tokenizer_vocab_size(*out);
        if (s->long_words)
            log_warn("tokenizer: %lld pre-tokens above %d bytes were not counted", (long long)s->long_words,
                     TOKENIZER_TRAIN_MAX_WORD);
        if (s->dropped_words)
            log_warn("tokenizer: %lld rare words (%lld occurrences) were dropped to stay within %zu MiB",
                     (long long)s->dropped_words, (long long)s->dropped_count, t->options.word_memory >> 20);
        if (merges.n_tokens < n_ordinary)
            log_warn("tokenizer: the text gives %d tokens of the %d asked for: no other pair occurs %lld times; use more text "
                     "or a smaller vocabulary",
                     s->vocab_size, t->options.vocab_size, (long long)t->options.min_count);
    }
    bpe_merges_free(&merges);
    return code;
}

const struct tokenizer_train_statistics *tokenizer_trainer_statistics(const struct tokenizer_trainer *t)
{
    return &t->statistics;
}
