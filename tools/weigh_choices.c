#include "tools/weigh_choices.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/model.h"
#include "tools/result.h"
#include "tools/likelihood.h"

enum { TOGETHER = 16, MAX_CHOICES = 65536 };

struct weighing {
    const struct weigh_options *o;
    struct encoder *encoder;
    struct token_list alone, *joined;    /* joined: (n) */
    struct token_score *scores;          /* all choices', one after the other */
    struct score_request *requests;      /* (n) */
    double *log_prob;                    /* (n) */
};

static int encode(struct weighing *w, const char *choice, struct token_list *ids, struct plm_status *st)
{
    const size_t first = strlen(w->o->prompt), second = strlen(choice);
    char *text = malloc(first + second + 1);
    if (!text)
        return status_no_memory(st, first + second + 1, "a choice");
    memcpy(text, w->o->prompt, first);
    memcpy(text + first, choice, second + 1);
    int code = encoder_begin(w->encoder, ids, st);
    if (!code)
        code = encoder_encode(w->encoder, text, first + second, w->o->special, ids, st);
    free(text);
    return code;
}

static int make_requests(struct weighing *w, size_t context, struct plm_status *st)
{
    size_t total = 0;
    int code = encode(w, "", &w->alone, st);
    for (int i = 0; i < w->o->n && !code; i++) {
        code = encode(w, w->o->choices[i], &w->joined[i], st);
        total += w->joined[i].length;
        if (!code && w->joined[i].length < 2)
            code = status_set(st, PLM_EINVAL, "prompt and choice '%s' are a single token: there is nothing before it", w->o->choices[i]);
        if (!code && w->joined[i].length - 1 > context)
            code = status_set(st, PLM_ELIMIT, "the prompt and choice '%.60s' are %zu tokens, which do not fit into a context of %zu",
                              w->o->choices[i], w->joined[i].length, context);
    }
    if (code)
        return code;
    if (!(w->scores = malloc(total * sizeof *w->scores)))
        return status_no_memory(st, total * sizeof *w->scores, "scores");
    const size_t from = likelihood_departure(&w->alone, w->joined, w->o->n);
    struct token_score *scores = w->scores;
    for (int i = 0; i < w->o->n; i++) {
        w->requests[i] = (struct score_request){w->joined[i].data, w->joined[i].length, from, scores};
        scores += w->joined[i].length - from;
    }
    return PLM_OK;
}

static double length_of(const struct weighing *w, int i, int unit)
{
    return unit == 0 ? 1 : unit == 1 ? (double)(w->requests[i].n - w->requests[i].from) : (double)strlen(w->o->choices[i]);
}

static int best(const struct weighing *w, int unit)
{
    int at = 0;
    for (int i = 1; i < w->o->n; i++)
        if (w->log_prob[i] / length_of(w, i, unit) > w->log_prob[at] / length_of(w, at, unit))
            at = i;
    return at;
}

static json_t *shown(const char *text) { return result_text(text, strlen(text)); }

static int print(const struct weighing *w, struct plm_status *st)
{
    json_t *rows = json_array(), *result;
    for (int i = 0; i < w->o->n; i++)
        json_array_append_new(rows, json_pack("{s:o, s:f, s:f, s:f, s:I}", "choice", shown(w->o->choices[i]),
                                              "log_prob", w->log_prob[i], "per_token",
                                              w->log_prob[i] / length_of(w, i, 1), "per_byte", w->log_prob[i] / length_of(w, i, 2), "tokens",
                                              (json_int_t)length_of(w, i, 1)));
    if (json_array_size(rows) != (size_t)w->o->n || !(result = json_pack("{s:o, s:O, s:o, s:o, s:o}", "prompt",
        shown(w->o->prompt), "choices", rows, "best", shown(w->o->choices[best(w, 0)]), "best_per_token",
        shown(w->o->choices[best(w, 1)]), "best_per_byte", shown(w->o->choices[best(w, 2)])))) {
        json_decref(rows);
        return result_failed(st);
    }
    int code = PLM_OK;
    if (w->o->json) {
        json_dumpf(result, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
        putchar('\n');
    } else {
        code = result_print(stdout, result, false, st);
    }
    json_decref(rows);
    json_decref(result);
    return code;
}

int weigh_choices(const struct plm_model *model, const struct weigh_options *o, struct plm_status *st)
{
    struct weighing w = {.o = o};
    struct likelihood s = {0};
    if (!*o->prompt)
        return status_set(st, PLM_EINVAL, "the prompt is empty: give the model at least one character to continue");
    if (!model->tokenizer)
        return status_set(st, PLM_EUNSUPPORTED, "the model came without a tokenizer: put tokenizer.json beside the weights");
    if (o->n > MAX_CHOICES)
        return status_set(st, PLM_ELIMIT, "%d choices, expected at most %d", o->n, MAX_CHOICES);
    const size_t n = (size_t)o->n;
    w.joined = calloc(n, sizeof *w.joined);
    w.requests = calloc(n, sizeof *w.requests);
    w.log_prob = calloc(n, sizeof *w.log_prob);
    int code = w.joined && w.requests && w.log_prob ? PLM_OK : status_no_memory(st, n * 64, "choices");
    if (!code)
        code = encoder_create(&w.encoder, model->tokenizer, st);
    if (!code)
        code = likelihood_open(&s, model, o->context, o->threads, o->n < TOGETHER ? o->n : TOGETHER, st);
    if (!code)
        code = make_requests(&w, s.context, st);
    if (!code)
        code = likelihood_score(&s, w.requests, o->n, st);
    for (int i = 0; i < o->n && !code; i++)
        for (size_t k = 0; k < w.requests[i].n - w.requests[i].from; k++)
            w.log_prob[i] += w.requests[i].scores[k].log_prob;
    if (!code)
        code = print(&w, st);
    likelihood_close(&s);
    encoder_free(w.encoder);
    for (size_t i = 0; i < n && w.joined; i++)
        free(w.joined[i].data);
    free(w.alone.data);
    free(w.joined);
    free(w.requests);
    free(w.log_prob);
    free(w.scores);
    return code;
}
