#include "data/pack.h"

#include <stdlib.h>
#include <string.h>

/* Rows that are not full, by free positions: a stack for each capacity, and a two-level bitmap of those not empty. */
struct open_rows {
    int64_t *top;        /* (seq_len + 1), -1: none */
    int64_t *below;      /* (rows) */
    uint64_t *words;     /* bit c: a row with c free positions exists */
    uint64_t *summary;   /* bit w: words[w] is not 0 */
    int n_words, n_summary;
};

static int open_rows_create(struct open_rows *o, int seq_len, int64_t max_rows)
{
    o->n_words = seq_len / 64 + 1;
    o->n_summary = o->n_words / 64 + 1;
    o->top = malloc(((size_t)seq_len + 1) * sizeof *o->top);
    o->below = malloc((size_t)max_rows * sizeof *o->below);
    o->words = calloc((size_t)o->n_words, sizeof *o->words);
    o->summary = calloc((size_t)o->n_summary, sizeof *o->summary);
    if (!o->top || !o->below || !o->words || !o->summary)
        return PLM_ENOMEM;
    for (int c = 0; c <= seq_len; c++)
        o->top[c] = -1;
    return PLM_OK;
}

static void open_rows_free(struct open_rows *o)
{
    free(o->top);
    free(o->below);
    free(o->words);
    free(o->summary);
}

static void push_row(struct open_rows *o, int capacity, int64_t row)
{
    o->below[row] = o->top[capacity];
    o->top[capacity] = row;
    o->words[capacity / 64] |= (uint64_t)1 << capacity % 64;
    o->summary[capacity / 4096] |= (uint64_t)1 << capacity / 64 % 64;
}

/* Take a row with the fewest, but at least `length`, free positions; -1 when there is none. */
static int64_t pop_row(struct open_rows *o, int length, int *capacity)
{
    int word = length / 64;
    uint64_t bits = o->words[word] & ~(uint64_t)0 << length % 64;
    if (!bits) {
        int next = word + 1;
        uint64_t groups = 0;
        for (int i = next / 64; i < o->n_summary && !groups; i++) {
            groups = o->summary[i] & (i == next / 64 ? ~(uint64_t)0 << next % 64 : ~(uint64_t)0);
            word = i * 64;
        }
        if (!groups)
            return -1;
        word += __builtin_ctzll(groups);
        bits = o->words[word];
    }
    *capacity = word * 64 + __builtin_ctzll(bits);
    int64_t row = o->top[*capacity];
    o->top[*capacity] = o->below[row];
    if (o->top[*capacity] < 0) {
        o->words[word] &= ~((uint64_t)1 << *capacity % 64);
        if (!o->words[word])
            o->summary[word / 64] &= ~((uint64_t)1 << word % 64);
    }
    return row;
}

/* The pieces of all documents by falling length, equal lengths in document order (a counting sort). */
static int cut_and_sort(struct packing *p, const uint64_t *offsets, int64_t n_documents, uint64_t seq_len, struct piece **out)
{
    int64_t *start = calloc(seq_len + 2, sizeof *start); /* start[seq_len - length + 1] counts, then sums up */
    if (!start)
        return PLM_ENOMEM;
    for (int64_t i = 0; i < n_documents; i++) {
        uint64_t inputs = offsets[i + 1] - offsets[i] - 1;
        start[1] += (int64_t)(inputs / seq_len);
        if (inputs % seq_len)
            start[seq_len - inputs % seq_len + 1]++;
        p->n_inputs += (int64_t)inputs;
    }
    for (uint64_t i = 1; i <= seq_len + 1; i++)
        start[i] += start[i - 1];
    p->n_pieces = start[seq_len + 1];
    struct piece *sorted = malloc(((size_t)p->n_pieces + 1) * sizeof *sorted);
    for (int64_t i = 0; sorted && i < n_documents; i++)
        for (uint64_t at = offsets[i], end = offsets[i + 1] - 1; at < end;) {
            uint64_t length = end - at < seq_len ? end - at : seq_len;
            sorted[start[seq_len - length]++] = (struct piece){at, (int32_t)length, 0};
            at += length;
        }
    free(start);
    *out = sorted;
    return sorted ? PLM_OK : PLM_ENOMEM;
}

/* Choose the row and column of every piece. */
static int place(struct packing *p, struct piece *sorted, int64_t *row_of, int seq_len)
{
    struct open_rows open = {0};
    int code = open_rows_create(&open, seq_len, p->n_pieces + 1);
    for (int64_t i = 0; !code && i < p->n_pieces; i++) {
        int capacity = seq_len;
        int64_t row = pop_row(&open, sorted[i].length, &capacity);
        if (row < 0) {
            row = p->n_rows++;
            capacity = seq_len;
        }
        row_of[i] = row;
        sorted[i].column = seq_len - capacity;
        if (capacity > sorted[i].length)
            push_row(&open, capacity - sorted[i].length, row);
    }
    open_rows_free(&open);
    return code;
}

int pack_documents(struct packing *p, const uint64_t *offsets, int64_t n_documents, int seq_len, struct plm_status *st)
{
    *p = (struct packing){0};
    struct piece *sorted = NULL;
    int64_t *row_of = NULL;
    int code = cut_and_sort(p, offsets, n_documents, (uint64_t)seq_len, &sorted);
    if (!code && !(row_of = malloc(((size_t)p->n_pieces + 1) * sizeof *row_of)))
        code = PLM_ENOMEM;
    if (!code)
        code = place(p, sorted, row_of, seq_len);
    if (!code) {
        p->row_begin = calloc((size_t)p->n_rows + 2, sizeof *p->row_begin);
        p->pieces = malloc(((size_t)p->n_pieces + 1) * sizeof *p->pieces);
        code = p->row_begin && p->pieces ? PLM_OK : PLM_ENOMEM;
    }
    if (!code) {
        for (int64_t i = 0; i < p->n_pieces; i++)
            p->row_begin[row_of[i] + 2]++;
        for (int64_t r = 1; r <= p->n_rows; r++)
            p->row_begin[r + 1] += p->row_begin[r];
        for (int64_t i = 0; i < p->n_pieces; i++)
            p->pieces[p->row_begin[row_of[i] + 1]++] = sorted[i];
    }
    size_t pieces = (size_t)p->n_pieces;
    free(sorted);
    free(row_of);
    if (code) {
        packing_free(p);
        return status_no_memory(st, pieces * 2 * sizeof *sorted, "the packing of documents into rows");
    }
    return PLM_OK;
}

void packing_free(struct packing *p)
{
    free(p->row_begin);
    free(p->pieces);
    *p = (struct packing){0};
}
