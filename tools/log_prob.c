#include "tools/log_prob.h"

#include <math.h>
#include <string.h>

#include "infer/ops/ops.h"

#define BLOCK 1024 /* logits whose exponentials are added in single precision */

int log_prob_normaliser(const float *logits, int vocab, double *normaliser, struct plm_status *st)
{
    const struct ops *ops = ops_select(OPS_BEST);
    const float top = ops->max(logits, vocab);
    float scratch[BLOCK];
    bool nan = false;
    double sum = 0;
    for (int i = 0; i < vocab; i++)
        nan |= isnan(logits[i]);
    for (int i = 0; i < vocab; i += BLOCK)
        sum += (double)ops->exp_sum(scratch, logits + i, vocab - i < BLOCK ? vocab - i : BLOCK, 1, top);
    *normaliser = (double)top + log(sum);
    if (nan || !isfinite(*normaliser))
        return status_set(st, PLM_EFORMAT, "the model's logits are not finite: its weights are damaged, or it diverged in training");
    return PLM_OK;
}

int log_prob_score(const float *logits, int vocab, int32_t token, struct token_score *score, struct plm_status *st)
{
    double normaliser;
    const int code = log_prob_normaliser(logits, vocab, &normaliser, st);
    score->log_prob = (double)logits[token] - normaliser;
    score->top = true;
    for (int i = 0; i < vocab && score->top; i++)
        score->top = i < token ? logits[i] < logits[token] : logits[i] <= logits[token];
    return code;
}

void log_prob_top(const float *logits, int vocab, int k, int32_t *ids)
{
    int n = 0;
    for (int i = 0; i < vocab && k > 0; i++) {
        if (n == k && logits[i] <= logits[ids[n - 1]])
            continue;
        int at = n < k ? n++ : k - 1;
        for (; at > 0 && logits[i] > logits[ids[at - 1]]; at--)
            ids[at] = ids[at - 1];
        ids[at] = i;
    }
}
