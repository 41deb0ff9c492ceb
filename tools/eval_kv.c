#include "tools/eval_kv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/reader.h"
#include "infer/model/model.h"
#include "tools/arguments.h"
#include "tools/result.h"

struct item_list {
    struct kv_item *data;
    size_t length, capacity;
};

static void items_free(struct item_list *l)
{
    for (size_t i = 0; i < l->length; i++) {
        free(l->data[i].tokens);
        free(l->data[i].answer);
    }
    free(l->data);
}

/* An item of the start token and tokens [0, n); with_answers: room for them, all 0. */
static int items_add(struct item_list *l, int32_t start, const int32_t *tokens, size_t n, size_t prompt, bool with_answers,
                     struct plm_status *st)
{
    if (l->length == l->capacity) {
        const size_t capacity = l->capacity ? 2 * l->capacity : 64;
        struct kv_item *grown = realloc(l->data, capacity * sizeof *grown);
        if (!grown)
            return status_no_memory(st, capacity * sizeof *grown, "items");
        l->data = grown;
        l->capacity = capacity;
    }
    struct kv_item item = {.tokens = malloc((n + 1) * sizeof *item.tokens),
                           .n = n + 1,
                           .prompt = prompt,
                           .answer = with_answers ? calloc(n + 1, sizeof *item.answer) : NULL};
    if (!item.tokens || (with_answers && !item.answer)) {
        free(item.tokens);
        free(item.answer);
        return status_no_memory(st, (n + 1) * sizeof *item.tokens, "an item");
    }
    item.tokens[0] = start;
    memcpy(item.tokens + 1, tokens, n * sizeof *tokens);
    l->data[l->length++] = item;
    return PLM_OK;
}

/* --- what is evaluated on --- */

/* Windows of the documents, each after the start token, which is among the sinks; what is left of a document is not used. */
static int text_windows(struct eval_model *e, const struct eval_kv_options *o, size_t prompt, size_t continuation,
                        struct item_list *l, struct plm_status *st)
{
    struct reader *reader = NULL;
    struct token_list ids = {0};
    struct document doc = {.text = ""};
    const size_t taken = prompt + continuation; /* without the start token; the last token is only predicted */
    int code = reader_open(&reader, o->paths, o->n_paths,
                           &(struct reader_options){.text_field = o->text_field, .max_document = (size_t)256 << 20}, st);
    while (!code && !(code = reader_next(reader, &doc, st)) && doc.text) {
        code = eval_encode(e, doc.text, doc.length, false, &ids, st);
        for (size_t at = 1; !code && at + taken <= ids.length; at += taken)
            code = items_add(l, e->start, ids.data + at, taken, prompt, false, st);
    }
    if (!code && l->length == 0)
        code = status_set(
            st, PLM_EINVAL,
            "no document of the input has the %zu tokens of a window of %zu and %zu: give longer text, or smaller --prompt and "
            "--continuation",
            taken, prompt, continuation);
    reader_close(reader);
    free(ids.data);
    return code;
}

/* Keep `most` items, evenly spaced. */
static void thin(struct item_list *l, size_t most)
{
    const size_t all = l->length;
    if (all <= most)
        return;
    for (size_t i = 0; i < most; i++) {
        const size_t j = (size_t)((double)i * (double)all / (double)most);
        const struct kv_item swap = l->data[i];
        l->data[i] = l->data[j]; /* j >= i, and no j comes twice */
        l->data[j] = swap;
    }
    for (size_t i = most; i < all; i++)
        free(l->data[i].tokens);
    l->length = most;
}

static int recall_items(struct eval_model *e, const struct eval_recall_options *o, enum recall_task task, size_t length,
                        struct item_list *l, struct plm_status *st)
{
    struct recall_generator *g = NULL;
    struct recall_document d = {0};
    int code = recall_generator_create(&g, e->model->tokenizer, st);
    for (int i = 0; i < o->count && !code; i++) {
        const struct recall_options ro = {.task = task,
                                          .length = (int)length,
                                          .depth = -1,
                                          .pairs = o->pairs,
                                          .queries = o->queries,
                                          .keys = o->keys,
                                          .digits = o->digits,
                                          .held_out = true,
                                          .seed = o->seed};
        code = recall_generate(g, &ro, (uint64_t)i, &d, st);
        if (!code)
            code = items_add(l, e->start, d.tokens.data, d.answers[d.n_answers - 1].end, 1 + d.questions, true, st);
        for (int a = 0; a < d.n_answers && !code; a++)
            for (size_t t = d.answers[a].begin; t < d.answers[a].end; t++)
                l->data[l->length - 1].answer[t + 1] = a + 1;
    }
    recall_document_free(&d);
    recall_generator_free(g);
    return code;
}

/* --- statistics --- */

/* The scores of a set of items, and the cells that a statistic is about. */
struct scored {
    struct kv_score *scores; /* (n, n_cells) */
    int64_t *tokens;         /* (n) */
    size_t n, n_cells, cell, other;
};

enum quantity { KL, NATS, SAME_TOP, CORRECT, ANSWERS, BYTES, TOKENS, ITEMS };

static double total(const struct scored *s, const int32_t *weight, size_t cell, enum quantity q)
{
    double sum = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct kv_score *k = &s->scores[i * s->n_cells + cell];
        const double values[] = {
            k->kl, k->nats, (double)k->same_top, (double)k->correct, (double)k->answers, k->bytes, (double)s->tokens[i], 1};
        sum += values[q] * (weight ? weight[i] : 1);
    }
    return sum;
}

static double mean_kl(const void *ctx, const int32_t *w)
{
    const struct scored *s = ctx;
    return total(s, w, s->cell, KL) / total(s, w, s->cell, TOKENS);
}

static double kl_ratio(const void *ctx, const int32_t *w)
{
    const struct scored *s = ctx;
    return total(s, w, s->cell, KL) / total(s, w, s->other, KL);
}

static double perplexity(const void *ctx, const int32_t *w)
{
    const struct scored *s = ctx;
    return exp(total(s, w, s->cell, NATS) / total(s, w, s->cell, TOKENS));
}

static double perplexity_ratio(const void *ctx, const int32_t *w)
{
    const struct scored *s = ctx;
    return exp((total(s, w, s->cell, NATS) - total(s, w, s->other, NATS)) / total(s, w, s->cell, TOKENS));
}

static double accuracy(const void *ctx, const int32_t *w)
{
    const struct scored *s = ctx;
    return total(s, w, s->cell, CORRECT) / total(s, w, s->cell, ANSWERS);
}

static double accuracy_difference(const void *ctx, const int32_t *w)
{
    const struct scored *s = ctx;
    return (total(s, w, s->cell, CORRECT) - total(s, w, s->other, CORRECT)) / total(s, w, s->cell, ANSWERS);
}

/* --- rows --- */

/* JSON has neither infinity nor NaN. */
static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

/* "NAME": value and "NAME_95": its interval. */
static int add_statistic(json_t *row, const char *name, const struct scored *s, struct kv_resamples *r,
                         double (*statistic)(const void *, const int32_t *), struct plm_status *st)
{
    char with[64];
    double interval[2];
    kv_interval(r, statistic, s, interval);
    snprintf(with, sizeof with, "%s_95", name);
    json_t *both = isfinite(interval[0]) ? json_pack("[f, f]", interval[0], interval[1]) : json_null();
    return json_object_set_new(row, name, number(statistic(s, NULL))) || json_object_set_new(row, with, both)
               ? result_failed(st)
               : PLM_OK;
}

/* The same against another cell; null when there is none. */
static int add_comparison(json_t *row, const char *name, struct scored s, size_t other, struct kv_resamples *r,
                          double (*statistic)(const void *, const int32_t *), struct plm_status *st)
{
    char with[64];
    snprintf(with, sizeof with, "%s_95", name);
    s.other = other;
    if (other < s.n_cells && other != s.cell)
        return add_statistic(row, name, &s, r, statistic, st);
    return json_object_set_new(row, name, json_null()) || json_object_set_new(row, with, json_null()) ? result_failed(st)
                                                                                                      : PLM_OK;
}

/* The cell of h2o with the same budget; n_cells when there is none. */
static size_t h2o_cell(const struct kv_cell *cells, size_t n_cells, size_t cell)
{
    size_t c = 0;
    while (c < n_cells && (strcmp(cells[c].method->name, "h2o") != 0 || cells[c].share != cells[cell].share))
        c++;
    return c;
}

static int add_text(json_t *row, const struct scored *s, size_t h2o, struct kv_resamples *r, struct plm_status *st)
{
    int code = add_statistic(row, "kl", s, r, mean_kl, st);
    if (!code)
        code = add_comparison(row, "kl_over_h2o", *s, h2o, r, kl_ratio, st);
    if (!code && json_object_set_new(row, "ppl", number(perplexity(s, NULL))))
        code = result_failed(st);
    if (!code)
        code = add_comparison(row, "ppl_over_full", *s, 0, r, perplexity_ratio, st);
    if (!code &&
        json_object_set_new(row, "same_top", number(total(s, NULL, s->cell, SAME_TOP) / total(s, NULL, s->cell, TOKENS))))
        code = result_failed(st);
    return code;
}

static int add_recall(json_t *row, const struct scored *s, size_t h2o, struct kv_resamples *r, struct plm_status *st)
{
    int code = add_statistic(row, "accuracy", s, r, accuracy, st);
    if (!code)
        code = add_comparison(row, "minus_full", *s, 0, r, accuracy_difference, st);
    if (!code)
        code = add_comparison(row, "minus_h2o", *s, h2o, r, accuracy_difference, st);
    if (!code && json_object_set_new(row, "kl", number(mean_kl(s, NULL))))
        code = result_failed(st);
    return code;
}

/* --- running --- */

struct comparison {
    struct eval_model *e;
    const struct eval_kv_options *o;
    struct kv_method full;
    struct kv_cell cells[KV_MAX_CELLS];
    int n_cells;
    json_t *text, *recall; /* rows */
};

static int add_rows(struct comparison *c, const char *task, struct scored *s, struct plm_status *st)
{
    struct kv_resamples r;
    int code = kv_resamples_draw(&r, s->n, (size_t)c->o->resamples, c->o->seed, st);
    for (s->cell = 0; s->cell < s->n_cells && !code; s->cell++) {
        const struct kv_cell *cell = &c->cells[s->cell];
        const size_t h2o = h2o_cell(c->cells, s->n_cells, s->cell);
        char budget[32] = "-";
        if (cell->share > 0)
            snprintf(budget, sizeof budget, "%.4g %%", 100 * cell->share);
        json_t *row = json_object();
        if (!row || json_array_append_new(task ? c->recall : c->text, row) ||
            (task && json_object_set_new(row, "task", json_string(task))) ||
            json_object_set_new(row, "method", json_string(cell->method->name)) ||
            json_object_set_new(row, "budget", json_string(budget)) ||
            json_object_set_new(row, "kib", json_real(total(s, NULL, s->cell, BYTES) / (double)s->n / 1024)))
            code = result_failed(st);
        if (!code)
            code = task ? add_recall(row, s, h2o, &r, st) : add_text(row, s, h2o, &r, st);
    }
    kv_resamples_free(&r);
    return code;
}

/* Score the items, which are freed. task NULL: they are text. */
static int compare(struct comparison *c, const char *task, struct item_list *l, struct plm_status *st)
{
    struct scored s = {.n = l->length,
                       .n_cells = (size_t)c->n_cells,
                       .scores = calloc(l->length * (size_t)c->n_cells, sizeof *s.scores),
                       .tokens = calloc(l->length, sizeof *s.tokens)};
    int code = PLM_OK;
    if (!s.scores || !s.tokens)
        code = status_no_memory(st, l->length * (size_t)c->n_cells * sizeof *s.scores, "scores");
    const double start = seconds_now();
    if (!code)
        code = kv_run(c->e->model, c->o->n_threads, c->cells, c->n_cells, c->o->type, l->data, l->length, s.scores, s.tokens,
                      st);
    c->e->seconds += seconds_now() - start;
    for (size_t i = 0; i < l->length; i++)
        c->e->fed += (int64_t)(l->data[i].n - 1) * c->n_cells;
    if (!code)
        code = add_rows(c, task, &s, st);
    free(s.scores);
    free(s.tokens);
    items_free(l);
    return code;
}

static int text(struct comparison *c, size_t prompt, size_t continuation, size_t *windows, struct plm_status *st)
{
    struct item_list l = {0};
    int code = text_windows(c->e, c->o, prompt, continuation, &l, st);
    if (code) {
        items_free(&l);
        return code;
    }
    thin(&l, (size_t)c->o->windows);
    *windows = l.length;
    return compare(c, NULL, &l, st);
}

static int recall(struct comparison *c, size_t length, struct plm_status *st)
{
    int code = PLM_OK;
    for (int task = 0; task < RECALL_N_TASKS && !code; task++) {
        struct item_list l = {0};
        if (!c->o->recall.tasks[task])
            continue;
        code = recall_items(c->e, &c->o->recall, (enum recall_task)task, length, &l, st);
        if (code)
            items_free(&l);
        else
            code = compare(c, recall_task_name((enum recall_task)task), &l, st);
    }
    return code;
}

static int check(const struct comparison *c, size_t prompt, size_t continuation, size_t length, struct plm_status *st)
{
    const struct eval_kv_options *o = c->o;
    const size_t context = c->e->context;
    if (o->n_paths == 0 && o->recall.count == 0)
        return status_set(st, PLM_EINVAL, "nothing to evaluate on: give a FILE with text, or a --count of recall documents");
    if (o->n_paths && prompt + continuation > context)
        return status_set(
            st, PLM_ELIMIT,
            "a prompt of %zu tokens and a continuation of %zu do not fit into a context of %zu: lower --prompt or --continuation",
            prompt, continuation, context);
    if (o->recall.count && length > context)
        return status_set(st, PLM_ELIMIT,
                          "documents of %zu tokens do not fit into a context of %zu: lower --length or raise --context", length,
                          context);
    if (o->recall.queries > o->recall.pairs)
        return status_set(
            st, PLM_EINVAL,
            "%d queries, expected at most the number of pairs, %d: a key's second answer is in its first question",
            o->recall.queries, o->recall.pairs);
    return PLM_OK;
}

int eval_kv(struct eval_model *e, const struct eval_kv_options *o, json_t **result, struct plm_status *st)
{
    struct comparison c = {.e = e, .o = o, .text = json_array(), .recall = json_array()};
    const size_t prompt = o->prompt ? (size_t)o->prompt : e->context / 2;
    const size_t continuation = o->continuation ? (size_t)o->continuation : e->context > prompt ? e->context - prompt : 1;
    const size_t usual = e->context < 1024 ? e->context : 1024, length = o->recall.length ? (size_t)o->recall.length : usual;
    size_t windows = 0;
    *result = NULL;
    int code = kv_method_parse(&c.full, "full", o->type, st);
    c.cells[c.n_cells++] = (struct kv_cell){&c.full, 0};
    for (int i = 0; i < o->n_methods; i++)
        for (int k = 0; k < (o->methods[i].policy.policy == POLICY_FULL ? 1 : o->n_shares); k++)
            c.cells[c.n_cells++] = (struct kv_cell){&o->methods[i],
                                                    o->methods[i].policy.policy == POLICY_FULL ? 0 : o->shares[k]};
    if (!code)
        code = check(&c, prompt, continuation, length, st);
    if (!code && o->n_paths)
        code = text(&c, prompt, continuation, &windows, st);
    if (!code && o->recall.count)
        code = recall(&c, length, st);
    if (!code) {
        *result = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:I, s:i}", "evaluation", "kv", "model",
                            e->path, "cache_type", dtype_info(o->type)->name, "windows", (json_int_t)windows, "prompt",
                            (json_int_t)prompt, "continuation", (json_int_t)continuation, "recall_length", (json_int_t)length,
                            "recall_documents", o->recall.count, "pairs", o->recall.pairs, "queries", o->recall.queries,
                            "recall_seed", (json_int_t)o->recall.seed, "resamples", o->resamples);
        code = *result ? eval_add_speed(e, *result, st) : result_failed(st);
    }
    if (!code && ((json_array_size(c.text) && json_object_set(*result, "text", c.text)) ||
                  (json_array_size(c.recall) && json_object_set(*result, "recall", c.recall))))
        code = result_failed(st);
    json_decref(c.text);
    json_decref(c.recall);
    return code;
}
