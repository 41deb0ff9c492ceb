#include "infer/text/added_set.h"

#include <stdlib.h>

#include "infer/text/nfc.h"
#include "infer/text/tokenizer_internal.h"
#include "infer/text/unicode_tables.h"
#include "infer/text/utf8.h"

struct added_text {
    const char *text;
    char *own; /* normalised, when that is another one; freed with the set */
    size_t length;
    int32_t id;
    unsigned traits;
    int order; /* where normalisation makes texts equal, the first wins (the library leaves it open): special tokens,
                  then as given */
};

struct added_set {
    struct added_text *list; /* (n), by first byte, the longest first */
    int n, n_plain;
    int begin[257]; /* where those with a first byte begin in the list */
};

static int by_first_byte(const void *a, const void *b)
{
    const struct added_text *x = a, *y = b;
    const unsigned char p = (unsigned char)x->text[0], q = (unsigned char)y->text[0];
    if (p != q)
        return p < q ? -1 : 1;
    if (x->length != y->length)
        return x->length > y->length ? -1 : 1;
    const bool plain = x->traits & ADDED_PLAIN, other = y->traits & ADDED_PLAIN;
    return plain != other ? plain - other : x->order - y->order;
}

static int add(struct added_set *s, const struct tokenizer *t, int32_t id, int order, bool normalize, struct nfc *nfc,
               struct plm_status *st)
{
    struct added_text *a = &s->list[s->n];
    *a = (struct added_text){t->bytes + t->start[id], NULL, token_length(t, id), id, tokenizer_traits(t, id), order};
    const char *text = a->text;
    size_t length = a->length;
    int code = normalize ? nfc_normalize(nfc, text, length, &text, &length, st) : PLM_OK;
    if (!code && text != a->text) {
        a->own = malloc(length);
        if (!a->own)
            return status_no_memory(st, length, "added tokens");
        memcpy(a->own, text, length);
        a->text = a->own;
        a->length = length;
    }
    s->n += !code;
    s->n_plain += !code && a->traits & ADDED_PLAIN;
    return code;
}

int added_set_create(struct added_set **out, const struct tokenizer *t, bool normalized, struct plm_status *st)
{
    struct nfc nfc = {0};
    struct added_set *s = *out = calloc(1, sizeof *s);
    if (s)
        s->list = calloc((size_t)t->n_added + 1, sizeof *s->list);
    int code = s && s->list ? PLM_OK : status_no_memory(st, (size_t)t->n_added * sizeof *s->list, "added tokens");
    for (int i = 0; i < t->n_added && !code; i++)
        if (!(tokenizer_traits(t, t->added[i]) & ADDED_NORMALIZED) == !normalized)
            code = add(s, t, t->added[i], i, normalized && !t->pipeline.no_nfc, &nfc, st);
    nfc_free(&nfc);
    if (code) {
        added_set_free(s);
        *out = NULL;
        return code;
    }
    qsort(s->list, (size_t)s->n, sizeof *s->list, by_first_byte);
    for (int b = 0, i = 0; b < 256; b++) {
        s->begin[b] = i;
        while (i < s->n && (unsigned char)s->list[i].text[0] == b)
            i++;
    }
    s->begin[256] = s->n;
    return PLM_OK;
}

void added_set_free(struct added_set *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->n; i++)
        free(s->list[i].own);
    free(s->list);
    free(s);
}

bool added_set_matters(const struct added_set *s, bool parse_special)
{
    return parse_special ? s->n > 0 : s->n_plain > 0;
}

static bool is_word(uint32_t c)
{
    uint32_t low = 0, high = unicode_n_word_ranges;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (unicode_word_ranges[middle][1] < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < unicode_n_word_ranges && unicode_word_ranges[low][0] <= c;
}

static bool is_space(uint32_t c)
{
    const unsigned class = c < 0x80 ? unicode_ascii_class[c] : unicode_class(unicode_cell(c));
    return class == UNICODE_SPACE || class == UNICODE_NEWLINE;
}

static uint32_t after(const char *text, size_t length, size_t i, size_t *n)
{
    uint32_t c;
    *n = utf8_decode((const unsigned char *)text + i, length - i, &c);
    return c;
}

/* The character that ends at text[i], i > 0. */
static uint32_t before(const char *text, size_t i, size_t *n)
{
    uint32_t c = 0;
    for (*n = i < 4 ? i : 4; *n > 1; --*n)
        if (utf8_decode((const unsigned char *)text + i - *n, *n, &c) == *n)
            return c;
    utf8_decode((const unsigned char *)text + i - 1, 1, &c);
    return c;
}

static const struct added_text *find(const struct added_set *s, const char *text, size_t length)
{
    const unsigned char first = (unsigned char)text[0];
    for (int i = s->begin[first]; i < s->begin[first + 1]; i++)
        if (s->list[i].length <= length && !memcmp(text, s->list[i].text, s->list[i].length))
            return &s->list[i];
    return NULL;
}

bool added_set_next(const struct added_set *s, struct added_walk *w)
{
    for (size_t n; w->scan < w->length;) {
        const struct added_text *a = find(s, w->text + w->scan, w->length - w->scan);
        if (!a) {
            w->scan++;
            continue;
        }
        w->begin = w->scan;
        w->end = w->scan += a->length;
        w->id = a->id;
        if (!(a->traits & ADDED_PLAIN) && !w->parse_special)
            continue;
        if (a->traits & ADDED_SINGLE_WORD && ((w->begin > 0 && is_word(before(w->text, w->begin, &n))) ||
                                              (w->end < w->length && is_word(after(w->text, w->length, w->end, &n)))))
            continue;
        while (a->traits & ADDED_LSTRIP && w->begin > w->taken && is_space(before(w->text, w->begin, &n)))
            w->begin -= n;
        if (a->traits & ADDED_LSTRIP && w->begin < w->taken)
            w->begin = w->taken; /* the match before took it along */
        while (a->traits & ADDED_RSTRIP && w->end < w->length && is_space(after(w->text, w->length, w->end, &n)))
            w->end += n;
        if (w->begin >= w->end)
            continue; /* nothing is left of it */
        return true;
    }
    return false;
}
