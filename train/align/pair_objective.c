#include "train/align/pair_objective.h"

double sequence_log_prob(const struct examples *e, int64_t s, const float *log_probs)
{
    double sum = 0;
    for (int64_t t = e->begin[s]; t < e->begin[s + 1]; t++)
        sum += log_probs[t]; /* 0 where it is no target */
    return sum;
}

/* One pair under way. */
struct pair_view {
    const struct pair_objective *o;
    int64_t pair;
    const float *log_probs;
    float *coef;
};

static int64_t part_sequence(const struct pair_view *v, enum pair_part part) { return v->pair * v->o->pairs->per_pair + v->o->pairs->at[part]; }
static double policy(const struct pair_view *v, enum pair_part part) { return sequence_log_prob(&v->o->pairs->e, part_sequence(v, part), v->log_probs); }
static double reference(const struct pair_view *v, enum pair_part part) { return v->o->reference ? v->o->reference[part_sequence(v, part)] : 0; }
static int length(const struct pair_view *v, enum pair_part part) { return v->o->pairs->lengths[part_sequence(v, part)]; }

/* Every target token of a sequence has its sum's derivative. (Set, not added: a pair that is twice in a micro-batch has the same one in both places.) */
static void spread(const struct pair_view *v, enum pair_part part, double derivative)
{
    const struct examples *e = &v->o->pairs->e;
    const int64_t s = part_sequence(v, part);
    for (int64_t t = e->begin[s]; t < e->begin[s + 1]; t++)
        v->coef[t] = e->target.data[t] ? (float)derivative : 0;
}

static struct pair_log_probs log_probs_of(const struct pair_view *v, enum pair_part w, enum pair_part l)
{
    return (struct pair_log_probs){policy(v, w), policy(v, l), reference(v, w), reference(v, l), length(v, w), length(v, l)};
}

/* What a log-ratio is multiplied by to be shown as a reward: beta, or what the loss has instead. */
static double reward_scale(const struct pair_objective *o) { return o->params.beta > 0 ? o->params.beta : o->params.lambda > 0 ? o->params.lambda : 1; }

static void add_pair(struct pair_objective *o, const struct pair_view *v)
{
    const double beta = reward_scale(o);
    const struct pair_log_probs p = log_probs_of(v, PART_CHOSEN, PART_REJECTED);
    struct preference_value value;
    preference_value(o->loss, &p, &o->params, &value);
    spread(v, PART_CHOSEN, (1 - o->alpha) * value.d_chosen);
    spread(v, PART_REJECTED, (1 - o->alpha) * value.d_rejected);
    double loss = (1 - o->alpha) * value.loss;
    o->sums[SUM_DIRECT] += value.loss;
    const double chosen = beta * (p.chosen - p.ref_chosen), rejected = beta * (p.rejected - p.ref_rejected);
    o->sums[SUM_REWARD_CHOSEN] += chosen;
    o->sums[SUM_REWARD_REJECTED] += rejected;
    o->sums[SUM_ACCURACY] += chosen > rejected;
    o->sums[SUM_LOGP_CHOSEN] += p.chosen;
    o->sums[SUM_LOGP_REJECTED] += p.rejected;
    o->sums[SUM_CHOSEN]++;
    o->sums[SUM_REJECTED]++;
    o->sums[SUM_TOKENS] += p.n_chosen + p.n_rejected;
    if (o->alpha > 0) {
        const struct pair_log_probs given_l = log_probs_of(v, PART_CHOSEN_GIVEN_L, PART_REJECTED_GIVEN_L);
        const struct pair_log_probs given_w = log_probs_of(v, PART_CHOSEN_GIVEN_W, PART_REJECTED_GIVEN_W);
        struct refine_value r;
        refine_loss(&given_l, &given_w, o->beta_refine, &r);
        spread(v, PART_CHOSEN_GIVEN_L, o->alpha * r.d_chosen_given_l);
        spread(v, PART_REJECTED_GIVEN_L, o->alpha * r.d_rejected_given_l);
        spread(v, PART_CHOSEN_GIVEN_W, o->alpha * r.d_chosen_given_w);
        spread(v, PART_REJECTED_GIVEN_W, o->alpha * r.d_rejected_given_w);
        loss += o->alpha * r.loss;
        o->sums[SUM_REFINE_L] += r.loss_l;
        o->sums[SUM_REFINE_W] += r.loss_w;
        o->sums[SUM_H_L] += r.h_l;
        o->sums[SUM_H_W] += r.h_w;
        o->sums[SUM_ACC_L] += r.h_l > 0;
        o->sums[SUM_ACC_W] += r.h_w > 0;
    }
    o->sums[SUM_LOSS] += loss;
    o->sums[SUM_PAIRS]++;
}

/* An answer that stands alone: desirable or not. */
static void add_single(struct pair_objective *o, const struct pair_view *v)
{
    const bool desirable = o->pairs->desirable[v->pair];
    const double log_prob = policy(v, PART_CHOSEN), a = log_prob - reference(v, PART_CHOSEN);
    double loss, derivative;
    o->loss->single(a, desirable, &o->params, &loss, &derivative);
    spread(v, PART_CHOSEN, derivative);
    o->sums[SUM_LOSS] += loss;
    o->sums[SUM_DIRECT] += loss;
    o->sums[desirable ? SUM_REWARD_CHOSEN : SUM_REWARD_REJECTED] += reward_scale(o) * a;
    o->sums[desirable ? SUM_LOGP_CHOSEN : SUM_LOGP_REJECTED] += log_prob;
    o->sums[desirable ? SUM_CHOSEN : SUM_REJECTED]++;
    o->sums[SUM_TOKENS] += length(v, PART_CHOSEN);
    o->sums[SUM_PAIRS]++;
}

int pair_coefficients(void *ctx, const struct micro_batches *m, int64_t i, const float *log_probs, float *coef, struct plm_status *st)
{
    struct pair_objective *o = ctx;
    (void)st;
    for (int64_t k = m->begin[i]; k < m->begin[i + 1]; k++) {
        const int64_t sequence = m->placed[k].sequence;
        if (sequence % o->pairs->per_pair != o->pairs->at[PART_CHOSEN]) /* once per pair, at its first sequence */
            continue;
        const struct pair_view v = {o, sequence / o->pairs->per_pair, log_probs, coef};
        if (o->pairs->at[PART_REJECTED] >= 0)
            add_pair(o, &v);
        else
            add_single(o, &v);
    }
    return PLM_OK;
}

int pair_metrics(const struct pair_objective *o, const double sums[PAIR_SUMS], struct metric metrics[PAIR_METRICS])
{
    const double pairs = sums[SUM_PAIRS] > 0 ? sums[SUM_PAIRS] : 1, chosen = sums[SUM_CHOSEN] > 0 ? sums[SUM_CHOSEN] : 1,
                 rejected = sums[SUM_REJECTED] > 0 ? sums[SUM_REJECTED] : 1;
    const bool paired = o->pairs->at[PART_REJECTED] >= 0;
    int n = 0;
    metrics[n++] = (struct metric){"loss", sums[SUM_LOSS] / pairs, NULL};
    if (o->alpha > 0) {
        metrics[n++] = (struct metric){"loss/dpo", sums[SUM_DIRECT] / pairs, NULL};
        metrics[n++] = (struct metric){"loss/refine_l", sums[SUM_REFINE_L] / pairs, NULL};
        metrics[n++] = (struct metric){"loss/refine_w", sums[SUM_REFINE_W] / pairs, NULL};
        metrics[n++] = (struct metric){"refine/h_l", sums[SUM_H_L] / pairs, NULL};
        metrics[n++] = (struct metric){"refine/h_w", sums[SUM_H_W] / pairs, NULL};
        metrics[n++] = (struct metric){"refine/acc_l", sums[SUM_ACC_L] / pairs, NULL};
        metrics[n++] = (struct metric){"refine/acc_w", sums[SUM_ACC_W] / pairs, NULL};
    }
    metrics[n++] = (struct metric){"rewards/chosen", sums[SUM_REWARD_CHOSEN] / chosen, NULL};
    metrics[n++] = (struct metric){"rewards/rejected", sums[SUM_REWARD_REJECTED] / rejected, NULL};
    metrics[n++] = (struct metric){"rewards/margins", sums[SUM_REWARD_CHOSEN] / chosen - sums[SUM_REWARD_REJECTED] / rejected, NULL};
    if (paired)
        metrics[n++] = (struct metric){"rewards/accuracies", sums[SUM_ACCURACY] / pairs, NULL};
    metrics[n++] = (struct metric){"logps/chosen", sums[SUM_LOGP_CHOSEN] / chosen, NULL};
    metrics[n++] = (struct metric){"logps/rejected", sums[SUM_LOGP_REJECTED] / rejected, NULL};
    if (o->loss->unpaired && o->pairs->at[PART_MISMATCHED] >= 0)
        metrics[n++] = (struct metric){"kl", o->params.kl, NULL};
    metrics[n++] = (struct metric){"num_tokens", sums[SUM_TOKENS], NULL};
    return n;
}
