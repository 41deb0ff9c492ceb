#include "data/bpe_merge.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#define FREE UINT64_MAX /* key of a free slot: no token has the id UINT32_MAX */

/* A pair of neighbouring tokens. */
struct pair {
    uint64_t key;    /* left << 32 | right */
    int64_t count;   /* occurrences in the text */
    uint32_t *words; /* (n_words) words that contained it when it arose; some may not any more */
    uint32_t n_words, capacity;
    int32_t changed; /* number of the merge that last raised count */
    bool merged;     /* it is in the list of merges */
};

struct candidate {
    int64_t count; /* when it was queued; the pair's own count may have become less since */
    uint64_t key;
};

struct merger {
    int32_t *symbols;  /* tokens of all words */
    size_t *start;     /* (n_words) first symbol of a word */
    uint32_t *length;  /* (n_words) its symbols */
    int64_t *count;    /* (n_words) its occurrences */
    uint32_t n_words;
    struct pair *pairs; /* (n_slots) open addressing, a power of two */
    size_t n_slots, n_pairs;
    struct candidate *heap; /* most frequent first, then lowest pair */
    size_t heap_length, heap_capacity;
    uint64_t *raised; /* (n_raised) pairs whose count the current merge raised */
    size_t n_raised, raised_capacity;
    int32_t *token_slots; /* tokens by their bytes, -1: free */
    size_t token_mask;
    size_t bytes_capacity;
    int32_t merge_number;
};

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static struct pair *find_slot(struct pair *pairs, size_t n_slots, uint64_t key)
{
    uint64_t h = key * 0x9E3779B97F4A7C15u;
    for (size_t i = (h ^ h >> 32) & (n_slots - 1);; i = (i + 1) & (n_slots - 1))
        if (pairs[i].key == key || pairs[i].key == FREE)
            return &pairs[i];
}

static int grow_pairs(struct merger *m, struct plm_status *st)
{
    size_t n = m->n_slots ? m->n_slots * 2 : 65536;
    struct pair *pairs = malloc(n * sizeof *pairs);
    if (!pairs)
        return status_no_memory(st, n * sizeof *pairs, "the table of pairs");
    for (size_t i = 0; i < n; i++)
        pairs[i].key = FREE;
    for (size_t i = 0; i < m->n_slots; i++)
        if (m->pairs[i].key != FREE)
            *find_slot(pairs, n, m->pairs[i].key) = m->pairs[i];
    free(m->pairs);
    m->pairs = pairs;
    m->n_slots = n;
    return PLM_OK;
}

/* `count` more of a pair, in `word`. */
static int raise_pair(struct merger *m, int32_t left, int32_t right, int64_t count, uint32_t word, struct plm_status *st)
{
    if (m->n_pairs * 2 >= m->n_slots) {
        int code = grow_pairs(m, st);
        if (code)
            return code;
    }
    struct pair *p = find_slot(m->pairs, m->n_slots, pair_key(left, right));
    if (p->key == FREE) {
        *p = (struct pair){.key = pair_key(left, right), .changed = -1};
        m->n_pairs++;
    }
    p->count += count;
    if (p->n_words == 0 || p->words[p->n_words - 1] != word) {
        if (p->n_words == p->capacity) {
            uint32_t capacity = p->capacity ? p->capacity * 2 : 2;
            uint32_t *words = realloc(p->words, capacity * sizeof *words);
            if (!words)
                return status_no_memory(st, capacity * sizeof *words, "the words of a pair");
            p->words = words;
            p->capacity = capacity;
        }
        p->words[p->n_words++] = word;
    }
    if (p->changed != m->merge_number) {
        p->changed = m->merge_number;
        if (m->n_raised == m->raised_capacity) {
            size_t capacity = m->raised_capacity * 2 + 1024;
            uint64_t *raised = realloc(m->raised, capacity * sizeof *raised);
            if (!raised)
                return status_no_memory(st, capacity * sizeof *raised, "the queue of pairs");
            m->raised = raised;
            m->raised_capacity = capacity;
        }
        m->raised[m->n_raised++] = p->key;
    }
    return PLM_OK;
}

static void lower_pair(struct merger *m, int32_t left, int32_t right, int64_t count)
{
    find_slot(m->pairs, m->n_slots, pair_key(left, right))->count -= count;
}

static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->count != b->count ? a->count > b->count : a->key < b->key;
}

static int push(struct merger *m, struct candidate c, struct plm_status *st)
{
    if (m->heap_length == m->heap_capacity) {
        size_t capacity = m->heap_capacity * 2 + 1024;
        struct candidate *heap = realloc(m->heap, capacity * sizeof *heap);
        if (!heap)
            return status_no_memory(st, capacity * sizeof *heap, "the queue of pairs");
        m->heap = heap;
        m->heap_capacity = capacity;
    }
    size_t i = m->heap_length++;
    for (; i > 0 && before(&c, &m->heap[(i - 1) / 2]); i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = c;
    return PLM_OK;
}

static struct candidate pop(struct merger *m)
{
    struct candidate top = m->heap[0], c = m->heap[--m->heap_length];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= m->heap_length)
            break;
        if (child + 1 < m->heap_length && before(&m->heap[child + 1], &m->heap[child]))
            child++;
        if (!before(&m->heap[child], &c))
            break;
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = c;
    return top;
}

static int queue_raised(struct merger *m, struct plm_status *st)
{
    int code = PLM_OK;
    for (size_t i = 0; i < m->n_raised && !code; i++) {
        const struct pair *p = find_slot(m->pairs, m->n_slots, m->raised[i]);
        if (p->count > 0)
            code = push(m, (struct candidate){p->count, p->key}, st);
    }
    m->n_raised = 0;
    return code;
}

static int load_words(struct merger *m, const struct word_table *words, const int32_t id_of_byte[256], struct plm_status *st)
{
    size_t used = 0;
    if (words->n_words >= UINT32_MAX)
        return status_set(st, PLM_ELIMIT, "%zu distinct words, the limit is %u: lower the memory for words", words->n_words,
                          UINT32_MAX - 1);
    m->symbols = malloc((words->used + 1) * sizeof *m->symbols);
    m->start = malloc((words->n_words + 1) * sizeof *m->start);
    m->length = malloc((words->n_words + 1) * sizeof *m->length);
    m->count = malloc((words->n_words + 1) * sizeof *m->count);
    if (!m->symbols || !m->start || !m->length || !m->count)
        return status_no_memory(st, words->used * 4 + words->n_words * 20, "the words to merge");
    for (size_t i = 0; i < words->n_slots; i++) {
        const struct word *w = &words->slots[i];
        if (w->count == 0)
            continue;
        uint32_t word = m->n_words++;
        m->start[word] = used;
        m->length[word] = w->length;
        m->count[word] = w->count;
        for (uint32_t k = 0; k < w->length; k++)
            m->symbols[used + k] = id_of_byte[(unsigned char)words->bytes[w->offset + k]];
        int code = PLM_OK;
        for (uint32_t k = 0; k + 1 < w->length && !code; k++)
            code = raise_pair(m, m->symbols[used + k], m->symbols[used + k + 1], w->count, word, st);
        if (code)
            return code;
        used += w->length;
    }
    return queue_raised(m, st);
}

/* Replace every (left, right) in a word and account for the pairs that go and come. */
static int merge_in_word(struct merger *m, uint32_t word, int32_t left, int32_t right, int32_t merged, struct plm_status *st)
{
    int32_t *s = m->symbols + m->start[word];
    uint32_t n = m->length[word], out = 0;
    int64_t count = m->count[word];
    int code = PLM_OK;
    for (uint32_t i = 0; i < n && !code;) {
        if (i + 1 == n || s[i] != left || s[i + 1] != right) {
            s[out++] = s[i++];
            continue;
        }
        lower_pair(m, left, right, count);
        if (out > 0) {
            lower_pair(m, s[out - 1], left, count);
            code = raise_pair(m, s[out - 1], merged, count, word, st);
        }
        if (i + 2 < n && !code) {
            lower_pair(m, right, s[i + 2], count);
            code = raise_pair(m, merged, s[i + 2], count, word, st);
        }
        s[out++] = merged;
        i += 2;
    }
    m->length[word] = out;
    return code;
}

static int32_t *token_slot(const struct merger *m, const struct bpe_merges *o, const char *bytes, size_t n)
{
    for (size_t i = XXH3_64bits(bytes, n) & m->token_mask;; i = (i + 1) & m->token_mask) {
        int32_t id = m->token_slots[i];
        if (id < 0 || (o->start[id + 1] - o->start[id] == n && !memcmp(o->bytes + o->start[id], bytes, n)))
            return &m->token_slots[i];
    }
}

/* The token a pair makes: a new one, unless another pair has made it before. */
static int join_tokens(struct merger *m, struct bpe_merges *o, int32_t left, int32_t right, int32_t *merged,
                       struct plm_status *st)
{
    size_t n_left = o->start[left + 1] - o->start[left], n_right = o->start[right + 1] - o->start[right];
    size_t used = o->start[o->n_tokens];
    if (m->bytes_capacity - used < n_left + n_right) {
        size_t capacity = m->bytes_capacity * 2 + n_left + n_right;
        char *bytes = realloc(o->bytes, capacity);
        if (!bytes)
            return status_no_memory(st, capacity, "the vocabulary");
        o->bytes = bytes;
        m->bytes_capacity = capacity;
    }
    memcpy(o->bytes + used, o->bytes + o->start[left], n_left);
    memcpy(o->bytes + used + n_left, o->bytes + o->start[right], n_right);
    int32_t *slot = token_slot(m, o, o->bytes + used, n_left + n_right);
    if (*slot < 0) {
        *slot = o->n_tokens++;
        o->start[o->n_tokens] = used + n_left + n_right;
    }
    *merged = *slot;
    return PLM_OK;
}

static int append_merge(struct bpe_merges *o, int32_t left, int32_t right, size_t *capacity, struct plm_status *st)
{
    if ((size_t)o->n_merges == *capacity) {
        size_t n = *capacity * 2 + 1024;
        int32_t(*merges)[2] = realloc(o->merges, n * sizeof *merges);
        if (!merges)
            return status_no_memory(st, n * sizeof *merges, "the merges");
        o->merges = merges;
        *capacity = n;
    }
    o->merges[o->n_merges][0] = left;
    o->merges[o->n_merges++][1] = right;
    return PLM_OK;
}

static int merge_all(struct merger *m, struct bpe_merges *o, int32_t n_tokens, int32_t max_token_length, int64_t min_count,
                     struct plm_status *st)
{
    size_t merges_capacity = 0;
    int code = PLM_OK;
    while (m->heap_length && o->n_tokens < n_tokens && !code) {
        struct candidate top = pop(m);
        struct pair *p = find_slot(m->pairs, m->n_slots, top.key);
        int32_t left = (int32_t)(top.key >> 32), right = (int32_t)(uint32_t)top.key, merged = 0;
        if (p->count != top.count) {
            if (p->count > 0 && p->count < top.count)
                code = push(m, (struct candidate){p->count, p->key}, st);
            continue;
        }
        if (top.count < min_count)
            break;
        if (max_token_length && o->start[left + 1] - o->start[left] + o->start[right + 1] - o->start[right] >
                                    (size_t)max_token_length)
            continue;
        code = join_tokens(m, o, left, right, &merged, st);
        /* A token made in two ways can bring a merged pair back: it keeps its place in the list. */
        if (!code && !p->merged)
            code = append_merge(o, left, right, &merges_capacity, st);
        uint32_t *words = p->words, n_words = p->n_words;
        p->merged = true;
        p->words = NULL;
        p->n_words = p->capacity = 0;
        m->merge_number++;
        for (uint32_t i = 0; i < n_words && !code; i++)
            code = merge_in_word(m, words[i], left, right, merged, st);
        free(words);
        if (!code)
            code = queue_raised(m, st);
    }
    return code;
}

int bpe_merge(struct bpe_merges *out, const struct word_table *words, const unsigned char alphabet[256], int32_t n_tokens,
              int32_t max_token_length, int64_t min_count, struct plm_status *st)
{
    struct merger m = {0};
    int32_t id_of_byte[256];
    size_t slots = 1024;
    *out = (struct bpe_merges){0};
    while (slots < (size_t)n_tokens * 2)
        slots *= 2;
    m.token_mask = slots - 1;
    m.token_slots = malloc(slots * sizeof *m.token_slots);
    m.bytes_capacity = 65536;
    out->bytes = malloc(m.bytes_capacity);
    out->start = malloc(((size_t)n_tokens + 257) * sizeof *out->start);
    int code = PLM_OK;
    if (!m.token_slots || !out->bytes || !out->start)
        code = status_no_memory(st, slots * 12, "the vocabulary");
    if (!code) {
        memset(m.token_slots, 0xff, slots * sizeof *m.token_slots);
        for (int i = 0; i < 256; i++) {
            id_of_byte[alphabet[i]] = i;
            out->bytes[i] = (char)alphabet[i];
            out->start[i] = (size_t)i;
            out->start[i + 1] = (size_t)i + 1;
            *token_slot(&m, out, out->bytes + i, 1) = i;
        }
        out->n_tokens = 256;
        code = load_words(&m, words, id_of_byte, st);
    }
    if (!code)
        code = merge_all(&m, out, n_tokens, max_token_length, min_count, st);
    for (size_t i = 0; i < m.n_slots; i++)
        if (m.pairs[i].key != FREE)
            free(m.pairs[i].words);
    free(m.pairs);
    free(m.symbols);
    free(m.start);
    free(m.length);
    free(m.count);
    free(m.heap);
    free(m.raised);
    free(m.token_slots);
    return code;
}

void bpe_merges_free(struct bpe_merges *m)
{
    free(m->bytes);
    free(m->start);
    free(m->merges);
    *m = (struct bpe_merges){0};
}
