/* Preference losses: golden values of an independent float64 program, finite differences, symmetries, and arguments far out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "infer/base/random.h"
#include "train/align/preference_loss.h"

#define LN2 0.6931471805599453

static double relative(double got, double want) { return fabs(got - want) / fmax(fabs(want), 1e-300); }

static const struct preference_loss *find(const char *name)
{
    const struct preference_loss *l = preference_loss_find(name);
    if (!l)
        fail_msg("there is no loss '%s'", name);
    return l;
}

/* One pair: policy -42.5 and -55.25, reference -44 and -52, 20 and 30 tokens. */
static const struct pair_log_probs golden_pair = {-42.5, -55.25, -44, -52, 20, 30};
static const struct {
    const char *name;
    struct preference_params params;
    double loss, d_chosen, d_rejected;
} golden[] = {
    {"sigmoid", {.beta = 0.1}, 0.48358908787082466, -0.03834334954786807, 0.03834334954786807},
    {"cdpo", {.beta = 0.1, .label_smoothing = 0.1}, 0.5310890878708248, -0.02834334954786807, 0.02834334954786807},
    {"robust", {.beta = 0.1, .label_smoothing = 0.1}, 0.42421408787082465, -0.050843349547868066, 0.050843349547868066},
    {"hinge", {.beta = 0.1}, 0.525, -0.1, 0.1},
    {"ipo", {.beta = 0.1}, 23.200277777777774, -0.48166666666666663, 0.32111111111111107},
    {"ipo_sum", {.beta = 0.1}, 0.0625, -0.5, 0.5},
    {"sigmoid_norm", {.beta = 5}, 0.33636484110084, -0.07140939262723602, 0.04760626175149067},
    {"simpo", {.beta = 2.5, .gamma = 1.375}, 2.200684694893302, -0.111159085253454, 0.074106056835636},
    {"orpo", {.lambda = 0.1}, 2.2120986641980656, -0.05330163168239695, 0.002303419261216371},
    {"kto", {.beta = 0.1, .kl = 0.7, .desirable_weight = 1, .undesirable_weight = 1}, 0.8825248940174021, -0.024960042628014448, 0.024049652546112018},
    {"bco_pair", {.beta = 0.1}, 1.16474965176771, -0.04625701546562505, 0.041945769517934044},
    {"nca_pair", {.beta = 0.01}, 1.3745275609442182, -0.0024437510546637706, 0.002459378575468696},
    {"sppo_hard", {.beta = 0.1}, 15.3125, -7, 3.5},
    {"apo_zero", {.beta = 0.1}, 0.8820278498355908, -0.0248599006677543, 0.0243512937134176},
    {"apo_down", {.beta = 0.1}, 0.9208633408224303, 0.0012186756653861765, 0.023641225002368125},
    {"exo_pair", {.beta = 0.1, .label_smoothing = 1e-3}, 1.9835616293016813, -0.15205456188208682, 0.15205456188208682},
    {"rpo", {.beta = 0.1, .nll_weight = 1}, 2.6085890878708247, -0.08834334954786807, 0.03834334954786807},
};

static void golden_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        const struct preference_loss *l = find(golden[i].name);
        struct preference_value v;
        struct plm_status st = {0};
        if (preference_params_check(l, &golden[i].params, &st))
            fail_msg("%s: %s", l->name, st.message);
        preference_value(l, &golden_pair, &golden[i].params, &v);
        if (!(relative(v.loss, golden[i].loss) < 1e-9 && relative(v.d_chosen, golden[i].d_chosen) < 1e-9
              && relative(v.d_rejected, golden[i].d_rejected) < 1e-9))
            fail_msg("%s: %.15g %.15g %.15g, expected %.15g %.15g %.15g", l->name, v.loss, v.d_chosen, v.d_rejected, golden[i].loss, golden[i].d_chosen,
                     golden[i].d_rejected);
    }
}

/* After (x, y_l, z) and after (x, y_w, z). */
static const struct pair_log_probs given_l = {-30, -20, -33, -19, 20, 30}, given_w = {-12, -48, -12.5, -47, 20, 30};

static void golden_refinement(void **state)
{
    (void)state;
    struct refine_value r;
    struct preference_value dpo;
    refine_loss(&given_l, &given_w, 0.1, &r);
    assert_true(r.h_l == 4 && r.h_w == 1.5);
    assert_true(relative(r.loss, 0.1325) < 1e-9 && relative(r.loss_l + r.loss_w, r.loss) < 1e-15);
    assert_true(relative(r.d_chosen_given_l, -0.02) < 1e-9 && relative(r.d_rejected_given_l, 0.02) < 1e-9);
    assert_true(relative(r.d_chosen_given_w, -0.07) < 1e-9 && relative(r.d_rejected_given_w, 0.07) < 1e-9);
    preference_value(find("dpo"), &golden_pair, &find("dpo")->defaults, &dpo);
    assert_true(relative(0.2 * dpo.loss + 0.8 * r.loss, 0.2027178175741649) < 1e-9);
}

static double uniform(uint64_t *at, double low, double high)
{
    return low + (high - low) * random_uniform(5, RANDOM_TEST, 0, (*at)++);
}

static struct pair_log_probs random_pair(uint64_t *at)
{
    struct pair_log_probs p = {.n_chosen = 1 + (int)uniform(at, 0, 40), .n_rejected = 1 + (int)uniform(at, 0, 40)};
    p.chosen = uniform(at, -3, -0.05) * p.n_chosen, p.rejected = uniform(at, -3, -0.05) * p.n_rejected;
    p.ref_chosen = p.chosen + uniform(at, -15, 15), p.ref_rejected = p.rejected + uniform(at, -15, 15);
    return p;
}

/* Fourth-order central difference of the loss in *x. */
static double difference(const struct preference_loss *l, const struct pair_log_probs *p, const struct preference_params *o, double *x)
{
    static const double steps[] = {-2, -1, 1, 2}, factors[] = {1, -8, 8, -1};
    const double at = *x, h = 1e-3;
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        struct preference_value v;
        *x = at + steps[i] * h;
        preference_value(l, p, o, &v);
        sum += factors[i] * v.loss;
    }
    *x = at;
    return sum / (12 * h);
}

static void finite_differences(void **state)
{
    (void)state;
    uint64_t at = 0;
    for (const struct preference_loss *l = preference_losses; l->name; l++)
        for (int trial = 0; trial < 40; trial++) {
            struct pair_log_probs p = random_pair(&at);
            struct preference_params o = l->defaults;
            o.beta *= uniform(&at, 0.5, 4);
            o.nll_weight = uniform(&at, 0, 1);
            o.kl = o.desirable_weight > 0 ? uniform(&at, 0, 3) : 0;
            o.desirable_weight *= 1.33, o.undesirable_weight *= 0.7;
            assert_int_equal(preference_params_check(l, &o, NULL), PLM_OK);
            struct preference_value v;
            preference_value(l, &p, &o, &v);
            const double margin = (p.chosen - p.ref_chosen) - (p.rejected - p.ref_rejected);
            if (l->value == find("hinge")->value && fabs(1 - o.beta * margin) < 0.01)
                continue; /* at its corner */
            const double w = difference(l, &p, &o, &p.chosen), r = difference(l, &p, &o, &p.rejected);
            const double scale = fmax(1, fmax(fabs(v.d_chosen), fabs(v.d_rejected)));
            if (!(fabs(w - v.d_chosen) < 1e-8 * scale && fabs(r - v.d_rejected) < 1e-8 * scale))
                fail_msg("%s: derivatives %.12g %.12g, differences %.12g %.12g", l->name, v.d_chosen, v.d_rejected, w, r);
        }
}

static void refinement_differences(void **state)
{
    (void)state;
    uint64_t at = 1 << 20;
    for (int trial = 0; trial < 40; trial++) {
        struct pair_log_probs l = random_pair(&at), w = random_pair(&at);
        struct refine_value v, up, down;
        double beta = uniform(&at, 0.02, 0.5);
        refine_loss(&l, &w, beta, &v);
        double *const x[] = {&l.chosen, &l.rejected, &w.chosen, &w.rejected};
        const double want[] = {v.d_chosen_given_l, v.d_rejected_given_l, v.d_chosen_given_w, v.d_rejected_given_w};
        for (int i = 0; i < 4; i++) {
            const double here = *x[i];
            *x[i] = here + 1e-3;
            refine_loss(&l, &w, beta, &up);
            *x[i] = here - 1e-3;
            refine_loss(&l, &w, beta, &down);
            *x[i] = here;
            assert_true(fabs((up.loss - down.loss) / 2e-3 - want[i]) < 1e-8);
        }
        /* beta^2 times the sum form of IPO on two longer prompts */
        const struct preference_params o = {.beta = beta};
        struct preference_value ipo_l, ipo_w;
        preference_value(find("ipo_sum"), &l, &o, &ipo_l);
        preference_value(find("ipo_sum"), &w, &o, &ipo_w);
        assert_true(relative(beta * beta * (ipo_l.loss + ipo_w.loss), v.loss) < 1e-12);
        assert_true(fabs(beta * beta * ipo_l.d_chosen - v.d_chosen_given_l) < 1e-12 && fabs(beta * beta * ipo_w.d_rejected - v.d_rejected_given_w) < 1e-12);
    }
}

/* Exchanging the answers changes the sign of the margin, and nothing else. */
static void swapped_answers(void **state)
{
    (void)state;
    uint64_t at = 1 << 21;
    static const char *const even[] = {"sigmoid", "hinge", "sigmoid_norm", "bco_pair", "cpo", "sppo_hard", "apo_zero"};
    for (size_t i = 0; i < sizeof even / sizeof *even; i++) {
        const struct preference_loss *l = find(even[i]);
        const struct pair_log_probs p = random_pair(&at);
        const struct pair_log_probs mirrored = {-p.rejected, -p.chosen, -p.ref_rejected, -p.ref_chosen, p.n_rejected, p.n_chosen};
        struct preference_value v, m;
        l->value(&p, &l->defaults, &v);
        l->value(&mirrored, &l->defaults, &m);
        if (!(relative(m.loss, v.loss) < 1e-12 && relative(m.d_chosen, -v.d_rejected) < 1e-12 && relative(m.d_rejected, -v.d_chosen) < 1e-12))
            fail_msg("%s: %g %g %g, mirrored %g %g %g", l->name, v.loss, v.d_chosen, v.d_rejected, m.loss, m.d_chosen, m.d_rejected);
    }
    const struct pair_log_probs p = random_pair(&at), s = {p.rejected, p.chosen, p.ref_rejected, p.ref_chosen, p.n_rejected, p.n_chosen};
    struct preference_value v, m;
    preference_value(find("dpo"), &p, &find("dpo")->defaults, &v);
    preference_value(find("dpo"), &s, &find("dpo")->defaults, &m);
    const double margin = (p.chosen - p.ref_chosen) - (p.rejected - p.ref_rejected);
    assert_true(fabs(m.loss - v.loss - 0.1 * margin) < 1e-12); /* -log s(-z) = -log s(z) + z */
    assert_true(fabs(fabs(v.d_chosen) + fabs(m.d_chosen) - 0.1) < 1e-15);
    struct refine_value r, q;
    const struct pair_log_probs l = random_pair(&at), w = random_pair(&at);
    const struct pair_log_probs sl = {l.rejected, l.chosen, l.ref_rejected, l.ref_chosen, 1, 1};
    const struct pair_log_probs sw = {w.rejected, w.chosen, w.ref_rejected, w.ref_chosen, 1, 1};
    refine_loss(&l, &w, 0.1, &r);
    refine_loss(&sl, &sw, 0.1, &q);
    assert_true(q.h_l == -r.h_l && q.h_w == -r.h_w);
}

static void at_the_start(void **state)
{
    (void)state;
    const struct pair_log_probs p = {-31.5, -20.25, -31.5, -20.25, 12, 9};
    struct preference_value v;
    struct refine_value r;
    preference_value(find("sigmoid"), &p, &(struct preference_params){.beta = 0.3}, &v);
    assert_true(fabs(v.loss - LN2) < 1e-15 && v.d_chosen == -0.15 && v.d_rejected == 0.15);
    refine_loss(&p, &p, 0.1, &r);
    assert_true(r.loss == 0.5 && r.d_chosen_given_l == -0.1 && r.d_chosen_given_w == -0.1 && r.d_rejected_given_l == 0.1 && r.d_rejected_given_w == 0.1);
}

/* A pair's loss is the sum of its answers' where answers stand alone. */
static void single_answers(void **state)
{
    (void)state;
    uint64_t at = 1 << 22;
    int n = 0;
    for (const struct preference_loss *l = preference_losses; l->name; l++) {
        assert_int_equal(l->unpaired, l->single != NULL);
        if (!l->single)
            continue;
        n++;
        const struct pair_log_probs p = random_pair(&at);
        struct preference_params o = l->defaults;
        o.kl = o.desirable_weight > 0 ? 1.5 : 0;
        struct preference_value v;
        double w, d_w, r, d_r;
        l->value(&p, &o, &v);
        l->single(p.chosen - p.ref_chosen, true, &o, &w, &d_w);
        l->single(p.rejected - p.ref_rejected, false, &o, &r, &d_r);
        assert_true(v.loss == w + r && v.d_chosen == d_w && v.d_rejected == d_r);
    }
    assert_int_equal(n, 3);
}

/* Nothing becomes infinite, however far a run has gone astray, and no sign flips. */
static void large_arguments(void **state)
{
    (void)state;
    static const double far[] = {-1e4, -800, -40, -1e-3, -1e-9, -1e-300, 0, 1e-9, 40, 800, 1e4};
    const int n = sizeof far / sizeof *far;
    for (const struct preference_loss *l = preference_losses; l->name; l++)
        for (int i = 0; i < n * n * n; i++) {
            const struct pair_log_probs p = {far[i % n], far[i / n % n], far[i / n / n], -far[i / n / n], 1, 1};
            struct preference_params o = l->defaults;
            o.beta = o.beta > 0 ? 1 : 0, o.label_smoothing = o.label_smoothing > 0 ? 0.1 : 0;
            struct preference_value v;
            preference_value(l, &p, &o, &v);
            if (!(isfinite(v.loss) && isfinite(v.d_chosen) && isfinite(v.d_rejected)))
                fail_msg("%s(%g, %g; %g): %g %g %g", l->name, p.chosen, p.rejected, p.ref_chosen, v.loss, v.d_chosen, v.d_rejected);
        }
    /* far on the losing side the sigmoid loss is its argument, to all digits */
    struct preference_value v;
    preference_value(find("dpo"), &(struct pair_log_probs){-1e4, 0, 0, 0, 1, 1}, &(struct preference_params){.beta = 1}, &v);
    assert_true(v.loss == 1e4 && v.d_chosen == -1 && v.d_rejected == 1);
    preference_value(find("dpo"), &(struct pair_log_probs){-1, -41, 0, 0, 1, 1}, &(struct preference_params){.beta = 1}, &v);
    assert_true(relative(v.loss, exp(-40.0)) < 1e-15 && relative(v.d_chosen, -exp(-40.0)) < 1e-15);
    /* log odds of nearly certain answers: log(p / (1 - p)) = -log(1e-6) for log p = -1e-6 */
    preference_value(find("orpo"), &(struct pair_log_probs){-1e-6, -1, 0, 0, 1, 1}, &(struct preference_params){.lambda = 1}, &v);
    const double odds = exp(-1e-6) / -expm1(-1e-6) / (exp(-1.0) / -expm1(-1.0));
    assert_true(relative(v.loss, 1e-6 + log1p(1 / odds)) < 1e-9);
}

static void reference_point(void **state)
{
    (void)state;
    const double policy[] = {-10, -20, -30}, reference[] = {-12, -21, -30.5};
    assert_true(fabs(kto_reference_point(policy, reference, 3) - 3.5 / 3) < 1e-15);
    assert_true(kto_reference_point(reference, policy, 3) == 0);
    assert_true(kto_reference_point(policy, reference, 0) == 0);
}

static void refuse(const char *name, struct preference_params o, const char *field)
{
    struct plm_status st = {0};
    assert_int_equal(preference_params_check(find(name), &o, &st), PLM_EINVAL);
    if (strncmp(st.message, field, strlen(field)) || !strstr(st.message, find(name)->name))
        fail_msg("%s: %s", name, st.message);
}

static void bad_parameters(void **state)
{
    (void)state;
    refuse("sigmoid", (struct preference_params){.beta = 0}, "beta");
    refuse("sigmoid", (struct preference_params){.beta = NAN}, "beta");
    refuse("sigmoid", (struct preference_params){.beta = HUGE_VAL}, "beta");
    refuse("sigmoid", (struct preference_params){.beta = 0.1, .label_smoothing = 0.1}, "label_smoothing");
    refuse("sigmoid", (struct preference_params){.beta = 0.1, .gamma = 1}, "gamma");
    refuse("sigmoid", (struct preference_params){.beta = 0.1, .nll_weight = -1}, "nll_weight");
    refuse("robust", (struct preference_params){.beta = 0.1, .label_smoothing = 0.5}, "label_smoothing");
    refuse("exo_pair", (struct preference_params){.beta = 0.1}, "label_smoothing");
    refuse("kto", (struct preference_params){.beta = 0.1, .undesirable_weight = 1}, "desirable_weight");
    refuse("kto", (struct preference_params){.beta = 0.1, .kl = -1, .desirable_weight = 1, .undesirable_weight = 1}, "kl");
    refuse("ipo", (struct preference_params){.beta = 0.1, .kl = 1}, "kl");
    refuse("orpo", (struct preference_params){.beta = 0.1, .lambda = 0.1}, "beta");
    refuse("simpo", (struct preference_params){.beta = 2, .gamma = -1}, "gamma");
}

static void names(void **state)
{
    (void)state;
    static const char *const others[][2] = {{"dpo", "sigmoid"}, {"dpo_norm", "sigmoid_norm"}, {"slic", "hinge"}, {"rso", "hinge"}, {"irpo", "rpo"}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_ptr_equal(find(others[i][0]), find(others[i][1]));
    assert_null(preference_loss_find("aries"));
    assert_null(preference_loss_find(""));
    for (const struct preference_loss *l = preference_losses; l->name; l++) {
        assert_ptr_equal(find(l->name), l); /* no name twice */
        assert_int_equal(preference_params_check(l, &l->defaults, NULL), PLM_OK);
        assert_true(l->label && l->value);
    }
    assert_true(!find("simpo")->reference && !find("orpo")->reference && !find("cpo")->reference && find("kto")->reference);
}

/* What a loss is said to need is what it reads. */
static void declared_needs(void **state)
{
    (void)state;
    for (const struct preference_loss *l = preference_losses; l->name; l++) {
        const struct pair_log_probs p = {-31, -28, -30, -29, 12, 9};
        struct pair_log_probs moved = p, longer = p;
        moved.ref_chosen -= 1, moved.ref_rejected += 2;
        longer.n_chosen *= 2, longer.n_rejected *= 3;
        struct preference_value v, m, n;
        l->value(&p, &l->defaults, &v);
        l->value(&moved, &l->defaults, &m);
        l->value(&longer, &l->defaults, &n);
        if ((v.loss != m.loss) != l->reference || (v.loss != n.loss) != l->normalised)
            fail_msg("%s: reference %d, normalised %d", l->name, l->reference, l->normalised);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_values),   cmocka_unit_test(golden_refinement), cmocka_unit_test(finite_differences), cmocka_unit_test(refinement_differences),
        cmocka_unit_test(swapped_answers), cmocka_unit_test(at_the_start),      cmocka_unit_test(single_answers),     cmocka_unit_test(large_arguments),
        cmocka_unit_test(reference_point), cmocka_unit_test(bad_parameters),    cmocka_unit_test(names),              cmocka_unit_test(declared_needs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
