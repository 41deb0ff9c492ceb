#include <stdlib.h>

#include "infer/text/nfc.h"
#include "infer/text/splitter.h"
#include "infer/text/tokenizer_internal.h"

#define CACHE_ENTRIES 32768 /* of 64 bytes: 2 MiB, about a second-level cache */
#define CACHE_PROBES 4
#define CACHE_WORD 23 /* longest word with an entry, bytes */
#define CACHE_IDS 9   /* most tokens of a word with an entry */
#define SHORT_WORD 48 /* bytes up to which scanning for the lowest rank beats a heap */

/* A word and its tokens: one cache line. */
struct cache_entry {
    uint64_t key[3]; /* the word's bytes, zero-padded; the last byte is its length, 0: free */
    int32_t n;
    int32_t ids[CACHE_IDS];
};

struct encoder {
    const struct tokenizer *t;
    struct cache_entry *cache;
    struct nfc nfc;
    /* a long word: doubly linked symbols, of which the first `capacity` entries of each array are usable */
    int32_t *symbol;
    uint32_t *rank; /* of the pair (i, next[i]); MERGE_NONE: does not merge, or i is gone */
    uint32_t *next, *previous;
    uint64_t *heap; /* (2 * capacity), rank << 32 | position: lowest rank first, leftmost first */
    size_t capacity, heap_length;
};

int encoder_create(struct encoder **out, const struct tokenizer *t, struct plm_status *st)
{
    struct encoder *e = *out = calloc(1, sizeof *e);
    if (!e)
        return status_no_memory(st, sizeof *e, "an encoder");
    e->t = t;
    e->cache = aligned_alloc(64, CACHE_ENTRIES * sizeof *e->cache);
    if (!e->cache) {
        encoder_free(e);
        *out = NULL;
        return status_no_memory(st, CACHE_ENTRIES * sizeof *e->cache, "an encoder's word cache");
    }
    memset(e->cache, 0, CACHE_ENTRIES * sizeof *e->cache);
    return PLM_OK;
}

void encoder_free(struct encoder *e)
{
    if (!e)
        return;
    free(e->cache);
    nfc_free(&e->nfc);
    free(e->symbol);
    free(e->rank);
    free(e->next);
    free(e->previous);
    free(e->heap);
    free(e);
}

static int list_reserve(struct token_list *ids, size_t more, struct plm_status *st)
{
    if (ids->capacity - ids->length >= more)
        return PLM_OK;
    size_t capacity = ids->capacity * 2 > ids->length + more ? ids->capacity * 2 : ids->length + more + 256;
    int32_t *data = capacity <= SIZE_MAX / sizeof *data ? realloc(ids->data, capacity * sizeof *data) : NULL;
    if (!data)
        return status_no_memory(st, capacity * sizeof *data, "a list of tokens");
    ids->data = data;
    ids->capacity = capacity;
    return PLM_OK;
}

/* BPE of at most SHORT_WORD bytes; writes the tokens to out and returns their number. */
static size_t merge_short(const struct tokenizer *t, const unsigned char *word, size_t n, int32_t *out)
{
    uint32_t rank[SHORT_WORD];
    int32_t merged[SHORT_WORD];
    for (size_t i = 0; i < n; i++)
        out[i] = t->byte_token[word[i]];
    for (size_t i = 0; i + 1 < n; i++) {
        const struct merge_entry *m = merge_find(t, out[i], out[i + 1]);
        rank[i] = m ? m->rank : MERGE_NONE;
        merged[i] = m ? m->merged : -1;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            best = rank[i] < rank[best] ? i : best;
        if (rank[best] == MERGE_NONE)
            break;
        out[best] = merged[best];
        n--;
        for (size_t i = best + 1; i < n; i++) {
            out[i] = out[i + 1];
            rank[i - 1] = rank[i];
            merged[i - 1] = merged[i];
        }
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const struct merge_entry *m = merge_find(t, out[i], out[i + 1]);
            rank[i] = m ? m->rank : MERGE_NONE;
            merged[i] = m ? m->merged : -1;
        }
    }
    return n;
}

static int reserve_long(struct encoder *e, size_t n, struct plm_status *st)
{
    if (n <= e->capacity)
        return PLM_OK;
    if (n >= UINT32_MAX / 2)
        return status_set(st, PLM_ELIMIT, "a word of %zu bytes without a place to split it: the limit is %u", n,
                          UINT32_MAX / 2);
    e->capacity = 0;
    free(e->symbol), free(e->rank), free(e->next), free(e->previous), free(e->heap);
    e->symbol = malloc(n * sizeof *e->symbol);
    e->rank = malloc(n * sizeof *e->rank);
    e->next = malloc(n * sizeof *e->next);
    e->previous = malloc(n * sizeof *e->previous);
    e->heap = malloc(2 * n * sizeof *e->heap);
    if (!e->symbol || !e->rank || !e->next || !e->previous || !e->heap)
        return status_no_memory(st, n * 32, "a long word");
    e->capacity = n;
    return PLM_OK;
}

/* The heap has four children per node: fewer levels, and the children share a cache line. */
static void heap_push(struct encoder *e, uint64_t value)
{
    size_t i = e->heap_length++;
    while (i > 0 && e->heap[(i - 1) / 4] > value) {
        e->heap[i] = e->heap[(i - 1) / 4];
        i = (i - 1) / 4;
    }
    e->heap[i] = value;
}

static uint64_t heap_pop(struct encoder *e)
{
    uint64_t top = e->heap[0], value = e->heap[--e->heap_length];
    size_t i = 0, n = e->heap_length;
    for (;;) {
        size_t first = 4 * i + 1, best = first;
        if (first >= n)
            break;
        for (size_t k = first + 1; k < first + 4 && k < n; k++)
            best = e->heap[k] < e->heap[best] ? k : best;
        if (e->heap[best] >= value)
            break;
        e->heap[i] = e->heap[best];
        i = best;
    }
    if (n)
        e->heap[i] = value;
    return top;
}

/* Look up the pair that begins at position i and queue it. */
static void queue_pair(struct encoder *e, uint32_t i, size_t n)
{
    const struct merge_entry *m = e->next[i] < n ? merge_find(e->t, e->symbol[i], e->symbol[e->next[i]]) : NULL;
    e->rank[i] = m ? m->rank : MERGE_NONE;
    if (m)
        heap_push(e, (uint64_t)m->rank << 32 | i);
}

/* BPE of a word of any length, O(n log n): the queue holds every pair that merges, and pairs that have changed since. */
static int merge_long(struct encoder *e, const unsigned char *word, size_t n, struct token_list *ids, struct plm_status *st)
{
    int code = reserve_long(e, n, st);
    if (code)
        return code;
    e->heap_length = 0;
    for (size_t i = 0; i < n; i++) {
        e->symbol[i] = e->t->byte_token[word[i]];
        e->next[i] = (uint32_t)i + 1;
        e->previous[i] = (uint32_t)i - 1;
    }
    for (size_t i = 0; i < n; i++)
        queue_pair(e, (uint32_t)i, n);
    while (e->heap_length) {
        uint64_t top = heap_pop(e);
        uint32_t i = (uint32_t)top;
        if (e->rank[i] != top >> 32)
            continue;
        uint32_t gone = e->next[i];
        e->symbol[i] = merge_find(e->t, e->symbol[i], e->symbol[gone])->merged;
        e->rank[gone] = MERGE_NONE;
        e->next[i] = e->next[gone];
        if (e->next[i] < n)
            e->previous[e->next[i]] = i;
        queue_pair(e, i, n);
        if (i > 0)
            queue_pair(e, e->previous[i], n);
    }
    size_t count = 0;
    for (size_t i = 0; i < n; i = e->next[i])
        count++;
    code = list_reserve(ids, count, st);
    if (code)
        return code;
    for (size_t i = 0; i < n; i = e->next[i])
        ids->data[ids->length++] = e->symbol[i];
    return PLM_OK;
}

static inline uint64_t low_bytes(uint64_t x, ptrdiff_t n)
{
    return n <= 0 ? 0 : n >= 8 ? x : x & (UINT64_MAX >> (64 - 8 * n));
}

/* The first `length` <= CACHE_WORD bytes of `text`, of which `readable` may be read. */
static inline void word_key(const char *text, size_t length, size_t readable, uint64_t key[3])
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (readable >= 24) {
        memcpy(key, text, 24);
        key[0] = low_bytes(key[0], (ptrdiff_t)length);
        key[1] = low_bytes(key[1], (ptrdiff_t)length - 8);
        key[2] = low_bytes(key[2], (ptrdiff_t)length - 16) | (uint64_t)length << 56;
        return;
    }
#else
    (void)readable;
#endif
    unsigned char bytes[24] = {0};
    memcpy(bytes, text, length);
    bytes[23] = (unsigned char)length;
    memcpy(key, bytes, 24);
}

/* Append the tokens of one pre-token. ids has room for CACHE_IDS and SHORT_WORD more. */
static int encode_word(struct encoder *e, const char *word, size_t length, size_t readable, struct token_list *ids,
                       struct plm_status *st)
{
    if (length > CACHE_WORD) {
        if (length > SHORT_WORD)
            return merge_long(e, (const unsigned char *)word, length, ids, st);
        ids->length += merge_short(e->t, (const unsigned char *)word, length, ids->data + ids->length);
        return PLM_OK;
    }
    uint64_t key[3];
    word_key(word, length, readable, key);
    uint64_t hash = (key[0] ^ key[1] * 0xD6E8FEB86659FD93u ^ key[2] * 0xC2B2AE3D27D4EB4Fu) * 0x9E3779B97F4A7C15u;
    size_t home = (hash ^ hash >> 29) * 0xD6E8FEB86659FD93u >> 49;
    struct cache_entry *entry = &e->cache[home];
    for (size_t probe = 0; probe < CACHE_PROBES; probe++) {
        struct cache_entry *c = &e->cache[(home + probe) % CACHE_ENTRIES];
        if (c->key[0] == key[0] && c->key[1] == key[1] && c->key[2] == key[2]) {
            memcpy(ids->data + ids->length, c->ids, sizeof c->ids);
            ids->length += (size_t)c->n;
            return PLM_OK;
        }
        if (c->key[2] == 0) {
            entry = c;
            break;
        }
    }
    int32_t *out = ids->data + ids->length;
    size_t n = merge_short(e->t, (const unsigned char *)word, length, out);
    ids->length += n;
    if (n <= CACHE_IDS) {
        memcpy(entry->key, key, sizeof key);
        entry->n = (int32_t)n;
        memcpy(entry->ids, out, n * sizeof *out);
    }
    return PLM_OK;
}

static int append_id(struct token_list *ids, int32_t id, struct plm_status *st)
{
    int code = list_reserve(ids, 1, st);
    if (!code)
        ids->data[ids->length++] = id;
    return code;
}

/* Normalised text without added tokens. */
static int encode_words(struct encoder *e, const char *text, size_t length, struct token_list *ids,
                        struct plm_status *st)
{
    int code = PLM_OK;
    for (size_t i = 0; i < length && !code;) {
        code = list_reserve(ids, SHORT_WORD + CACHE_IDS, st);
        if (code)
            break;
        const size_t end = splitter_next(text, length, i);
        const int32_t word = e->t->pipeline.ignore_merges ? tokenizer_word(e->t, text + i, end - i) : -1;
        code = word >= 0 ? append_id(ids, word, st) : encode_word(e, text + i, end - i, length - i, ids, st);
        i = end;
    }
    return code;
}

/* Text in which the tokens of `set` stand for themselves; `between` takes what lies between them. */
static int
encode_between(struct encoder *e, const struct added_set *set, const char *text, size_t length, bool parse_special,
               int (*between)(struct encoder *, const char *, size_t, bool, struct token_list *, struct plm_status *),
               struct token_list *ids, struct plm_status *st)
{
    struct added_walk w = {.text = text, .length = length, .parse_special = parse_special};
    int code = PLM_OK;
    while (!code && added_set_matters(set, parse_special) && added_set_next(set, &w)) {
        if (w.taken < w.begin)
            code = between(e, text + w.taken, w.begin - w.taken, parse_special, ids, st);
        if (!code)
            code = append_id(ids, w.id, st);
        w.taken = w.end;
    }
    return !code && w.taken < length ? between(e, text + w.taken, length - w.taken, parse_special, ids, st) : code;
}

static int encode_rest(struct encoder *e, const char *text, size_t length, bool parse_special, struct token_list *ids,
                       struct plm_status *st)
{
    (void)parse_special;
    return encode_words(e, text, length, ids, st);
}

/* Text without the added tokens that are found before normalisation. */
static int encode_piece(struct encoder *e, const char *text, size_t length, bool parse_special, struct token_list *ids,
                        struct plm_status *st)
{
    const int code = e->t->pipeline.no_nfc ? PLM_OK : nfc_normalize(&e->nfc, text, length, &text, &length, st);
    return code ? code : encode_between(e, e->t->normalized, text, length, parse_special, encode_rest, ids, st);
}

int encoder_encode(struct encoder *e, const char *text, size_t length, bool parse_special, struct token_list *ids,
                   struct plm_status *st)
{
    return encode_between(e, e->t->raw, text, length, parse_special, encode_piece, ids, st);
}

int encoder_begin(struct encoder *e, struct token_list *ids, struct plm_status *st)
{
    const struct tokenizer_marks *m = &e->t->marks;
    return m->add_bos && ids->length == 0 ? append_id(ids, m->bos, st) : PLM_OK;
}

int encoder_encode_whole(struct encoder *e, const char *text, size_t length, bool parse_special, struct token_list *ids,
                         struct plm_status *st)
{
    const struct tokenizer_marks *m = &e->t->marks;
    int code = encoder_begin(e, ids, st);
    const size_t first = ids->length;
    if (!code)
        code = encoder_encode(e, text, length, parse_special, ids, st);
    if (!code && m->add_bos && first > 0 && ids->length > first && ids->data[first - 1] == m->bos &&
        ids->data[first] == m->bos)
        memmove(ids->data + first, ids->data + first + 1, (--ids->length - first) * sizeof *ids->data);
    if (!code && m->add_eos && (ids->length == first || ids->data[ids->length - 1] != m->eos))
        code = append_id(ids, m->eos, st);
    return code;
}
