#include <stdlib.h>

#include "infer/model/model.h"
#include "tools/eval.h"
#include "tools/result.h"

enum { N_BINS = 4 }; /* of the depth of a pair: an mqar document has them at all depths */

struct tally {
    int64_t answers, correct, tokens, correct_tokens;
};

struct run {
    struct eval_model *e;
    const struct eval_recall_options *o;
    struct recall_generator *generator;
    struct recall_document document;
    struct token_list ids;
    struct token_score *scores;
    json_t *rows;
};

/* Generate document `index`, and score its answers; tally is (N_BINS), by depth, or one for `bins` 1. */
static int one_document(struct run *r, const struct recall_options *o, uint64_t index, struct tally *tally, int bins,
                        struct plm_status *st)
{
    struct recall_document *d = &r->document;
    int code = recall_generate(r->generator, o, index, d, st);
    if (!code)
        code = eval_encode(r->e, "", 0, false, &r->ids, st);
    if (code)
        return code;
    const size_t n = d->answers[d->n_answers - 1].end, first = d->answers[0].begin;
    if (r->ids.capacity < n + 1) {
        int32_t *grown = realloc(r->ids.data, (n + 1) * sizeof *grown);
        if (!grown)
            return status_no_memory(st, (n + 1) * sizeof *grown, "tokens");
        r->ids.data = grown;
        r->ids.capacity = n + 1;
    }
    for (size_t i = 0; i < n; i++)
        r->ids.data[i + 1] = d->tokens.data[i];
    code = eval_score(r->e, r->ids.data, n + 1, first + 1, r->scores, st);
    for (int i = 0; i < d->n_answers && !code; i++) {
        const struct recall_answer *a = &d->answers[i];
        const int bin = (int)(a->depth * bins);
        struct tally *t = &tally[bin < bins ? bin : bins - 1];
        int64_t right = 0;
        for (size_t j = a->begin; j < a->end; j++)
            right += r->scores[j - first].top;
        t->answers++;
        t->tokens += (int64_t)(a->end - a->begin);
        t->correct_tokens += right;
        t->correct += right == (int64_t)(a->end - a->begin);
    }
    return code;
}

static int add_row(struct run *r, enum recall_task task, const char *depth, const struct tally *t, struct plm_status *st)
{
    json_t *row = json_pack("{s:s, s:s, s:I}", "task", recall_task_name(task), "depth", depth, "answers", (json_int_t)t->answers);
    if (!row || json_array_append_new(r->rows, row))
        return result_failed(st);
    const int code = result_add_accuracy(row, t->correct, t->answers, st);
    if (!code && (json_object_set_new(row, "tokens", json_integer(t->tokens)) ||
                  json_object_set_new(row, "token_accuracy",
                                      t->tokens ? json_real((double)t->correct_tokens / (double)t->tokens) : json_null())))
        return result_failed(st);
    return code;
}

static int passkey(struct run *r, struct recall_options o, struct plm_status *st)
{
    int code = PLM_OK;
    for (int i = 0; i < r->o->n_depths && !code; i++) {
        struct tally tally = {0};
        char depth[32];
        o.depth = r->o->depths[i];
        for (int j = 0; j < r->o->count && !code; j++) /* other documents at every depth */
            code = one_document(r, &o, (uint64_t)i * (uint64_t)r->o->count + (uint64_t)j, &tally, 1, st);
        snprintf(depth, sizeof depth, "%.4g", o.depth);
        if (!code)
            code = add_row(r, o.task, depth, &tally, st);
    }
    return code;
}

static int associative(struct run *r, const struct recall_options *o, struct plm_status *st)
{
    struct tally tally[N_BINS] = {0};
    int code = PLM_OK;
    for (int j = 0; j < r->o->count && !code; j++)
        code = one_document(r, o, (uint64_t)j, tally, N_BINS, st);
    for (int i = 0; i < N_BINS && !code; i++) {
        char depth[32];
        snprintf(depth, sizeof depth, "%.2f to %.2f", (double)i / N_BINS, (double)(i + 1) / N_BINS);
        code = add_row(r, o->task, depth, &tally[i], st);
    }
    return code;
}

static int all_tasks(struct run *r, int length, struct plm_status *st)
{
    int code = PLM_OK;
    for (int task = 0; task < RECALL_N_TASKS && !code; task++) {
        const struct recall_options o = {.task = (enum recall_task)task,
                                         .length = length,
                                         .pairs = r->o->pairs,
                                         .queries = r->o->queries,
                                         .keys = r->o->keys,
                                         .digits = r->o->digits,
                                         .held_out = true,
                                         .seed = r->o->seed};
        if (r->o->tasks[task])
            code = task == RECALL_PASSKEY ? passkey(r, o, st) : associative(r, &o, st);
    }
    return code;
}

int eval_recall(struct eval_model *e, const struct eval_recall_options *o, json_t **result, struct plm_status *st)
{
    const size_t usual = e->context < 1024 ? e->context : 1024;
    struct run r = {.e = e, .o = o, .rows = json_array()};
    const size_t length = o->length ? (size_t)o->length : usual;
    int code = PLM_OK;
    *result = NULL;
    if (length > e->context) /* the start token goes in, the last token does not */
        code = status_set(st, PLM_ELIMIT,
                          "documents of %zu tokens do not fit into a context of %zu: lower --length or raise --context", length,
                          e->context);
    if (!code && o->queries > o->pairs)
        code = status_set(st, PLM_EINVAL, "%d queries, expected at most the number of pairs, %d: a key's second answer is in its first question",
                          o->queries, o->pairs);
    if (!code)
        code = recall_generator_create(&r.generator, e->model->tokenizer, st);
    if (!code && !(r.scores = malloc(length * sizeof *r.scores)))
        code = status_no_memory(st, length * sizeof *r.scores, "scores");
    if (!code)
        code = all_tasks(&r, (int)length, st);
    if (!code) {
        *result = json_pack("{s:s, s:s, s:I, s:I, s:i, s:i, s:i, s:I, s:O}", "evaluation", "recall", "model", e->path, "context",
                            (json_int_t)e->context, "length", (json_int_t)length, "documents_per_depth", o->count, "pairs",
                            o->pairs, "queries", o->queries, "seed", (json_int_t)o->seed, "tasks", r.rows);
        code = *result ? eval_add_speed(e, *result, st) : result_failed(st);
    }
    recall_document_free(&r.document);
    recall_generator_free(r.generator);
    json_decref(r.rows);
    free(r.ids.data);
    free(r.scores);
    return code;
}
