#include "train/sequences.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- packing ---- */

#define OPEN 256 /* micro-batches that may still take a sequence: hundreds of thousands of sequences are packed in seconds, and older ones have little room left */

struct packer {
    const struct examples *e;
    struct micro_batches *m;
    int rows, len;
    int *used;              /* (m->n, rows) inputs of every row so far */
    int64_t batches, placed_capacity;
    int64_t *batch_of;      /* (placed) micro-batch */
    int *plan;              /* (rows) of a group under trial */
    int64_t *order;         /* (longest group) its sequences, longest first */
};

static int64_t inputs_of(const struct examples *e, int64_t sequence) { return example_length(e, sequence) - 1; }

/* Place a group's sequences into micro-batch b, each into the row it fills best; row_of receives the rows. The rows' fill is left in p->plan. */
static bool fits(struct packer *p, int64_t b, const int64_t *sequences, int64_t n, int *row_of, int64_t *left)
{
    memcpy(p->plan, p->used + b * p->rows, (size_t)p->rows * sizeof *p->plan);
    for (int64_t i = 0; i < n; i++) {
        const int64_t length = inputs_of(p->e, sequences[i]);
        int best = -1;
        for (int r = 0; r < p->rows; r++)
            if (p->plan[r] + length <= p->len && (best < 0 || p->plan[r] > p->plan[best]))
                best = r;
        if (best < 0)
            return false;
        row_of[i] = best;
        p->plan[best] += (int)length;
    }
    *left = (int64_t)p->rows * p->len;
    for (int r = 0; r < p->rows; r++)
        *left -= p->plan[r];
    return true;
}

static int add_batch(struct packer *p, struct plm_status *st)
{
    const size_t bytes = (size_t)(p->batches + 1) * (size_t)p->rows * sizeof *p->used;
    int *used = realloc(p->used, bytes);
    if (!used)
        return status_no_memory(st, bytes, "the packing of sequences");
    p->used = used;
    memset(used + p->batches * p->rows, 0, (size_t)p->rows * sizeof *used);
    p->batches++;
    return PLM_OK;
}

static int place_group(struct packer *p, const int64_t *sequences, int64_t n, int *row_of, struct plm_status *st)
{
    int64_t best = -1, best_left = 0, left;
    for (int64_t b = p->batches > OPEN ? p->batches - OPEN : 0; b < p->batches; b++)
        if (fits(p, b, sequences, n, row_of, &left) && (best < 0 || left < best_left))
            best = b, best_left = left;
    int code = PLM_OK;
    if (best < 0) {
        code = add_batch(p, st);
        best = p->batches - 1;
    }
    if (!code && !fits(p, best, sequences, n, row_of, &left))
        code = status_set(st, PLM_ELIMIT, "%lld sequences that belong together (the longest has %lld tokens) do not fit a micro-batch of %d rows of %d tokens; "
                          "raise micro_batch or seq_len", (long long)n, (long long)example_length(p->e, sequences[0]), p->rows, p->len);
    if (code)
        return code;
    for (int64_t i = 0; i < n; i++) {
        int *used = &p->used[best * p->rows + row_of[i]];
        p->batch_of[p->m->begin[0]] = best;
        p->m->placed[p->m->begin[0]++] = (struct placed_sequence){sequences[i], row_of[i], *used};
        *used += (int)inputs_of(p->e, sequences[i]);
        p->m->inputs += inputs_of(p->e, sequences[i]);
    }
    return PLM_OK;
}

/* Longest first; equal ones in their order. */
static void sort_by_length(const struct examples *e, int64_t *sequences, int64_t n)
{
    for (int64_t i = 1; i < n; i++)
        for (int64_t k = i; k > 0 && example_length(e, sequences[k]) > example_length(e, sequences[k - 1]); k--) {
            const int64_t swap = sequences[k];
            sequences[k] = sequences[k - 1], sequences[k - 1] = swap;
        }
}

/* Placed sequences by micro-batch, row and column: a counting sort over micro-batches, then by place. */
static int compare_places(const void *a, const void *b)
{
    const struct placed_sequence *x = a, *y = b;
    return x->row != y->row ? (x->row > y->row) - (x->row < y->row) : (x->column > y->column) - (x->column < y->column);
}

static int group_by_batch(struct packer *p, int64_t n, struct plm_status *st)
{
    struct micro_batches *m = p->m;
    struct placed_sequence *sorted = malloc((size_t)(n + 1) * sizeof *sorted);
    int64_t *begin = calloc((size_t)p->batches + 2, sizeof *begin);
    if (!sorted || !begin) {
        free(sorted), free(begin);
        return status_no_memory(st, (size_t)n * sizeof *sorted, "the packing of sequences");
    }
    for (int64_t i = 0; i < n; i++)
        begin[p->batch_of[i] + 2]++;
    for (int64_t b = 2; b < p->batches + 2; b++)
        begin[b] += begin[b - 1];
    for (int64_t i = 0; i < n; i++)
        sorted[begin[p->batch_of[i] + 1]++] = m->placed[i];
    for (int64_t b = 0; b < p->batches; b++)
        qsort(sorted + begin[b], (size_t)(begin[b + 1] - begin[b]), sizeof *sorted, compare_places);
    free(m->placed), free(m->begin);
    m->placed = sorted, m->begin = begin, m->n = p->batches;
    m->capacity = p->batches * p->rows * p->len;
    return PLM_OK;
}

int micro_batches_pack(struct micro_batches *m, const struct examples *e, const int64_t *list, const int64_t *group, int64_t n, int rows, int len,
                       struct plm_status *st)
{
    *m = (struct micro_batches){0};
    for (int64_t i = 0; i < n; i++)
        if (example_length(e, list[i]) < 2 || inputs_of(e, list[i]) > len)
            return status_set(st, PLM_EINVAL, "sequence %lld has %lld tokens, expected 2 to %d", (long long)list[i], (long long)example_length(e, list[i]), len + 1);
    struct packer p = {.e = e, .m = m, .rows = rows, .len = len};
    const size_t count = (size_t)(n > 0 ? n : 1);
    int *row_of = malloc(count * sizeof *row_of);
    p.batch_of = malloc(count * sizeof *p.batch_of);
    p.order = malloc(count * sizeof *p.order);
    p.plan = malloc((size_t)rows * sizeof *p.plan);
    m->placed = malloc(count * sizeof *m->placed);
    m->begin = calloc(2, sizeof *m->begin); /* [0]: placed so far, until they are grouped */
    int code = row_of && p.batch_of && p.order && p.plan && m->placed && m->begin ? PLM_OK : status_no_memory(st, count * 48, "the packing of sequences");
    for (int64_t i = 0; i < n && !code;) {
        int64_t k = 0;
        for (; i < n && (k == 0 || (group && group[i] == group[i - 1])); i++)
            p.order[k++] = list[i];
        sort_by_length(e, p.order, k);
        code = place_group(&p, p.order, k, row_of, st);
    }
    if (!code)
        code = group_by_batch(&p, n, st);
    free(row_of), free(p.batch_of), free(p.order), free(p.plan), free(p.used);
    if (code)
        micro_batches_free(m);
    return code;
}

void micro_batches_free(struct micro_batches *m)
{
    free(m->begin);
    free(m->placed);
    *m = (struct micro_batches){0};
}

void micro_batch_fill(const struct micro_batches *m, int64_t i, const struct examples *e, struct batch *b, int rows, int len)
{
    int used_rows = 1, longest = 1;
    for (int64_t k = m->begin[i]; k < m->begin[i + 1]; k++) {
        const struct placed_sequence *p = &m->placed[k];
        const int end = p->column + (int)inputs_of(e, p->sequence);
        used_rows = p->row + 1 > used_rows ? p->row + 1 : used_rows;
        longest = end > longest ? end : longest;
    }
    b->rows = used_rows < rows ? used_rows : rows;
    b->seq_len = longest < len ? longest : len;
    for (int64_t t = 0; t < (int64_t)b->rows * b->seq_len; t++) { /* what stays empty: documents of one token that predict nothing */
        b->tokens[t] = b->targets[t] = 0;
        b->weight[t] = 0;
        b->doc_start[t] = (int32_t)(t % b->seq_len);
    }
    for (int64_t k = m->begin[i]; k < m->begin[i + 1]; k++) {
        const struct placed_sequence *p = &m->placed[k];
        const int32_t *tokens = e->tokens.data + e->begin[p->sequence];
        const uint8_t *target = e->target.data + e->begin[p->sequence];
        const int64_t at = (int64_t)p->row * b->seq_len + p->column, n = inputs_of(e, p->sequence);
        for (int64_t t = 0; t < n; t++) {
            b->tokens[at + t] = tokens[t];
            b->targets[at + t] = target[t + 1] ? tokens[t + 1] : 0;
            b->weight[at + t] = target[t + 1];
            b->doc_start[at + t] = p->column;
        }
    }
}

/* ---- through the step ---- */

/* nll (by position of the batch) of micro-batch i as log-probabilities by token of the examples. first (NULL: all): only where a sequence is placed first. */
static void gather_log_probs(const struct micro_batches *m, int64_t i, const struct examples *e, const struct batch *b, const float *nll, const uint8_t *first,
                             float *log_probs)
{
    for (int64_t k = m->begin[i]; k < m->begin[i + 1]; k++) {
        const struct placed_sequence *p = &m->placed[k];
        if (first && !first[k])
            continue;
        const int64_t at = (int64_t)p->row * b->seq_len + p->column, begin = e->begin[p->sequence];
        for (int64_t t = 0; t < inputs_of(e, p->sequence); t++)
            log_probs[begin + t + 1] = b->weight[at + t] != 0 ? -nll[at + t] : 0;
        log_probs[begin] = 0;
    }
}

int sequences_log_probs(struct step *s, const struct examples *e, const struct micro_batches *m, struct batch *scratch, float *nll, float *log_probs,
                        struct comm *comm, struct plm_status *st)
{
    memset(log_probs, 0, (size_t)e->begin[e->n] * sizeof *log_probs);
    const int64_t placed = m->begin[m->n];
    uint8_t *first = malloc((size_t)placed + 1), *seen = calloc((size_t)e->n + 1, 1);
    int code = comm_agree(comm, first && seen ? PLM_OK : status_no_memory(st, (size_t)(placed + e->n), "the places of sequences"), st);
    for (int64_t k = 0; k < placed && !code; k++) {
        first[k] = !seen[m->placed[k].sequence];
        seen[m->placed[k].sequence] = 1;
    }
    for (int64_t i = comm->rank; i < m->n && !code; i += comm->size) {
        micro_batch_fill(m, i, e, scratch, s->max_rows, s->max_len);
        step_forward(s, scratch);
        step_nll(s, scratch, nll, NULL);
        gather_log_probs(m, i, e, scratch, nll, first, log_probs);
    }
    free(first);
    free(seen);
    return code ? code : comm_sum_floats(comm, log_probs, e->begin[e->n], st); /* every token has one summand that is not zero */
}

int sequences_backward(struct step *s, const struct examples *e, const struct micro_batches *m, const struct sequence_objective *objective, struct batch *scratch,
                       float *nll, float *log_probs, float *coef, const struct comm *comm, struct plm_status *st)
{
    int code = PLM_OK;
    for (int64_t i = comm->rank; i < m->n && !code; i += comm->size) {
        struct batch *b = scratch;
        micro_batch_fill(m, i, e, b, s->max_rows, s->max_len);
        step_forward(s, b);
        step_nll(s, b, nll, NULL);
        gather_log_probs(m, i, e, b, nll, NULL, log_probs);
        for (int64_t k = m->begin[i]; k < m->begin[i + 1]; k++) {
            const int64_t sequence = m->placed[k].sequence;
            memset(coef + e->begin[sequence], 0, (size_t)example_length(e, sequence) * sizeof *coef);
        }
        code = objective->coefficients(objective->ctx, m, i, log_probs, coef, st);
        for (int64_t k = m->begin[i]; k < m->begin[i + 1] && !code; k++) {
            const struct placed_sequence *p = &m->placed[k];
            const int64_t at = (int64_t)p->row * b->seq_len + p->column, begin = e->begin[p->sequence];
            for (int64_t t = 0; t < inputs_of(e, p->sequence); t++) /* the step takes d loss / d nll */
                b->weight[at + t] = b->weight[at + t] != 0 ? -coef[begin + t + 1] : 0;
        }
        if (!code)
            step_backward(s, b, b->weight, nll);
    }
    return code;
}
