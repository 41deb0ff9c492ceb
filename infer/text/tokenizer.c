#include "infer/text/tokenizer.h"

#include <stdlib.h>

#include "infer/text/tokenizer_internal.h"
#include "infer/text/utf8.h"

static int32_t *index_slot(const struct token_index *index, const struct tokenizer *t, const char *a, size_t n_a,
                           const char *b, size_t n_b, char *joined)
{
    memcpy(joined, a, n_a);
    if (n_b)
        memcpy(joined + n_a, b, n_b);
    size_t n = n_a + n_b;
    for (size_t i = hash_bytes(joined, n) & index->mask;; i = (i + 1) & index->mask) {
        int32_t id = index->ids[i];
        if (id < 0 || (token_length(t, id) == n && !memcmp(t->bytes + t->start[id], joined, n)))
            return &index->ids[i];
    }
}

/* Text of a token for a message: at most 60 bytes, control characters and bytes above ASCII as \xNN. */
static const char *show(const char *bytes, size_t n, char out[256])
{
    size_t used = 0;
    for (size_t i = 0; i < n && i < 60; i++) {
        unsigned char c = (unsigned char)bytes[i];
        static const char hex[] = "0123456789abcdef";
        if (c >= 32 && c < 127) {
            out[used++] = (char)c;
        } else {
            out[used++] = '\\', out[used++] = 'x', out[used++] = hex[c >> 4], out[used++] = hex[c & 15];
        }
    }
    out[used] = 0;
    return out;
}

static int check_specials(const struct special_token *specials, int n_specials, struct plm_status *st)
{
    for (int i = 0; i < n_specials; i++) {
        if (!specials[i].text || !specials[i].text[0])
            return status_set(st, PLM_EFORMAT, "tokenizer: special token %d (id %d) has no text", i, specials[i].id);
        if (specials[i].id < 0 || specials[i].id >= TOKENIZER_MAX_VOCAB)
            return status_set(st, PLM_EFORMAT, "tokenizer: special token '%.80s' has id %d, expected 0 to %d",
                              specials[i].text, specials[i].id, TOKENIZER_MAX_VOCAB - 1);
        for (int j = 0; j < i; j++) {
            if (specials[j].id == specials[i].id)
                return status_set(st, PLM_EFORMAT, "tokenizer: special tokens '%.80s' and '%.80s' have the same id %d",
                                  specials[j].text, specials[i].text, specials[i].id);
            if (!strcmp(specials[j].text, specials[i].text))
                return status_set(st, PLM_EFORMAT, "tokenizer: special token '%.80s' is given twice, as %d and %d",
                                  specials[i].text, specials[j].id, specials[i].id);
        }
    }
    return PLM_OK;
}

static int copy_tokens(struct tokenizer *t, const char *const *bytes, const size_t *length, int32_t n_tokens,
                       const struct special_token *specials, int n_specials, struct plm_status *st)
{
    const char **text = calloc((size_t)t->n_vocab + 1, sizeof *text);
    size_t *n = calloc((size_t)t->n_vocab + 1, sizeof *n);
    t->start = calloc((size_t)t->n_vocab + 1, sizeof *t->start);
    t->flags = calloc((size_t)t->n_vocab + 1, sizeof *t->flags);
    int code = PLM_OK;
    if (!text || !n || !t->start || !t->flags) {
        code = status_no_memory(st, (size_t)t->n_vocab * 32, "a tokenizer's vocabulary");
        goto done;
    }
    for (int32_t i = 0; i < n_tokens; i++)
        if (bytes[i]) {
            text[i] = bytes[i];
            n[i] = length[i];
            t->flags[i] = FLAG_PRESENT | FLAG_ORDINARY;
        }
    for (int i = 0; i < n_specials; i++) {
        int32_t id = specials[i].id;
        const size_t bytes_here = strlen(specials[i].text);
        const bool word = text[id] && n[id] == bytes_here && !memcmp(text[id], specials[i].text, bytes_here);
        text[id] = specials[i].text;
        n[id] = bytes_here;
        t->flags[id] =
            (uint16_t)(FLAG_PRESENT | FLAG_ADDED | (word ? FLAG_ORDINARY : 0) |
                       (specials[i].traits & ADDED_PLAIN ? 0 : FLAG_SPECIAL) | specials[i].traits >> 1 << FLAG_TRAITS);
    }
    size_t total = 0;
    for (int32_t i = 0; i < t->n_vocab; i++) {
        t->start[i] = total;
        if (n[i] > SIZE_MAX / 2 - total) {
            code = status_no_memory(st, SIZE_MAX, "a tokenizer's vocabulary");
            goto done;
        }
        if (t->flags[i] && n[i] == 0) {
            code = status_set(st, PLM_EFORMAT, "tokenizer: token %d is empty", i);
            goto done;
        }
        total += n[i] + 1;
    }
    t->start[t->n_vocab] = total;
    t->bytes = calloc(total + 1, 1);
    if (!t->bytes) {
        code = status_no_memory(st, total, "a tokenizer's vocabulary");
        goto done;
    }
    for (int32_t i = 0; i < t->n_vocab; i++)
        if (n[i])
            memcpy(t->bytes + t->start[i], text[i], n[i]);
done:
    free(text);
    free(n);
    return code;
}

int32_t tokenizer_word(const struct tokenizer *t, const char *bytes, size_t n)
{
    for (size_t i = hash_bytes(bytes, n) & t->words.mask;; i = (i + 1) & t->words.mask) {
        const int32_t id = t->words.ids[i];
        if (id < 0 || (token_length(t, id) == n && !memcmp(t->bytes + t->start[id], bytes, n)))
            return id;
    }
}

/* Fill the index, find the 256 byte tokens. */
static int index_tokens(struct tokenizer *t, struct token_index *index, char *joined, struct plm_status *st)
{
    char shown[256];
    for (int b = 0; b < 256; b++)
        t->byte_token[b] = -1;
    for (int32_t id = 0; id < t->n_vocab; id++) {
        if (!(t->flags[id] & FLAG_ORDINARY))
            continue;
        const char *bytes = t->bytes + t->start[id];
        size_t n = token_length(t, id);
        int32_t *slot = index_slot(index, t, bytes, n, NULL, 0, joined);
        if (*slot >= 0)
            return status_set(st, PLM_EFORMAT, "tokenizer: tokens %d and %d have the same bytes '%s'", *slot, id,
                              show(bytes, n, shown));
        *slot = id;
        if (n == 1)
            t->byte_token[(unsigned char)bytes[0]] = id;
    }
    for (int b = 0; b < 256; b++)
        if (t->byte_token[b] < 0)
            return status_set(st, PLM_EFORMAT, "tokenizer: no token for byte 0x%02x: not a byte-level vocabulary", b);
    return PLM_OK;
}

static int check_merge_side(const struct tokenizer *t, int32_t rank, int32_t id, struct plm_status *st)
{
    if (id < 0 || id >= t->n_vocab || !(t->flags[id] & FLAG_ORDINARY))
        return status_set(st, PLM_EFORMAT, "tokenizer: merge %d refers to id %d, which is no ordinary token (vocabulary of %d)",
                          rank, id, t->n_vocab);
    return PLM_OK;
}

static int index_merges(struct tokenizer *t, const struct token_index *index, char *joined, struct plm_status *st)
{
    char shown[256];
    size_t size = 16;
    while (size < (size_t)t->n_merges * 2)
        size *= 2;
    t->merge_table = malloc(size * sizeof *t->merge_table);
    if (!t->merge_table)
        return status_no_memory(st, size * sizeof *t->merge_table, "a tokenizer's merges");
    t->merge_mask = size - 1;
    for (size_t i = 0; i < size; i++)
        t->merge_table[i] = (struct merge_entry){0, MERGE_NONE, -1};
    for (int32_t rank = 0; rank < t->n_merges; rank++) {
        int32_t left = t->merges[rank][0], right = t->merges[rank][1];
        int code = check_merge_side(t, rank, left, st);
        if (!code)
            code = check_merge_side(t, rank, right, st);
        if (code)
            return code;
        size_t n_left = token_length(t, left), n_right = token_length(t, right);
        int32_t merged = *index_slot(index, t, t->bytes + t->start[left], n_left, t->bytes + t->start[right], n_right, joined);
        if (merged < 0)
            return status_set(st, PLM_EFORMAT, "tokenizer: merge %d makes '%s', which is not in the vocabulary", rank,
                              show(joined, n_left + n_right, shown));
        size_t i = hash_u64(pair_key(left, right)) & t->merge_mask;
        for (; t->merge_table[i].rank != MERGE_NONE; i = (i + 1) & t->merge_mask)
            if (t->merge_table[i].key == pair_key(left, right))
                return status_set(st, PLM_EFORMAT, "tokenizer: merges %u and %d are the same pair (%d, %d)",
                                  t->merge_table[i].rank, rank, left, right);
        t->merge_table[i] = (struct merge_entry){pair_key(left, right), (uint32_t)rank, merged};
    }
    return PLM_OK;
}

static int make_sets(struct tokenizer *t, struct plm_status *st)
{
    added_set_free(t->raw);
    added_set_free(t->normalized);
    t->raw = t->normalized = NULL;
    int code = added_set_create(&t->raw, t, false, st);
    return code ? code : added_set_create(&t->normalized, t, true, st);
}

static int list_added(struct tokenizer *t, const struct special_token *specials, int n, struct plm_status *st)
{
    t->added = malloc(((size_t)n + 1) * sizeof *t->added);
    if (!t->added)
        return status_no_memory(st, (size_t)n * sizeof *t->added, "special tokens");
    for (int i = 0; i < n; i++)
        t->added[i] = specials[i].id;
    t->n_added = n;
    return make_sets(t, st);
}

static int make_index(struct token_index *index, const struct tokenizer *t, struct plm_status *st)
{
    size_t slots = 16;
    while (slots < (size_t)t->n_vocab * 2)
        slots *= 2;
    index->mask = slots - 1;
    index->ids = malloc(slots * sizeof *index->ids);
    if (!index->ids)
        return status_no_memory(st, slots * sizeof *index->ids, "a tokenizer");
    for (size_t i = 0; i < slots; i++)
        index->ids[i] = -1;
    return PLM_OK;
}

static size_t longest_token(const struct tokenizer *t)
{
    size_t longest = 0;
    for (int32_t i = 0; i < t->n_vocab; i++)
        longest = token_length(t, i) > longest ? token_length(t, i) : longest;
    return longest;
}

int tokenizer_create(struct tokenizer **out, const char *const *token_bytes, const size_t *lengths, int32_t n_tokens,
                     const int32_t (*merges)[2], int32_t n_merges, const struct special_token *specials, int n_specials,
                     struct plm_status *st)
{
    *out = NULL;
    if (n_tokens < 0 || n_tokens > TOKENIZER_MAX_VOCAB || n_merges < 0 || n_merges > TOKENIZER_MAX_VOCAB || n_specials < 0 ||
        n_specials > TOKENIZER_MAX_ADDED)
        return status_set(st, PLM_EFORMAT, "tokenizer: %d tokens, %d merges, %d special tokens: out of range", n_tokens,
                          n_merges, n_specials);
    int code = check_specials(specials, n_specials, st);
    if (code)
        return code;
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return status_no_memory(st, sizeof *t, "a tokenizer");
    t->n_vocab = n_tokens;
    t->marks.bos = t->marks.eos = -1;
    for (int i = 0; i < n_specials; i++)
        if (specials[i].id >= t->n_vocab)
            t->n_vocab = specials[i].id + 1;
    t->n_merges = n_merges;
    struct token_index index = {0};
    char *joined = NULL;
    t->merges = malloc(((size_t)n_merges + 1) * sizeof *t->merges);
    code = t->merges ? make_index(&index, t, st) : status_no_memory(st, (size_t)n_merges * sizeof *t->merges, "merges");
    if (code)
        goto done;
    if (n_merges)
        memcpy(t->merges, merges, (size_t)n_merges * sizeof *merges);
    code = copy_tokens(t, token_bytes, lengths, n_tokens, specials, n_specials, st);
    if (code)
        goto done;
    joined = malloc(longest_token(t) * 2 + 1);
    if (!joined) {
        code = status_no_memory(st, longest_token(t) * 2, "a tokenizer");
        goto done;
    }
    code = index_tokens(t, &index, joined, st);
    if (!code)
        code = index_merges(t, &index, joined, st);
    if (!code)
        code = list_added(t, specials, n_specials, st);
done:
    free(index.ids);
    free(joined);
    if (code)
        tokenizer_free(t);
    else
        *out = t;
    return code;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    free(t->bytes);
    free(t->start);
    free(t->flags);
    free(t->merges);
    free(t->merge_table);
    free(t->added);
    added_set_free(t->raw);
    added_set_free(t->normalized);
    free(t->words.ids);
    for (int i = 0; i < t->n_unused; i++)
        free(t->unused[i].text);
    free(t->unused);
    free(t);
}

int tokenizer_set_pipeline(struct tokenizer *t, const struct tokenizer_pipeline *pipeline, struct plm_status *st)
{
    t->pipeline = *pipeline;
    free(t->words.ids);
    t->words = (struct token_index){0};
    int code = make_sets(t, st);
    if (code || !pipeline->ignore_merges)
        return code;
    char *joined = malloc(longest_token(t) + 1);
    code = joined ? make_index(&t->words, t, st) : status_no_memory(st, longest_token(t), "a tokenizer");
    if (!code)
        code = index_tokens(t, &t->words, joined, st);
    free(joined);
    return code;
}

const struct tokenizer_pipeline *tokenizer_pipeline(const struct tokenizer *t)
{
    return &t->pipeline;
}

enum tokenizer_kind tokenizer_kind(const struct tokenizer *t, int32_t id)
{
    const unsigned flags = id >= 0 && id < t->n_vocab ? t->flags[id] : 0;
    if (!flags)
        return TOKEN_NONE;
    if (flags & FLAG_ADDED)
        return flags & FLAG_UNKNOWN ? TOKEN_UNKNOWN : flags & FLAG_SPECIAL ? TOKEN_CONTROL : TOKEN_USER_DEFINED;
    return flags & FLAG_BYTE ? TOKEN_BYTE : TOKEN_NORMAL;
}

void tokenizer_set_kind(struct tokenizer *t, int32_t id, enum tokenizer_kind kind)
{
    if (kind == TOKEN_UNKNOWN && tokenizer_kind(t, id) == TOKEN_CONTROL)
        t->flags[id] |= FLAG_UNKNOWN;
    if (kind == TOKEN_BYTE && tokenizer_kind(t, id) == TOKEN_NORMAL)
        t->flags[id] |= FLAG_BYTE;
}

unsigned tokenizer_traits(const struct tokenizer *t, int32_t id)
{
    const unsigned flags = id >= 0 && id < t->n_vocab ? t->flags[id] : 0;
    return flags & FLAG_ADDED ? (flags & FLAG_SPECIAL ? 0 : ADDED_PLAIN) | flags >> FLAG_TRAITS << 1 : 0;
}

int tokenizer_set_unused(struct tokenizer *t, int32_t id, const char *text, size_t length, struct plm_status *st)
{
    struct unused_token *all = realloc(t->unused, ((size_t)t->n_unused + 1) * sizeof *all);
    t->unused = all ? all : t->unused;
    char *copy = malloc(length + 1);
    if (!all || !copy) {
        free(copy);
        return status_no_memory(st, length + sizeof *all, "an unused token");
    }
    memcpy(copy, text, length);
    copy[length] = 0;
    t->unused[t->n_unused++] = (struct unused_token){id, copy, length};
    return PLM_OK;
}

const char *tokenizer_unused(const struct tokenizer *t, int32_t id, size_t *length)
{
    int low = 0, high = t->n_unused;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (t->unused[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == t->n_unused || t->unused[low].id != id)
        return NULL;
    *length = t->unused[low].length;
    return t->unused[low].text;
}

int32_t tokenizer_vocab_size(const struct tokenizer *t)
{
    return t->n_vocab;
}

int32_t tokenizer_n_merges(const struct tokenizer *t)
{
    return t->n_merges;
}

void tokenizer_merge(const struct tokenizer *t, int32_t rank, int32_t *left, int32_t *right)
{
    *left = t->merges[rank][0];
    *right = t->merges[rank][1];
}

const char *tokenizer_token(const struct tokenizer *t, int32_t id, size_t *length, bool *special)
{
    bool present = id >= 0 && id < t->n_vocab && t->flags[id];
    *length = present ? token_length(t, id) : 0;
    if (special)
        *special = present && t->flags[id] & FLAG_SPECIAL;
    return present ? t->bytes + t->start[id] : NULL;
}

int32_t tokenizer_special_id(const struct tokenizer *t, const char *text)
{
    for (int i = 0; i < t->n_added; i++)
        if (!strcmp(t->bytes + t->start[t->added[i]], text))
            return t->added[i];
    return -1;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t length)
{
    for (int32_t id = 0; id < t->n_vocab; id++)
        if (t->flags[id] && token_length(t, id) == length && !memcmp(t->bytes + t->start[id], text, length))
            return id;
    return -1;
}

/* GPT-2's table: bytes that print as themselves in Latin-1 stay, the others take the code points from 256 on, in order. */
static bool prints_as_itself(unsigned b)
{
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}

static uint32_t printable_of_byte(unsigned b)
{
    if (prints_as_itself(b))
        return b;
    return 256 + (b <= 32 ? b : b <= 160 ? 33 + (b - 127) : 67); /* 0-32: 33 of them, 127-160: 34, then 173 */
}

static int byte_of_printable(uint32_t c)
{
    if (c < 256)
        return prints_as_itself(c) ? (int)c : -1;
    if (c <= 256 + 32)
        return (int)(c - 256);
    if (c <= 256 + 66)
        return (int)(c - 256 - 33 + 127);
    return c == 256 + 67 ? 173 : -1;
}

size_t tokenizer_printable(const char *bytes, size_t length, char *out, size_t capacity)
{
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char character[4];
        size_t n = utf8_encode(printable_of_byte((unsigned char)bytes[i]), character);
        for (size_t k = 0; k < n; k++, used++)
            if (used < capacity)
                out[used] = (char)character[k];
    }
    return used;
}

ptrdiff_t tokenizer_unprintable(const char *text, size_t length, char *out, size_t capacity)
{
    size_t used = 0;
    for (size_t i = 0; i < length; used++) {
        uint32_t c;
        i += utf8_decode((const unsigned char *)text + i, length - i, &c);
        int byte = byte_of_printable(c);
        if (byte < 0)
            return -1;
        if (used < capacity)
            out[used] = (char)byte;
    }
    return (ptrdiff_t)used;
}

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool with_special, char **out, size_t *length,
                     struct plm_status *st)
{
    size_t total = 0;
    *out = NULL;
    *length = 0;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->n_vocab || !t->flags[ids[i]])
            return status_set(st, PLM_EINVAL, "token %zu of %zu has id %d, which the vocabulary of %d does not have", i, n,
                              ids[i], t->n_vocab);
        if (with_special || !(t->flags[ids[i]] & FLAG_SPECIAL))
            total += token_length(t, ids[i]);
    }
    char *text = malloc(total + 1);
    if (!text)
        return status_no_memory(st, total + 1, "decoded text");
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        if (with_special || !(t->flags[ids[i]] & FLAG_SPECIAL)) {
            memcpy(text + used, t->bytes + t->start[ids[i]], token_length(t, ids[i]));
            used += token_length(t, ids[i]);
        }
    text[used] = 0;
    *out = text;
    *length = used;
    return PLM_OK;
}
