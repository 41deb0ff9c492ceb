#include "train/align/preference_loss.h"

#include <math.h>
#include <string.h>

/* 1 / (1 + e^-x) */
static double sigmoid(double x)
{
    const double e = exp(-fabs(x));
    return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}

/* log sigmoid(x), which is x itself far on the left */
static double log_sigmoid(double x) { return fmin(x, 0) - log1p(exp(-fabs(x))); }

/* log(1 - e^x) for x < 0: each form where the other cancels (Maechler, "Accurately computing log(1 - exp(-|a|))", 2012). */
static double log1mexp(double x) { return x > -0.6931471805599453 ? log(-expm1(x)) : log1p(-exp(x)); }

static double chosen_ratio(const struct pair_log_probs *p) { return p->chosen - p->ref_chosen; }
static double rejected_ratio(const struct pair_log_probs *p) { return p->rejected - p->ref_rejected; }
static double margin(const struct pair_log_probs *p) { return chosen_ratio(p) - rejected_ratio(p); }

/* A loss of one number z, whose derivatives are dz / d chosen = scale_w and dz / d rejected = -scale_l. */
static struct preference_value of_margin(double loss, double d_z, double scale_w, double scale_l)
{
    return (struct preference_value){loss, d_z * scale_w, -d_z * scale_l};
}

/* -(1 - eps) log s(z) - eps log s(-z); its derivative is s(z) - (1 - eps). */
static struct preference_value cross_entropy(double z, double eps, double scale_w, double scale_l)
{
    const double loss = -(1 - eps) * log_sigmoid(z) - eps * log_sigmoid(-z);
    return of_margin(loss, eps * sigmoid(z) - (1 - eps) * sigmoid(-z), scale_w, scale_l);
}

static void dpo_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    *v = cross_entropy(o->beta * margin(p), 0, o->beta, o->beta);
}

static void cdpo_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    *v = cross_entropy(o->beta * margin(p), o->label_smoothing, o->beta, o->beta);
}

static void cpo_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    *v = cross_entropy(o->beta * (p->chosen - p->rejected), 0, o->beta, o->beta);
}

static void normalised_dpo_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    const double z = o->beta * (chosen_ratio(p) / p->n_chosen - rejected_ratio(p) / p->n_rejected);
    *v = cross_entropy(z, 0, o->beta / p->n_chosen, o->beta / p->n_rejected);
}

static void simpo_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    const double z = o->beta * (p->chosen / p->n_chosen - p->rejected / p->n_rejected) - o->gamma;
    *v = cross_entropy(z, 0, o->beta / p->n_chosen, o->beta / p->n_rejected);
}

static void robust_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    const double z = o->beta * margin(p), eps = o->label_smoothing, scale = 1 / (1 - 2 * eps);
    const double loss = scale * (eps * log_sigmoid(-z) - (1 - eps) * log_sigmoid(z));
    *v = of_margin(loss, -scale * ((1 - eps) * sigmoid(-z) + eps * sigmoid(z)), o->beta, o->beta);
}

static void hinge_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    const double slack = 1 - o->beta * margin(p);
    *v = of_margin(fmax(slack, 0), slack > 0 ? -1 : 0, o->beta, o->beta);
}

static void ipo_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    const double k = chosen_ratio(p) / p->n_chosen - rejected_ratio(p) / p->n_rejected - 1 / (2 * o->beta);
    *v = of_margin(k * k, 2 * k, 1.0 / p->n_chosen, 1.0 / p->n_rejected);
}

static void ipo_sum_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    const double k = margin(p) - 1 / (2 * o->beta);
    *v = of_margin(k * k, 2 * k, 1, 1);
}

/* KL(model's preference || smoothed label), both over {chosen, rejected} */
static void exo_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    const double z = o->beta * margin(p), s = sigmoid(z), t = sigmoid(-z);
    const double to_chosen = log_sigmoid(z) - log1p(-o->label_smoothing), to_rejected = log_sigmoid(-z) - log(o->label_smoothing);
    *v = of_margin(s * to_chosen + t * to_rejected, s * t * (to_chosen - to_rejected), o->beta, o->beta);
}

static void sppo_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    const double w = chosen_ratio(p) - 1 / (2 * o->beta), l = rejected_ratio(p) + 1 / (2 * o->beta);
    *v = (struct preference_value){w * w + l * l, 2 * w, 2 * l};
}

static void nca_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    const double w = o->beta * chosen_ratio(p), l = o->beta * rejected_ratio(p);
    v->loss = -log_sigmoid(w) - 0.5 * (log_sigmoid(-w) + log_sigmoid(-l));
    v->d_chosen = o->beta * (0.5 * sigmoid(w) - sigmoid(-w));
    v->d_rejected = o->beta * 0.5 * sigmoid(l);
}

static void apo_down_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    const double w = o->beta * chosen_ratio(p), z = o->beta * margin(p);
    const double slope_w = sigmoid(w) * sigmoid(-w), slope_z = sigmoid(z) * sigmoid(-z);
    *v = (struct preference_value){sigmoid(w) + sigmoid(-z), o->beta * (slope_w - slope_z), o->beta * slope_z};
}

/* Token means A, C of the log-probabilities; L = -A - lambda log s(z), z = log odds(e^A) - log odds(e^C). The derivative of z goes to
 * infinity as an answer becomes certain: for A its product with s(-z) stays finite and is written out below, for C it does not, hence
 * the bound: a mean closer to 0 than float32 tells apart from it. */
static void orpo_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    const double bound = -0x1p-24;
    const double a = fmin(p->chosen / p->n_chosen, bound), c = fmin(p->rejected / p->n_rejected, bound);
    const double z = (a - c) - (log1mexp(a) - log1mexp(c));
    const double not_a = -expm1(a), not_c = -expm1(c);
    const double slope = 1 / (not_a + exp(a - c) * not_c); /* s(-z) / (1 - e^A) */
    v->loss = -a - o->lambda * log_sigmoid(z);
    v->d_chosen = (-1 - o->lambda * slope) / p->n_chosen;
    v->d_rejected = o->lambda * slope * not_a / (not_c * p->n_rejected);
}

/* Losses of single answers: a is its log-ratio to the reference. */

static void kto_single(double a, bool desirable, const struct preference_params *o, double *loss, double *d)
{
    const double sign = desirable ? 1 : -1, weight = desirable ? o->desirable_weight : o->undesirable_weight;
    const double z = sign * o->beta * (a - o->kl);
    *loss = weight * sigmoid(-z);
    *d = -sign * weight * o->beta * sigmoid(z) * sigmoid(-z);
}

static void bco_single(double a, bool desirable, const struct preference_params *o, double *loss, double *d)
{
    const double sign = desirable ? 1 : -1, z = sign * o->beta * a;
    *loss = -log_sigmoid(z);
    *d = -sign * o->beta * sigmoid(-z);
}

static void apo_zero_single(double a, bool desirable, const struct preference_params *o, double *loss, double *d)
{
    const double sign = desirable ? 1 : -1, z = sign * o->beta * a;
    *loss = sigmoid(-z);
    *d = -sign * o->beta * sigmoid(z) * sigmoid(-z);
}

/* A pair of them is a desirable and an undesirable answer. */
static void both(void (*single)(double, bool, const struct preference_params *, double *, double *), const struct pair_log_probs *p,
                 const struct preference_params *o, struct preference_value *v)
{
    double rejected;
    single(chosen_ratio(p), true, o, &v->loss, &v->d_chosen);
    single(rejected_ratio(p), false, o, &rejected, &v->d_rejected);
    v->loss += rejected;
}

static void kto_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v) { both(kto_single, p, o, v); }
static void bco_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v) { both(bco_single, p, o, v); }
static void apo_zero_value(const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    both(apo_zero_single, p, o, v);
}

const struct preference_loss preference_losses[] = {
    {"sigmoid", "DPO", true, false, false, {.beta = 0.1}, dpo_value, NULL},
    {"cdpo", "conservative DPO (label smoothing)", true, false, false, {.beta = 0.1, .label_smoothing = 0.1}, cdpo_value, NULL},
    {"robust", "robust DPO (noisy labels)", true, false, false, {.beta = 0.1, .label_smoothing = 0.1}, robust_value, NULL},
    {"rpo", "DPO + NLL of the chosen answer (RPO)", true, false, false, {.beta = 0.1, .nll_weight = 1}, dpo_value, NULL},
    {"sigmoid_norm", "length-normalised DPO", true, true, false, {.beta = 5}, normalised_dpo_value, NULL},
    {"hinge", "hinge (SLiC, RSO)", true, false, false, {.beta = 0.1}, hinge_value, NULL},
    {"ipo", "IPO (token mean)", true, true, false, {.beta = 0.1}, ipo_value, NULL},
    {"ipo_sum", "IPO (sum)", true, false, false, {.beta = 0.1}, ipo_sum_value, NULL},
    {"exo_pair", "EXO", true, false, false, {.beta = 0.1, .label_smoothing = 1e-3}, exo_value, NULL},
    {"nca_pair", "NCA", true, false, false, {.beta = 0.01}, nca_value, NULL},
    {"bco_pair", "BCO", true, false, true, {.beta = 0.1}, bco_value, bco_single},
    {"sppo_hard", "SPPO", true, false, false, {.beta = 0.001}, sppo_value, NULL},
    {"apo_zero", "APO-zero", true, false, true, {.beta = 0.05}, apo_zero_value, apo_zero_single},
    {"apo_down", "APO-down", true, false, false, {.beta = 0.1}, apo_down_value, NULL},
    {"kto", "KTO", true, false, true, {.beta = 0.1, .desirable_weight = 1, .undesirable_weight = 1}, kto_value, kto_single},
    {"simpo", "SimPO", false, true, false, {.beta = 2.5, .gamma = 1.375}, simpo_value, NULL},
    {"cpo", "CPO", false, false, false, {.beta = 0.1, .nll_weight = 1}, cpo_value, NULL},
    {"orpo", "ORPO", false, true, false, {.lambda = 0.1}, orpo_value, NULL},
    {0},
};

static const struct {
    const char *alias, *name;
} aliases[] = {
    {"dpo", "sigmoid"}, {"dpo_norm", "sigmoid_norm"}, {"slic", "hinge"}, {"rso", "hinge"}, {"irpo", "rpo"}, {"dpo_nll", "rpo"}, {"ipo_mean", "ipo"},
    {"exo", "exo_pair"}, {"nca", "nca_pair"}, {"bco", "bco_pair"}, {"sppo", "sppo_hard"}, {"kto_pair", "kto"},
};

const struct preference_loss *preference_loss_find(const char *name)
{
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (!strcmp(name, aliases[i].alias))
            name = aliases[i].name;
    for (const struct preference_loss *l = preference_losses; l->name; l++)
        if (!strcmp(name, l->name))
            return l;
    return NULL;
}

/* What the field must be: `used` says whether the loss has it at all, `valid` whether the value is in `range`. */
static int check_field(const struct preference_loss *l, const char *field, double value, bool used, bool valid, const char *range, struct plm_status *st)
{
    if (!used && value != 0)
        return status_set(st, PLM_EINVAL, "%s: the loss '%s' (%s) has none; leave it out", field, l->name, l->label);
    if (used && !(valid && isfinite(value)))
        return status_set(st, PLM_EINVAL, "%s: %g makes no sense for the loss '%s' (%s); expected %s", field, value, l->name, l->label, range);
    return PLM_OK;
}

int preference_params_check(const struct preference_loss *l, const struct preference_params *o, struct plm_status *st)
{
    const struct preference_params *d = &l->defaults;
    const bool kto = d->desirable_weight != 0, exo = l->value == exo_value;
    const double eps = o->label_smoothing;
    const struct {
        const char *field;
        double value;
        bool used, valid;
        const char *range;
    } fields[] = {
        {"beta", o->beta, d->beta != 0, o->beta > 0, "a number above 0"},
        {"label_smoothing", eps, d->label_smoothing != 0, eps < 0.5 && (exo ? eps > 0 : eps >= 0), exo ? "above 0 and below 0.5" : "at least 0 and below 0.5"},
        {"gamma", o->gamma, d->gamma != 0, o->gamma >= 0, "a number, at least 0"},
        {"lambda", o->lambda, d->lambda != 0, o->lambda >= 0, "a number, at least 0"},
        {"nll_weight", o->nll_weight, true, o->nll_weight >= 0, "a number, at least 0"},
        {"kl", o->kl, kto, o->kl >= 0, "a number, at least 0"},
        {"desirable_weight", o->desirable_weight, kto, o->desirable_weight > 0, "a number above 0"},
        {"undesirable_weight", o->undesirable_weight, kto, o->undesirable_weight > 0, "a number above 0"},
    };
    int code = PLM_OK;
    for (size_t i = 0; i < sizeof fields / sizeof *fields && !code; i++)
        code = check_field(l, fields[i].field, fields[i].value, fields[i].used, fields[i].valid, fields[i].range, st);
    return code;
}

void preference_value(const struct preference_loss *l, const struct pair_log_probs *p, const struct preference_params *o, struct preference_value *v)
{
    l->value(p, o, v);
    v->loss -= o->nll_weight * p->chosen / p->n_chosen;
    v->d_chosen -= o->nll_weight / p->n_chosen;
}

void refine_loss(const struct pair_log_probs *given_l, const struct pair_log_probs *given_w, double beta, struct refine_value *v)
{
    v->h_l = margin(given_l), v->h_w = margin(given_w);
    const double short_l = 0.5 - beta * v->h_l, short_w = 0.5 - beta * v->h_w;
    v->loss_l = short_l * short_l, v->loss_w = short_w * short_w;
    v->loss = v->loss_l + v->loss_w;
    v->d_chosen_given_l = -2 * beta * short_l, v->d_rejected_given_l = 2 * beta * short_l;
    v->d_chosen_given_w = -2 * beta * short_w, v->d_rejected_given_w = 2 * beta * short_w;
}

double kto_reference_point(const double *policy, const double *reference, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += policy[i] - reference[i];
    return n > 0 ? fmax(0, sum / (double)n) : 0;
}
