#include "tools/activity.h"
#include "tools/eval.h"

#include <stdlib.h>
#include <string.h>

#include "infer/model/model.h"
#include "tools/open_model.h"
#include "tools/result.h"

int eval_model_open(struct eval_model *e, const char *path, int context, int threads, struct plm_status *st)
{
    *e = (struct eval_model){.path = path};
    int code = open_model(&e->model, path, NULL, st);
    if (code)
        return code;
    const bool begins = e->model->tokenizer && tokenizer_marks(e->model->tokenizer)->add_bos;
    e->start = begins ? plm_token_bos(e->model) : plm_token_eos(e->model);
    if (!e->model->tokenizer)
        return status_set(st, PLM_EUNSUPPORTED,
                          "'%s' came without a tokenizer: texts cannot be evaluated; put tokenizer.json beside the weights", path);
    if (e->start < 0)
        return status_set(st, PLM_EUNSUPPORTED, "the files of '%s' declare no token that ends or begins a text, after which every text is evaluated",
                          path);
    e->context = (size_t)(context ? context : plm_model_context_length(e->model));
    e->threads = threads;
    e->batch = 1;
    return encoder_create(&e->encoder, e->model->tokenizer, st);
}

void eval_model_close(struct eval_model *e)
{
    likelihood_close(&e->likelihood);
    encoder_free(e->encoder);
    plm_model_close(e->model);
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

int eval_score_batch(struct eval_model *e, const struct score_request *requests, int n, struct plm_status *st)
{
    struct likelihood *s = &e->likelihood;
    int code = s->engine ? PLM_OK : likelihood_open(s, e->model, (int)e->context, e->threads, e->batch, st);
    if (code)
        return code;
    const struct likelihood before = *s;
    code = likelihood_score(s, requests, n, st);
    e->fed += s->fed - before.fed;
    e->reused += s->reused - before.reused;
    e->seconds += s->seconds - before.seconds;
    return code;
}

int eval_score(struct eval_model *e, const int32_t *tokens, size_t n, size_t from, struct token_score *scores,
               struct plm_status *st)
{
    return eval_score_batch(e, &(struct score_request){tokens, n, from, scores}, 1, st);
}

int eval_add_speed(const struct eval_model *e, json_t *result, struct plm_status *st)
{
    if (json_object_set_new(result, "tokens_through_the_model", json_integer(e->fed)) ||
        json_object_set_new(result, "tokens_reused", json_integer(e->reused)) ||
        json_object_set_new(result, "seconds", json_real(e->seconds)) ||
        json_object_set_new(result, "tokens_per_s", json_real(e->seconds > 0 ? (double)e->fed / e->seconds : 0)))
        return result_failed(st);
    if (e->likelihood.engine)
        activity_add(result, e->likelihood.engine);
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
