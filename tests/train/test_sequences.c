/* Sequences through the step: where packing puts them, what a batch of them says, and that log-probabilities and gradients are those of one sequence at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/random.h"
#include "tests/model/support.h"
#include "tests/ops/tables.h"
#include "train/sequences.h"

#define VOCAB 101

static uint64_t draw(uint64_t i, uint64_t below) { return random_u64(5, RANDOM_TEST, 0, i) % below; }

/* n sequences of 2 to `longest` tokens; every third token or so is no target. */
static void make_examples(struct examples *e, int n, int longest)
{
    int32_t tokens[256];
    uint8_t targets[256];
    *e = (struct examples){0};
    for (int i = 0; i < n; i++) {
        const int length = 2 + (int)draw((uint64_t)i, (uint64_t)longest - 1);
        for (int t = 0; t < length; t++) {
            tokens[t] = (int32_t)draw((uint64_t)(1000 + i * 256 + t), VOCAB);
            targets[t] = t > 0 && draw((uint64_t)(100000 + i * 256 + t), 3) > 0;
        }
        targets[length - 1] = 1;
        assert_int_equal(examples_add(e, tokens, length, targets, 0, NULL), PLM_OK);
    }
}

/* ---- packing ---- */

/* What must hold of any packing of list[0, n). */
static void check_packing(const struct micro_batches *m, const struct examples *e, const int64_t *list, const int64_t *group, int64_t n, int rows, int len)
{
    int *times = calloc((size_t)e->n, sizeof *times), *batch = calloc((size_t)e->n, sizeof *batch);
    uint8_t *used = malloc((size_t)rows * (size_t)len);
    int64_t inputs = 0;
    assert_int_equal(m->begin[0], 0);
    assert_int_equal(m->begin[m->n], n);
    assert_int_equal(m->capacity, m->n * rows * len);
    for (int64_t b = 0; b < m->n; b++) {
        memset(used, 0, (size_t)rows * (size_t)len);
        assert_true(m->begin[b] < m->begin[b + 1]); /* none is empty */
        for (int64_t k = m->begin[b]; k < m->begin[b + 1]; k++) {
            const struct placed_sequence *p = &m->placed[k], *before = k > m->begin[b] ? p - 1 : NULL;
            const int64_t length = example_length(e, p->sequence) - 1;
            assert_true(p->row >= 0 && p->row < rows && p->column >= 0 && p->column + length <= len);
            assert_true(!before || p->row > before->row || (p->row == before->row && p->column > before->column));
            for (int64_t t = 0; t < length; t++)
                assert_int_equal(used[p->row * len + p->column + t]++, 0);
            times[p->sequence]++;
            batch[p->sequence] = (int)b;
            inputs += length;
        }
    }
    assert_int_equal(m->inputs, inputs);
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(times[list[i]], 1);
        times[list[i]] = 0;
        if (group && i > 0 && group[i] == group[i - 1])
            assert_int_equal(batch[list[i]], batch[list[i - 1]]);
    }
    for (int64_t i = 0; i < e->n; i++)
        assert_int_equal(times[i], 0); /* nothing but the list */
    free(times), free(batch), free(used);
}

static void packing(void **state)
{
    (void)state;
    struct examples e;
    make_examples(&e, 200, 40);
    int64_t list[200], group[200];
    for (int trial = 0; trial < 60; trial++) {
        struct micro_batches m;
        struct plm_status st = {0};
        const int rows = 1 + trial % 5, len = 39 + (int)draw((uint64_t)trial, 90), tied = trial % 3 == 0 || rows * len < 200 ? 0 : trial % 3 == 1 ? 2 : 4;
        int64_t n = 0;
        for (int64_t i = 0; i < e.n; i++)
            if (draw((uint64_t)(trial * 1000 + i), 4)) {
                list[n] = i * 7 % 200;
                group[n] = tied ? n / tied : n;
                n++;
            }
        if (micro_batches_pack(&m, &e, list, tied ? group : NULL, n, rows, len, &st))
            fail_msg("%d rows of %d: %s", rows, len, st.message);
        check_packing(&m, &e, list, tied ? group : NULL, n, rows, len);
        if (!tied)
            assert_true((double)m.inputs > 0.8 * (double)(m.capacity - rows * len)); /* little is left empty, but for the last one */
        micro_batches_free(&m);
    }
    examples_free(&e);
}

static void edges_of_packing(void **state)
{
    (void)state;
    struct examples e = {0};
    struct micro_batches m;
    struct plm_status st = {0};
    const int32_t tokens[64] = {0};
    const int64_t list[] = {0, 1, 2, 3}, one_group[] = {0, 0, 0, 0};
    assert_int_equal(examples_add(&e, tokens, 11, NULL, 1, NULL), PLM_OK);
    assert_int_equal(examples_add(&e, tokens, 11, NULL, 1, NULL), PLM_OK);
    assert_int_equal(examples_add(&e, tokens, 12, NULL, 1, NULL), PLM_OK);
    assert_int_equal(examples_add(&e, tokens, 1, NULL, 1, NULL), PLM_OK);
    assert_int_equal(micro_batches_pack(&m, &e, list, NULL, 0, 2, 10, &st), PLM_OK); /* nothing */
    assert_true(m.n == 0 && m.inputs == 0 && m.begin[0] == 0);
    micro_batches_free(&m);
    assert_int_equal(micro_batches_pack(&m, &e, list, one_group, 2, 2, 10, &st), PLM_OK); /* to the last place */
    assert_true(m.n == 1 && m.inputs == m.capacity);
    micro_batches_free(&m);
    assert_int_equal(micro_batches_pack(&m, &e, list, NULL, 3, 2, 10, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "sequence 2 has 12 tokens, expected 2 to 11"));
    assert_int_equal(micro_batches_pack(&m, &e, list + 3, NULL, 1, 2, 10, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "sequence 3 has 1 tokens"));
    assert_int_equal(micro_batches_pack(&m, &e, list, one_group, 2, 1, 10, &st), PLM_ELIMIT);
    assert_non_null(strstr(st.message, "2 sequences that belong together"));
    assert_true(!m.begin && !m.placed);
    examples_free(&e);
}

/* ---- batches ---- */

static void batches(void **state)
{
    (void)state;
    struct examples e;
    struct micro_batches m;
    struct batch b;
    const int rows = 3, len = 60;
    int64_t list[40];
    make_examples(&e, 40, 30);
    for (int i = 0; i < 40; i++)
        list[i] = i;
    assert_int_equal(micro_batches_pack(&m, &e, list, NULL, 40, rows, len, NULL), PLM_OK);
    assert_int_equal(batch_create(&b, rows, len, NULL), PLM_OK);
    int64_t targets = 0;
    for (int64_t i = 0; i < e.begin[e.n]; i++)
        targets += e.target.data[i];
    for (int64_t i = 0; i < m.n; i++) {
        micro_batch_fill(&m, i, &e, &b, rows, len);
        assert_true(b.rows <= rows && b.seq_len <= len);
        uint8_t *covered = calloc((size_t)b.rows * (size_t)b.seq_len, 1);
        for (int64_t k = m.begin[i]; k < m.begin[i + 1]; k++) {
            const struct placed_sequence *p = &m.placed[k];
            for (int64_t t = 0; t + 1 < example_length(&e, p->sequence); t++) {
                const int64_t at = p->row * b.seq_len + p->column + t, token = e.begin[p->sequence] + t;
                assert_int_equal(b.tokens[at], e.tokens.data[token]);
                assert_int_equal(b.doc_start[at], p->column);
                assert_true(b.weight[at] == e.target.data[token + 1]);
                if (b.weight[at] != 0)
                    assert_int_equal(b.targets[at], e.tokens.data[token + 1]);
                targets -= b.weight[at] != 0;
                covered[at] = 1;
            }
        }
        for (int64_t t = 0; t < (int64_t)b.rows * b.seq_len; t++) /* padding: documents of one token without a target */
            if (!covered[t])
                assert_true(b.weight[t] == 0 && b.doc_start[t] == t % b.seq_len);
        free(covered);
    }
    assert_int_equal(targets, 0); /* every target once */
    batch_free(&b);
    micro_batches_free(&m);
    examples_free(&e);
}

/* ---- through the step ---- */

struct runner {
    struct step s;
    struct thread_pool *pool;
    struct comm comm;
    struct batch scratch;
    float *nll, *log_probs, *coef;
};

static void open_runner(struct runner *r, const struct examples *e, int rows, int len)
{
    struct plm_status st = {0};
    const struct model_config c = small_config();
    *r = (struct runner){0};
    assert_int_equal(comm_open(&r->comm, NULL), PLM_OK);
    assert_int_equal(pool_create(&r->pool, 2, NULL), PLM_OK);
    if (step_create(&r->s, &c, rows, len, 1, 3, ops_select(OPS_BEST), r->pool, &st) || batch_create(&r->scratch, rows, len, &st))
        fail_msg("%s", st.message);
    r->nll = malloc((size_t)rows * (size_t)len * sizeof *r->nll);
    r->log_probs = calloc((size_t)e->begin[e->n], sizeof *r->log_probs);
    r->coef = calloc((size_t)e->begin[e->n], sizeof *r->coef);
    step_zero_gradients(&r->s);
}

static void close_runner(struct runner *r)
{
    step_destroy(&r->s);
    batch_free(&r->scratch);
    pool_destroy(r->pool);
    comm_close(&r->comm);
    free(r->nll), free(r->log_probs), free(r->coef);
}

/* Any coefficients that depend on the log-probabilities and on the place: a loss of sum(sin(k) * log_prob^2 / 2). */
static double factor(int64_t token) { return sin((double)token); }
static int coefficients(void *ctx, const struct micro_batches *m, int64_t i, const float *log_probs, float *coef, struct plm_status *st)
{
    const struct examples *e = ctx;
    (void)st;
    for (int64_t k = m->begin[i]; k < m->begin[i + 1]; k++)
        for (int64_t t = e->begin[m->placed[k].sequence]; t < e->begin[m->placed[k].sequence + 1]; t++)
            coef[t] = e->target.data[t] ? (float)(factor(t) * log_probs[t]) : 0;
    return PLM_OK;
}

/* One sequence at a time in a batch of its own, without sequences.h. */
static float *alone(const struct examples *e, float **gradients, size_t *n_gradients)
{
    struct runner r;
    open_runner(&r, e, 1, 80);
    for (int64_t i = 0; i < e->n; i++) {
        struct batch *b = &r.scratch;
        const int n = (int)example_length(e, i) - 1;
        b->rows = 1, b->seq_len = n;
        for (int t = 0; t < n; t++) {
            b->tokens[t] = e->tokens.data[e->begin[i] + t], b->targets[t] = e->tokens.data[e->begin[i] + t + 1];
            b->weight[t] = e->target.data[e->begin[i] + t + 1], b->doc_start[t] = 0;
        }
        step_forward(&r.s, b);
        step_nll(&r.s, b, r.nll, NULL);
        for (int t = 0; t < n; t++) {
            const int64_t at = e->begin[i] + t + 1;
            r.log_probs[at] = b->weight[t] != 0 ? -r.nll[t] : 0;
            b->weight[t] = b->weight[t] != 0 ? (float)(-factor(at) * r.log_probs[at]) : 0;
        }
        step_backward(&r.s, b, b->weight, r.nll);
    }
    *n_gradients = (size_t)r.s.table.padded;
    *gradients = malloc(*n_gradients * sizeof **gradients);
    memcpy(*gradients, r.s.grads, *n_gradients * sizeof **gradients);
    float *log_probs = r.log_probs;
    r.log_probs = NULL;
    close_runner(&r);
    return log_probs;
}

static void as_one_at_a_time(void **state)
{
    (void)state;
    struct examples e;
    make_examples(&e, 30, 50);
    float *want_gradients;
    size_t n;
    float *want = alone(&e, &want_gradients, &n);
    static const int shapes[][2] = {{1, 49}, {1, 80}, {2, 64}, {4, 49}, {8, 120}, {3, 400}};
    int64_t list[30], group[30];
    for (int i = 0; i < 30; i++)
        list[i] = (i * 11) % 30, group[i] = i / 2;
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        struct runner r;
        struct micro_batches m;
        struct plm_status st = {0};
        const int rows = shapes[k][0], len = shapes[k][1];
        open_runner(&r, &e, rows, len);
        const bool tied = rows * len >= 98;
        if (micro_batches_pack(&m, &e, list, tied ? group : NULL, e.n, rows, len, &st) ||
            sequences_log_probs(&r.s, &e, &m, &r.scratch, r.nll, r.log_probs, &r.comm, &st))
            fail_msg("%s", st.message);
        for (int64_t t = 0; t < e.begin[e.n]; t++)
            if (!(fabsf(r.log_probs[t] - want[t]) <= 1e-6f * fmaxf(1, fabsf(want[t]))))
                fail_msg("%d x %d, token %lld: %.9g, alone %.9g", rows, len, (long long)t, (double)r.log_probs[t], (double)want[t]);
        memset(r.log_probs, 0, (size_t)e.begin[e.n] * sizeof *r.log_probs);
        const struct sequence_objective objective = {coefficients, &e};
        if (sequences_backward(&r.s, &e, &m, &objective, &r.scratch, r.nll, r.log_probs, r.coef, &r.comm, &st))
            fail_msg("%s", st.message);
        const double error = relative_error(r.s.grads, want_gradients, n);
        if (!(error < 1e-6))
            fail_msg("%d x %d: gradients differ by %g", rows, len, error);
        micro_batches_free(&m);
        close_runner(&r);
    }
    free(want), free(want_gradients);
    examples_free(&e);
}

/* A sequence that is listed twice counts twice in gradients, and has its own log-probabilities. */
static void twice(void **state)
{
    (void)state;
    struct examples e;
    make_examples(&e, 4, 30);
    const int64_t list[] = {2, 0, 2}, group[] = {0, 1, 2};
    float *gradients[2] = {NULL};
    size_t n = 0;
    for (int pass = 0; pass < 2; pass++) { /* in one batch; in two batches */
        struct runner r;
        struct micro_batches m;
        open_runner(&r, &e, pass ? 1 : 2, pass ? 29 : 100);
        assert_int_equal(micro_batches_pack(&m, &e, list, group, 3, r.s.max_rows, r.s.max_len, NULL), PLM_OK);
        assert_int_equal(sequences_log_probs(&r.s, &e, &m, &r.scratch, r.nll, r.log_probs, &r.comm, NULL), PLM_OK);
        for (int64_t t = e.begin[1]; t < e.begin[2]; t++)
            assert_true(r.log_probs[t] == 0); /* not listed */
        const struct sequence_objective objective = {coefficients, &e};
        assert_int_equal(sequences_backward(&r.s, &e, &m, &objective, &r.scratch, r.nll, r.log_probs, r.coef, &r.comm, NULL), PLM_OK);
        n = (size_t)r.s.table.padded;
        gradients[pass] = malloc(n * sizeof(float));
        memcpy(gradients[pass], r.s.grads, n * sizeof(float));
        micro_batches_free(&m);
        close_runner(&r);
    }
    assert_true(relative_error(gradients[0], gradients[1], n) < 1e-6);
    free(gradients[0]), free(gradients[1]);
    examples_free(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(packing), cmocka_unit_test(edges_of_packing), cmocka_unit_test(batches), cmocka_unit_test(as_one_at_a_time),
                                       cmocka_unit_test(twice)};
    return RUN_WITH_EVERY_TABLE(tests, NULL, NULL);
}
