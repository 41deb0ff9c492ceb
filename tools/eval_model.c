#include "tools/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/model.h"
#include "infer/ops/ops.h"
#include "tools/arguments.h"
#include "tools/open_model.h"
#include "tools/result.h"

#define LOGITS_BYTES ((size_t)64 << 20) /* logits of all positions of a long window would be gigabytes */
#define MAX_ROWS     256                /* more do not make a prefill faster */
#define BLOCK        1024               /* logits whose exponentials are added in single precision */

int eval_model_open(struct eval_model *e, const char *path, int context, int threads, struct plm_status *st)
{
    *e = (struct eval_model){.path = path};
    int code = open_model(&e->model, path, NULL, st);
    if (code)
        return code;
    e->start = plm_token_eos(e->model);
    if (!e->model->tokenizer)
        return status_set(st, PLM_EUNSUPPORTED,
                          "'%s' came without a tokenizer: texts cannot be evaluated; put tokenizer.json beside the weights", path);
    if (e->start < 0)
        return status_set(st, PLM_EUNSUPPORTED, "the tokenizer of '%s' has no <|endoftext|>, after which every text is evaluated",
                          path);
    const size_t row = (size_t)plm_model_vocab_size(e->model) * sizeof *e->logits;
    e->context = (size_t)(context ? context : plm_model_context_length(e->model));
    e->rows = LOGITS_BYTES / row < 1 ? 1 : LOGITS_BYTES / row > MAX_ROWS ? MAX_ROWS : LOGITS_BYTES / row;
    code = encoder_create(&e->encoder, e->model->tokenizer, st);
    if (!code)
        code = plm_session_open(&e->session, e->model, &(struct plm_session_options){.context = context, .n_threads = threads}, st);
    if (code)
        return code;
    e->held = malloc(e->context * sizeof *e->held);
    e->logits = malloc(e->rows * row);
    return e->held && e->logits ? PLM_OK : status_no_memory(st, e->rows * row, "logits");
}

void eval_model_close(struct eval_model *e)
{
    encoder_free(e->encoder);
    plm_session_close(e->session);
    plm_model_close(e->model);
    free(e->held);
    free(e->logits);
}

int eval_encode(struct eval_model *e, const char *text, size_t length, bool parse_special, struct token_list *ids,
                struct plm_status *st)
{
    if (ids->capacity == 0) {
        ids->capacity = 256;
        if (!(ids->data = malloc(ids->capacity * sizeof *ids->data))) {
            ids->capacity = 0;
            return status_no_memory(st, 256 * sizeof *ids->data, "tokens");
        }
    }
    ids->data[0] = e->start;
    ids->length = 1;
    return encoder_encode(e->encoder, text, length, parse_special, ids, st);
}

/* Cut the session back to what it has in common with tokens [0, n). */
static int keep_prefix(struct eval_model *e, const int32_t *tokens, size_t n, struct plm_status *st)
{
    const size_t held = plm_session_length(e->session);
    size_t keep = 0;
    while (keep < held && keep < n && e->held[keep] == tokens[keep])
        keep++;
    e->reused += (int64_t)keep;
    return keep < held ? plm_session_truncate(e->session, keep, st) : PLM_OK;
}

static int append(struct eval_model *e, const int32_t *tokens, size_t n, float *logits, struct plm_status *st)
{
    const size_t at = plm_session_length(e->session);
    const double start = seconds_now();
    const int code = session_append_logits(e->session, tokens, n, false, logits, st);
    e->seconds += seconds_now() - start;
    if (code)
        return code;
    memcpy(e->held + at, tokens, n * sizeof *tokens);
    e->fed += (int64_t)n;
    return PLM_OK;
}

static int not_finite(struct plm_status *st)
{
    return status_set(st, PLM_EFORMAT, "the model's logits are not finite: its weights are damaged, or it diverged in training");
}

/* ln softmax(logits)[token]; the logits are overwritten. The sum over the vocabulary is kept in double precision. */
static int score_row(const struct ops *ops, float *logits, int vocab, int32_t token, struct token_score *score,
                     struct plm_status *st)
{
    const float top = ops->max(logits, vocab), own = logits[token];
    bool nan = false;
    double sum = 0;
    score->top = own == top;
    for (int i = 0; i < token && score->top; i++)
        score->top = logits[i] != top;
    for (int i = 0; i < vocab; i++)
        nan |= isnan(logits[i]);
    for (int i = 0; i < vocab; i += BLOCK)
        sum += (double)ops->exp_sum(logits + i, logits + i, vocab - i < BLOCK ? vocab - i : BLOCK, 1, top);
    score->log_prob = (double)own - (double)top - log(sum);
    return !nan && isfinite(score->log_prob) ? PLM_OK : not_finite(st);
}

int eval_score(struct eval_model *e, const int32_t *tokens, size_t n, size_t from, struct token_score *scores,
               struct plm_status *st)
{
    const struct ops *ops = ops_select(OPS_BEST);
    const int vocab = plm_model_vocab_size(e->model);
    int code = keep_prefix(e, tokens, from - 1, st);
    const size_t at = plm_session_length(e->session);
    if (!code && at < from - 1)
        code = append(e, tokens + at, from - 1 - at, NULL, st);
    for (size_t i = from - 1; i + 1 < n && !code;) {
        const size_t take = n - 1 - i < e->rows ? n - 1 - i : e->rows;
        code = append(e, tokens + i, take, e->logits, st);
        const double start = seconds_now();
        for (size_t j = 0; j < take && !code; j++)
            code = score_row(ops, e->logits + j * (size_t)vocab, vocab, tokens[i + j + 1], &scores[i + j + 1 - from], st);
        e->seconds += seconds_now() - start;
        i += take;
    }
    return code;
}

int eval_feed(struct eval_model *e, const int32_t *tokens, size_t n, struct plm_status *st)
{
    int code = keep_prefix(e, tokens, n - 1, st); /* the last one is always fed: cutting drops the logits */
    const size_t at = plm_session_length(e->session);
    return code ? code : append(e, tokens + at, n - at, NULL, st);
}

int eval_append(struct eval_model *e, int32_t token, struct plm_status *st)
{
    return append(e, &token, 1, NULL, st);
}

int eval_greedy(struct eval_model *e, int32_t *token, struct plm_status *st)
{
    const float *logits = plm_session_logits(e->session);
    const int vocab = plm_model_vocab_size(e->model);
    *token = 0;
    for (int i = 0; i < vocab; i++) {
        if (!isfinite(logits[i]))
            return not_finite(st);
        if (logits[i] > logits[*token])
            *token = i;
    }
    return PLM_OK;
}

int eval_add_speed(const struct eval_model *e, json_t *result, struct plm_status *st)
{
    if (json_object_set_new(result, "tokens_through_the_model", json_integer(e->fed)) ||
        json_object_set_new(result, "tokens_reused", json_integer(e->reused)) ||
        json_object_set_new(result, "seconds", json_real(e->seconds)) ||
        json_object_set_new(result, "tokens_per_s", json_real(e->seconds > 0 ? (double)e->fed / e->seconds : 0)))
        return result_failed(st);
    return PLM_OK;
}

int eval_write_item(FILE *items, json_t *record, struct plm_status *st)
{
    if (!record)
        return result_failed(st);
    const int failed = items && (json_dumpf(record, items, JSON_COMPACT) || fputc('\n', items) == EOF);
    json_decref(record);
    return failed ? status_set(st, PLM_EIO, "cannot write the items") : PLM_OK;
}
