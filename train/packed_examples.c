#include "train/packed_examples.h"

#include <stdlib.h>
#include <string.h>

#include "data/permutation.h"

static int check_length(const struct examples *e, int64_t i, int seq_len, struct plm_status *st)
{
    const int64_t n = example_length(e, i);
    if (n >= 2 && n <= (int64_t)seq_len + 1)
        return PLM_OK;
    return status_set(st, PLM_EINVAL, "sequence %lld has %lld tokens, rows of %d positions take 2 to %d", (long long)i, (long long)n, seq_len, seq_len + 1);
}

int packed_examples_build(struct packed_examples *p, const struct examples *e, int seq_len, uint64_t key, struct plm_status *st)
{
    *p = (struct packed_examples){.n = e->n, .seq_len = seq_len};
    p->offsets = malloc(((size_t)e->n + 1) * sizeof *p->offsets);
    p->order = malloc(((size_t)e->n + 1) * sizeof *p->order);
    int code = p->offsets && p->order ? PLM_OK : status_no_memory(st, (size_t)e->n * 2 * sizeof *p->order, "the order of the examples");
    uint64_t at = 0;
    for (int64_t i = 0; i < e->n && !code; i++) {
        p->order[i] = (int64_t)permutation_apply(key, (uint64_t)e->n, (uint64_t)i);
        p->offsets[i] = at;
        at += (uint64_t)example_length(e, p->order[i]);
        code = check_length(e, p->order[i], seq_len, st);
    }
    if (!code) {
        p->offsets[e->n] = at;
        code = pack_documents(&p->packing, p->offsets, e->n, seq_len, st);
    }
    if (code)
        packed_examples_free(p);
    return code;
}

void packed_examples_free(struct packed_examples *p)
{
    packing_free(&p->packing);
    free(p->offsets);
    free(p->order);
    *p = (struct packed_examples){0};
}

/* The sequence that a piece is. */
static int64_t sequence_of(const struct packed_examples *p, const struct piece *piece)
{
    int64_t low = 0, high = p->n - 1;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (p->offsets[middle] < piece->begin)
            low = middle + 1;
        else
            high = middle;
    }
    return p->order[low];
}

void packed_row_counts(const struct packed_examples *p, const struct examples *e, int64_t row, int64_t *inputs, int64_t *targets)
{
    *inputs = *targets = 0;
    for (int64_t k = p->packing.row_begin[row]; k < p->packing.row_begin[row + 1]; k++) {
        const int64_t begin = e->begin[sequence_of(p, &p->packing.pieces[k])];
        *inputs += p->packing.pieces[k].length;
        for (int j = 1; j <= p->packing.pieces[k].length; j++)
            *targets += e->target.data[begin + j];
    }
}

int packed_row_fill(const struct packed_examples *p, const struct examples *e, int64_t row, int at, struct batch *b)
{
    const int64_t base = (int64_t)at * p->seq_len;
    int used = 0;
    for (int64_t k = p->packing.row_begin[row]; k < p->packing.row_begin[row + 1]; k++) {
        const struct piece *piece = &p->packing.pieces[k];
        const int64_t begin = e->begin[sequence_of(p, piece)], to = base + piece->column;
        memcpy(b->tokens + to, e->tokens.data + begin, (size_t)piece->length * sizeof *b->tokens);
        for (int j = 0; j < piece->length; j++) {
            const bool target = e->target.data[begin + j + 1];
            b->targets[to + j] = target ? e->tokens.data[begin + j + 1] : 0;
            b->weight[to + j] = target;
            b->doc_start[to + j] = piece->column;
        }
        used = piece->column + piece->length;
    }
    for (int j = used; j < p->seq_len; j++) {
        b->tokens[base + j] = b->targets[base + j] = 0;
        b->weight[base + j] = 0;
        b->doc_start[base + j] = j;
    }
    return used;
}

static void shorten(void *data, int rows, int from, int to)
{
    char *x = data;
    for (int r = 1; r < rows; r++)
        memmove(x + (size_t)r * (size_t)to * 4, x + (size_t)r * (size_t)from * 4, (size_t)to * 4);
}

void batch_shorten(struct batch *b, int len)
{
    _Static_assert(sizeof *b->tokens == 4 && sizeof *b->weight == 4, "all four arrays have elements of 4 bytes");
    void *const arrays[] = {b->tokens, b->targets, b->weight, b->doc_start};
    for (int i = 0; i < 4; i++)
        shorten(arrays[i], b->rows, b->seq_len, len);
    b->seq_len = len;
}
