#include "train/align/reward_model.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *reward_statistics_to_json(const struct reward_statistics *s)
{
    json_t *root = json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "step", (json_int_t)s->step, "pairs", (json_int_t)s->pairs, "loss", s->loss, "accuracy",
                             s->accuracy, "margin", s->margin, "mean", s->mean, "deviation", s->deviation);
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    return text;
}

int reward_statistics_read(struct reward_statistics *s, const char *dir, struct plm_status *st)
{
    char path[PATH_MAX];
    *s = (struct reward_statistics){0};
    if (snprintf(path, sizeof path, "%s/" REWARD_FILE, dir) >= (int)sizeof path)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", dir);
    if (access(path, R_OK) != 0)
        return status_set(st, PLM_EINVAL, "'%s' is no reward model: cannot read " REWARD_FILE " in it (%s); plm reward trains one", dir, strerror(errno));
    json_error_t error;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return status_set(st, PLM_EFORMAT, "%s:%d:%d: %s", path, error.line, error.column, error.text);
    const struct {
        const char *name;
        double *real;
        int64_t *whole;
    } fields[] = {{"step", NULL, &s->step}, {"pairs", NULL, &s->pairs}, {"loss", &s->loss, NULL}, {"accuracy", &s->accuracy, NULL},
                  {"margin", &s->margin, NULL}, {"mean", &s->mean, NULL}, {"deviation", &s->deviation, NULL}};
    int code = PLM_OK;
    for (size_t i = 0; i < sizeof fields / sizeof *fields && !code; i++) {
        const json_t *v = json_object_get(root, fields[i].name);
        if (fields[i].whole ? !json_is_integer(v) : !json_is_number(v))
            code = status_set(st, PLM_EFORMAT, "%s: %s: expected a %snumber", path, fields[i].name, fields[i].whole ? "whole " : "");
        else if (fields[i].whole)
            *fields[i].whole = json_integer_value(v);
        else
            *fields[i].real = json_number_value(v);
    }
    if (!code && !(s->deviation > 0 && isfinite(s->deviation) && isfinite(s->mean)))
        code = status_set(st, PLM_EFORMAT, "%s: deviation: expected a number above 0, found %g", path, s->deviation);
    json_decref(root);
    return code;
}

double reward_pair_loss(const struct reward_loss *l, double r_w, double r_l, double *d_w, double *d_l)
{
    const double z = r_w - r_l - l->margin, sum = r_w + r_l;
    const double wrong = z >= 0 ? exp(-z) / (1 + exp(-z)) : 1 / (1 + exp(z)); /* sigmoid(-z) */
    *d_w = -wrong + 2 * l->center * sum;
    *d_l = wrong + 2 * l->center * sum;
    return (z >= 0 ? log1p(exp(-z)) : log1p(exp(z)) - z) + l->center * sum * sum;
}

int reward_sequence_add(struct examples *out, const int32_t *tokens, int64_t n, struct plm_status *st)
{
    int32_t *longer = malloc(((size_t)n + 1) * sizeof *longer);
    if (!longer)
        return status_no_memory(st, ((size_t)n + 1) * sizeof *longer, "an answer");
    memcpy(longer, tokens, (size_t)n * sizeof *longer);
    longer[n] = 0;
    int code = examples_add(out, longer, n + 1, NULL, n + 1, st);
    free(longer);
    return code;
}

/* Row of the batch that holds the last token of a placed sequence. */
static int64_t last_position(const struct placed_sequence *p, const struct examples *e, const struct batch *b)
{
    return (int64_t)p->row * b->seq_len + p->column + example_length(e, p->sequence) - 2;
}

void reward_gather(const struct micro_batches *m, int64_t i, const struct examples *e, const struct batch *b, const float *h, const float *head, int64_t d,
                   double *rewards)
{
    for (int64_t k = m->begin[i]; k < m->begin[i + 1]; k++) {
        const float *x = h + last_position(&m->placed[k], e, b) * d;
        double sum = 0;
        for (int64_t j = 0; j < d; j++)
            sum += (double)x[j] * head[j];
        rewards[m->placed[k].sequence] = sum;
    }
}

void reward_backward(struct step *s, const struct micro_batches *m, int64_t i, const struct examples *e, const struct batch *b, const float *head, float *head_grads,
                     const double *d_rewards)
{
    const int64_t d = s->config.hidden_size;
    float *d_h = step_hidden_gradients(s, b);
    for (int64_t k = m->begin[i]; k < m->begin[i + 1]; k++) {
        const int64_t at = last_position(&m->placed[k], e, b) * d;
        const float g = (float)d_rewards[m->placed[k].sequence];
        for (int64_t j = 0; j < d; j++) {
            d_h[at + j] = g * head[j];
            head_grads[j] += g * s->final_h[at + j];
        }
    }
    step_backward_hidden(s, b);
}
