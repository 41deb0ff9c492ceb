/* The objective of a preference step on the golden model: its values at the start, the gradient of the whole ARIES objective, what must not change it, every loss against
 * finite differences, single answers, and what it converges to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/random.h"
#include "optim/clip.h"
#include "tests/model/support.h"
#include "tests/ops/tables.h"
#include "train/align/pair_objective.h"
#include "train/checkpoint.h"

#define VOCAB 61 /* of the golden model */

struct runner {
    struct step s;
    struct thread_pool *pool;
    struct comm comm;
    struct batch scratch;
    float *nll;
};

static void open_runner(struct runner *r, const char *model, int rows, int len)
{
    struct plm_status st = {0};
    struct model_config c;
    *r = (struct runner){0};
    if (checkpoint_config(model, &c, &st) || comm_open(&r->comm, &st) || pool_create(&r->pool, 2, &st) ||
        step_create(&r->s, &c, rows, len, 1, 0, ops_select(OPS_BEST), r->pool, &st) || checkpoint_load_weights(model, &r->s.table, r->s.weights, &st) ||
        batch_create(&r->scratch, rows, len, &st))
        fail_msg("%s", st.message);
    r->nll = malloc((size_t)rows * (size_t)len * sizeof *r->nll);
}

static void close_runner(struct runner *r)
{
    step_destroy(&r->s);
    batch_free(&r->scratch);
    pool_destroy(r->pool);
    comm_close(&r->comm);
    free(r->nll);
}

/* ---- data ---- */

/* n pairs of random tokens with all parts that are asked for; lengths differ. */
static void random_pairs(struct pair_sequences *p, int n, bool paired, bool refined, bool mismatched)
{
    *p = (struct pair_sequences){.n = n};
    const bool wanted[PAIR_PARTS] = {true, paired, refined, refined, refined, refined, mismatched};
    for (int k = 0; k < PAIR_PARTS; k++)
        p->at[k] = wanted[k] ? p->per_pair++ : -1;
    p->row = calloc((size_t)n, sizeof *p->row);
    p->desirable = calloc((size_t)n, sizeof *p->desirable);
    p->lengths = calloc((size_t)(n * p->per_pair), sizeof *p->lengths);
    for (int i = 0; i < n; i++) {
        p->desirable[i] = i % 3 != 0;
        for (int k = 0; k < PAIR_PARTS; k++) {
            int32_t tokens[64];
            if (!wanted[k])
                continue;
            const bool second = k == PART_REJECTED || k == PART_REJECTED_GIVEN_L || k == PART_REJECTED_GIVEN_W;
            const int context = (k < PART_CHOSEN_GIVEN_L || k == PART_MISMATCHED ? 4 : 12) + i % 3, answer = (second ? 7 : 5) + i % 4;
            for (int t = 0; t < context + answer; t++)
                tokens[t] = (int32_t)(random_u64(3, RANDOM_TEST, (uint32_t)(t < context ? 100 + k / 2 : second), (uint64_t)(i * 64 + (t < context ? t : t - context))) % VOCAB);
            assert_int_equal(examples_add(&p->e, tokens, context + answer, NULL, context, NULL), PLM_OK);
            p->lengths[i * p->per_pair + p->at[k]] = answer;
        }
    }
}

/* Sequences of the pairs, but the mismatched ones, with each pair a group. */
static int64_t listed(const struct pair_sequences *p, int64_t *list, int64_t *group)
{
    int64_t n = 0;
    for (int64_t i = 0; i < p->n; i++)
        for (int k = 0; k < p->per_pair; k++)
            if (k != p->at[PART_MISMATCHED])
                list[n] = i * p->per_pair + k, group[n++] = i;
    return n;
}

/* Log-probabilities of all sequences; the caller frees. */
static double *log_probs_of(struct runner *r, const struct pair_sequences *p)
{
    struct micro_batches m;
    float *tokens = calloc((size_t)p->e.begin[p->e.n], sizeof *tokens);
    double *sums = calloc((size_t)p->e.n, sizeof *sums);
    int64_t *all = calloc((size_t)p->e.n, sizeof *all);
    for (int64_t i = 0; i < p->e.n; i++)
        all[i] = i;
    assert_int_equal(micro_batches_pack(&m, &p->e, all, NULL, p->e.n, r->s.max_rows, r->s.max_len, NULL), PLM_OK);
    assert_int_equal(sequences_log_probs(&r->s, &p->e, &m, &r->scratch, r->nll, tokens, &r->comm, NULL), PLM_OK);
    for (int64_t i = 0; i < p->e.n; i++)
        sums[i] = sequence_log_prob(&p->e, i, tokens);
    micro_batches_free(&m);
    free(tokens), free(all);
    return sums;
}

/* Loss (the sum over pairs) and, in r->s.grads, its gradient. */
static double run(struct runner *r, struct pair_objective *o)
{
    const struct pair_sequences *p = o->pairs;
    struct plm_status st = {0};
    struct micro_batches m;
    const size_t tokens = (size_t)p->e.begin[p->e.n];
    float *log_probs = calloc(tokens, sizeof *log_probs), *coef = calloc(tokens, sizeof *coef);
    int64_t *list = calloc((size_t)p->e.n, sizeof *list), *group = calloc((size_t)p->e.n, sizeof *group);
    const int64_t n = listed(p, list, group);
    const struct sequence_objective objective = {pair_coefficients, o};
    memset(o->sums, 0, sizeof o->sums);
    step_zero_gradients(&r->s);
    if (micro_batches_pack(&m, &p->e, list, group, n, r->s.max_rows, r->s.max_len, &st) ||
        sequences_backward(&r->s, &p->e, &m, &objective, &r->scratch, r->nll, log_probs, coef, &r->comm, &st))
        fail_msg("%s", st.message);
    micro_batches_free(&m);
    free(log_probs), free(coef), free(list), free(group);
    return o->sums[SUM_LOSS];
}

static struct pair_objective objective_of(const char *name, double alpha, const struct pair_sequences *p, const double *reference)
{
    const struct preference_loss *l = preference_loss_find(name);
    assert_non_null(l);
    return (struct pair_objective){.loss = l, .params = l->defaults, .alpha = alpha, .beta_refine = 0.1, .pairs = p, .reference = reference};
}

static float *copy_of(const float *x, size_t n)
{
    float *copy = malloc(n * sizeof *copy);
    memcpy(copy, x, n * sizeof *copy);
    return copy;
}

/* ---- the golden case ---- */

static int64_t read_tokens(const json_t *root, const char *key, int32_t *out)
{
    const json_t *list = json_object_get(root, key);
    for (size_t i = 0; i < json_array_size(list); i++)
        out[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return (int64_t)json_array_size(list);
}

static void golden_pair(struct pair_sequences *p, const json_t *root)
{
    static const char *const contexts[] = {"prompt", "prompt", "refine_context_l", "refine_context_l", "refine_context_w", "refine_context_w"};
    *p = (struct pair_sequences){.n = 1, .per_pair = 6, .at = {0, 1, 2, 3, 4, 5, -1}};
    p->lengths = calloc(6, sizeof *p->lengths);
    for (int k = 0; k < 6; k++) {
        int32_t tokens[256];
        const int64_t n = read_tokens(root, contexts[k], tokens), answer = read_tokens(root, k % 2 ? "rejected" : "chosen", tokens + n);
        assert_int_equal(examples_add(&p->e, tokens, n + answer, NULL, n, NULL), PLM_OK);
        p->lengths[k] = (int)answer;
    }
}

static void the_golden_gradient(void **state)
{
    (void)state;
    json_t *root = json_load_file(GOLDEN "/plain/preference.json", 0, NULL);
    assert_non_null(root);
    struct pair_sequences p;
    struct runner policy, reference;
    golden_pair(&p, root);
    open_runner(&policy, GOLDEN "/plain/model", 6, 64);
    open_runner(&reference, GOLDEN "/plain/reference", 2, 64);
    double *log_probs = log_probs_of(&reference, &p);
    struct pair_objective o = objective_of("sigmoid", 0.8, &p, log_probs);
    const double loss = run(&policy, &o), want = json_number_value(json_object_get(root, "total_loss"));
    if (!(fabs(loss - want) < 1e-6 * want))
        fail_msg("loss %.12g, expected %.12g", loss, want);
    assert_true(fabs(o.sums[SUM_DIRECT] - json_number_value(json_object_get(root, "dpo_loss"))) < 1e-6);
    assert_true(fabs(o.sums[SUM_REFINE_L] + o.sums[SUM_REFINE_W] - json_number_value(json_object_get(root, "refine_loss"))) < 1e-5);
    assert_true(fabs(o.sums[SUM_H_L] - json_number_value(json_object_get(root, "h_l"))) < 1e-4);
    assert_true(o.sums[SUM_PAIRS] == 1 && o.sums[SUM_ACC_L] == 0 && o.sums[SUM_ACC_W] == 1 && o.sums[SUM_TOKENS] == 24);
    double squares = 0;
    for (int64_t i = 0; i < policy.s.table.padded; i++)
        squares += (double)policy.s.grads[i] * policy.s.grads[i];
    assert_true(fabs(sqrt(squares) / json_number_value(json_object_get(root, "grad_norm")) - 1) < 1e-5);
    const json_t *norms = json_object_get(root, "grad_norms");
    int compared = 0;
    for (int i = 0; i < policy.s.table.n_tensors; i++) {
        const struct tensor_desc *t = &policy.s.table.tensors[i];
        const json_t *norm = json_object_get(norms, t->name);
        if (!norm)
            continue;
        double sum = 0;
        for (int64_t k = 0; k < tensor_elements(t); k++)
            sum += (double)policy.s.grads[t->offset + k] * policy.s.grads[t->offset + k];
        if (!(fabs(sqrt(sum) / json_number_value(norm) - 1) < 1e-4))
            fail_msg("%s: norm %g, expected %g", t->name, sqrt(sum), json_number_value(norm));
        compared++;
    }
    assert_int_equal(compared, (int)json_object_size(norms));
    free(log_probs);
    close_runner(&policy);
    close_runner(&reference);
    pair_sequences_free(&p);
    json_decref(root);
}

/* ---- at the start ---- */

static void at_the_start(void **state)
{
    (void)state;
    struct pair_sequences p;
    struct runner r;
    random_pairs(&p, 5, true, true, false);
    open_runner(&r, GOLDEN "/plain/model", 4, 64);
    double *reference = log_probs_of(&r, &p);
    struct pair_objective o = objective_of("sigmoid", 0.8, &p, reference);
    const double loss = run(&r, &o);
    assert_true(fabs(o.sums[SUM_DIRECT] / 5 - log(2)) < 1e-6);
    assert_true(fabs((o.sums[SUM_REFINE_L] + o.sums[SUM_REFINE_W]) / 5 - 0.5) < 1e-6);
    assert_true(fabs(loss / 5 - (0.2 * log(2) + 0.8 * 0.5)) < 1e-6);
    struct metric metrics[PAIR_METRICS];
    const int n = pair_metrics(&o, o.sums, metrics);
    assert_true(n > 10 && n <= PAIR_METRICS);
    for (int i = 0; i < n; i++)
        if (!strcmp(metrics[i].name, "rewards/margins"))
            assert_true(fabs(metrics[i].value) < 1e-5);
    free(reference);
    close_runner(&r);
    pair_sequences_free(&p);
}

/* ---- what changes nothing ---- */

static void shapes(void **state)
{
    (void)state;
    static const int sizes[][2] = {{16, 64}, {8, 64}, {4, 64}, {6, 28}, {3, 64}, {2, 96}}; /* many pairs together; a sequence to a row; a pair at a time */
    struct pair_sequences p;
    struct runner reference;
    random_pairs(&p, 8, true, true, false);
    open_runner(&reference, GOLDEN "/plain/reference", 4, 64);
    double *log_probs = log_probs_of(&reference, &p);
    float *want = NULL;
    double loss = 0;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        struct runner r;
        open_runner(&r, GOLDEN "/plain/model", sizes[k][0], sizes[k][1]);
        struct pair_objective o = objective_of("sigmoid", 0.8, &p, log_probs);
        const double got = run(&r, &o);
        const size_t n = (size_t)r.s.table.padded;
        if (!want)
            want = copy_of(r.s.grads, n), loss = got;
        const double error = relative_error(r.s.grads, want, n);
        if (!(fabs(got - loss) < 1e-6 * loss && error < 1e-6))
            fail_msg("%d x %d: loss %.9g, gradient %g from the first", sizes[k][0], sizes[k][1], got, error);
        close_runner(&r);
    }
    free(want), free(log_probs);
    close_runner(&reference);
    pair_sequences_free(&p);
}

/* All at once, and the pairs in 2, 4 and 8 parts, whose sums are added. */
static void accumulation(void **state)
{
    (void)state;
    struct pair_sequences all;
    struct runner r, reference;
    random_pairs(&all, 8, true, true, false);
    open_runner(&r, GOLDEN "/plain/model", 8, 64);
    open_runner(&reference, GOLDEN "/plain/reference", 4, 64);
    double *log_probs = log_probs_of(&reference, &all);
    struct pair_objective o = objective_of("sigmoid", 0.8, &all, log_probs);
    const double loss = run(&r, &o);
    const size_t n = (size_t)r.s.table.padded;
    float *want = copy_of(r.s.grads, n);
    for (int parts = 2; parts <= 8; parts *= 2) {
        double sum = 0, sums[PAIR_SUMS] = {0};
        float *gradient = calloc(n, sizeof *gradient);
        for (int i = 0; i < parts; i++) {
            struct pair_sequences part = all;
            const int64_t first = (int64_t)i * 8 / parts * all.per_pair;
            part.n = 8 / parts, part.e.n = part.n * part.per_pair;
            part.e.begin = all.e.begin + first, part.lengths = all.lengths + first;
            /* offsets count from the first token of all: the objective only adds them */
            struct pair_objective some = objective_of("sigmoid", 0.8, &part, log_probs + first);
            sum += run(&r, &some);
            for (int k = 0; k < PAIR_SUMS; k++)
                sums[k] += some.sums[k];
            for (size_t k = 0; k < n; k++)
                gradient[k] += r.s.grads[k];
        }
        assert_true(fabs(sum - loss) < 1e-6 * loss && relative_error(gradient, want, n) < 1e-6);
        for (int k = 0; k < PAIR_SUMS; k++)
            assert_true(fabs(sums[k] - o.sums[k]) <= 1e-5 * fmax(1, fabs(o.sums[k])));
        free(gradient);
    }
    free(want), free(log_probs);
    close_runner(&r);
    close_runner(&reference);
    pair_sequences_free(&all);
}

/* With the answers exchanged, at the start: the gradient of what depends on their difference only turns round. */
static void exchanged(void **state)
{
    (void)state;
    struct pair_sequences p;
    struct runner r;
    random_pairs(&p, 4, true, true, false);
    open_runner(&r, GOLDEN "/plain/model", 8, 64);
    double *reference = log_probs_of(&r, &p);
    const size_t n = (size_t)r.s.table.padded;
    for (int k = 0; k < 3; k++) {
        static const char *const names[] = {"sigmoid", "ipo_sum", "hinge"};
        struct pair_objective o = objective_of(names[k], k == 0 ? 0.8 : 0, &p, reference);
        run(&r, &o);
        float *want = copy_of(r.s.grads, n);
        struct pair_sequences other = p;
        other.at[PART_CHOSEN] = p.at[PART_REJECTED], other.at[PART_REJECTED] = p.at[PART_CHOSEN];
        other.at[PART_CHOSEN_GIVEN_L] = p.at[PART_REJECTED_GIVEN_W], other.at[PART_REJECTED_GIVEN_L] = p.at[PART_CHOSEN_GIVEN_W];
        other.at[PART_CHOSEN_GIVEN_W] = p.at[PART_REJECTED_GIVEN_L], other.at[PART_REJECTED_GIVEN_W] = p.at[PART_CHOSEN_GIVEN_L];
        o.pairs = &other;
        run(&r, &o);
        for (size_t i = 0; i < n; i++)
            r.s.grads[i] = -r.s.grads[i];
        assert_true(relative_error(r.s.grads, want, n) < 1e-6);
        free(want);
    }
    free(reference);
    close_runner(&r);
    pair_sequences_free(&p);
}

/* ---- every loss ---- */

/* d loss along the gradient's own direction, against (loss(+) - loss(-)) / 2 eps: where a direction matters least to rounding. Half of it is random. */
static void check_gradient(struct runner *r, struct pair_objective *o, const char *what)
{
    const size_t n = (size_t)r->s.table.padded;
    float *saved = copy_of(r->s.weights, n), *direction = malloc(n * sizeof *direction);
    run(r, o);
    double norm = 0, random_norm = 0, slope = 0, length = 0;
    for (size_t i = 0; i < n; i++)
        norm += (double)r->s.grads[i] * r->s.grads[i], direction[i] = (float)random_normal(9, RANDOM_TEST, 0, i), random_norm += (double)direction[i] * direction[i];
    assert_true(norm > 0);
    for (size_t i = 0; i < n; i++) {
        direction[i] = (float)(r->s.grads[i] / sqrt(norm) + direction[i] / sqrt(random_norm));
        slope += (double)r->s.grads[i] * direction[i];
        length += (double)direction[i] * direction[i];
    }
    const double epsilon = 2e-3 / sqrt(length);
    double loss[2];
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++)
            r->s.weights[i] = saved[i] + (float)((side ? -epsilon : epsilon) * direction[i]);
        loss[side] = run(r, o);
    }
    memcpy(r->s.weights, saved, n * sizeof *saved);
    const double found = (loss[0] - loss[1]) / (2 * epsilon);
    if (!(fabs(found - slope) < 5e-3 * fabs(slope)))
        fail_msg("%s: slope %.6g, by differences %.6g", what, slope, found);
    free(saved), free(direction);
}

static void every_loss(void **state)
{
    (void)state;
    struct pair_sequences p;
    struct runner r, reference;
    random_pairs(&p, 3, true, true, false);
    open_runner(&r, GOLDEN "/plain/model", 8, 64);
    open_runner(&reference, GOLDEN "/plain/reference", 4, 64);
    double *log_probs = log_probs_of(&reference, &p);
    int n = 0;
    for (const struct preference_loss *l = preference_losses; l->name; l++, n++) {
        struct pair_objective o = objective_of(l->name, 0, &p, l->reference ? log_probs : NULL);
        o.params.kl = o.params.desirable_weight > 0 ? 0.3 : 0;
        check_gradient(&r, &o, l->name);
        o.alpha = 0.5, o.reference = log_probs;
        if (l->reference)
            check_gradient(&r, &o, "with the refinement loss");
        if (l->defaults.beta > 0) { /* 0.05: away from the defaults */
            o.params.beta = 0.05, o.params.nll_weight = 0.2, o.alpha = 0;
            check_gradient(&r, &o, "with NLL");
        }
    }
    assert_true(n >= 18);
    free(log_probs);
    close_runner(&r);
    close_runner(&reference);
    pair_sequences_free(&p);
}

static void single_answers(void **state)
{
    (void)state;
    struct pair_sequences p;
    struct runner r, reference;
    random_pairs(&p, 6, false, false, true);
    open_runner(&r, GOLDEN "/plain/model", 8, 64);
    open_runner(&reference, GOLDEN "/plain/reference", 4, 64);
    double *log_probs = log_probs_of(&reference, &p), *now = log_probs_of(&r, &p);
    int n = 0;
    for (const struct preference_loss *l = preference_losses; l->name; l++) {
        if (!l->single)
            continue;
        struct pair_objective o = objective_of(l->name, 0, &p, log_probs);
        o.params.kl = o.params.desirable_weight > 0 ? 0.2 : 0;
        double want = 0, loss, d;
        for (int i = 0; i < 6; i++) {
            l->single(now[2 * i] - log_probs[2 * i], p.desirable[i], &o.params, &loss, &d);
            want += loss;
        }
        assert_true(fabs(run(&r, &o) - want) < 1e-5 * fabs(want));
        assert_true(o.sums[SUM_PAIRS] == 6 && o.sums[SUM_CHOSEN] == 4 && o.sums[SUM_REJECTED] == 2);
        check_gradient(&r, &o, l->name);
        n++;
    }
    assert_true(n >= 3);
    free(log_probs), free(now);
    close_runner(&r);
    close_runner(&reference);
    pair_sequences_free(&p);
}

/* ---- where it leads ---- */

/* Steepest descent with a little momentum on eight pairs: both answers are told apart, and h goes to 1 / (2 beta). */
static void overfitting(void **state)
{
    (void)state;
    struct pair_sequences p;
    struct runner r;
    random_pairs(&p, 8, true, true, false);
    open_runner(&r, GOLDEN "/plain/model", 16, 64);
    double *reference = log_probs_of(&r, &p);
    const size_t n = (size_t)r.s.table.padded;
    float *m = calloc(n, sizeof *m), *v = calloc(n, sizeof *v);
    struct pair_objective o = objective_of("sigmoid", 0.8, &p, reference);
    o.beta_refine = 0.25;
    double loss = 0;
    for (int step = 1; step <= 150; step++) { /* Adam, by hand */
        loss = run(&r, &o) / 8;
        const double rate = 3e-3 * (1 - (step - 1) / 150.0);
        for (size_t i = 0; i < n; i++) {
            const double g = r.s.grads[i] / 8;
            m[i] = (float)(0.9 * m[i] + 0.1 * g), v[i] = (float)(0.99 * v[i] + 0.01 * g * g);
            r.s.weights[i] -= (float)(rate * (m[i] / (1 - pow(0.9, step))) / (sqrt(v[i] / (1 - pow(0.99, step))) + 1e-8));
        }
    }
    if (!(o.sums[SUM_ACCURACY] == 8 && o.sums[SUM_ACC_L] == 8 && o.sums[SUM_ACC_W] == 8 && fabs(o.sums[SUM_H_L] / 8 - 2) < 0.05 && fabs(o.sums[SUM_H_W] / 8 - 2) < 0.05))
        fail_msg("loss %g, accuracies %g %g %g of 8, h %g and %g, expected 2", loss, o.sums[SUM_ACCURACY], o.sums[SUM_ACC_L], o.sums[SUM_ACC_W], o.sums[SUM_H_L] / 8,
                 o.sums[SUM_H_W] / 8);
    free(m), free(v), free(reference);
    close_runner(&r);
    pair_sequences_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_golden_gradient), cmocka_unit_test(at_the_start), cmocka_unit_test(shapes), cmocka_unit_test(accumulation),
                                       cmocka_unit_test(exchanged), cmocka_unit_test(every_loss), cmocka_unit_test(single_answers), cmocka_unit_test(overfitting)};
    return RUN_WITH_EVERY_TABLE(tests, NULL, NULL);
}
