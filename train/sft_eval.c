#include "train/sft_eval.h"

#include <stdlib.h>

#include "train/run_log.h"
#include "train/sft_answers.h"

struct eval_set {
    struct examples examples;
    struct packed_examples packed;
};

struct sft_evaluator {
    const struct sft_config *c;
    struct trainer *t;
    struct eval_set *sets;    /* (c->n_eval) */
    struct batch batch;
    uint8_t *correct;         /* (micro_batch * seq_len) */
    struct sft_answers *answers;
    struct turn_result *turns;
};

static int open_set(struct eval_set *set, const struct sft_config *c, int i, const struct sft_renderer *r, bool report, struct plm_status *st)
{
    const struct sft_phase how = {.last_turn_only = c->eval_last_turn_only};
    int code = sft_read_sources(&set->examples, &c->eval[i], 1, r, &how, c->seq_len, c->seed, report, st);
    if (!code && c->eval_max_rows && set->examples.n > c->eval_max_rows)
        set->examples.n = c->eval_max_rows;
    if (!code)
        code = packed_examples_build(&set->packed, &set->examples, c->seq_len, 0, st);
    if (code)
        status_prefix(st, "eval source '%s'", c->eval[i].name);
    return code;
}

int sft_evaluator_open(struct sft_evaluator **out, const struct sft_config *c, struct trainer *t, const struct sft_renderer *r, bool report,
                       struct plm_status *st)
{
    struct sft_evaluator *e = *out = calloc(1, sizeof *e);
    const size_t positions = (size_t)c->micro_batch * (size_t)c->seq_len;
    if (!e)
        return status_no_memory(st, sizeof *e, "the evaluation");
    e->c = c;
    e->t = t;
    e->sets = calloc((size_t)c->n_eval + 1, sizeof *e->sets);
    e->correct = malloc(positions);
    e->turns = calloc((size_t)c->answers.refinements + 1, sizeof *e->turns);
    int code = e->sets && e->correct && e->turns ? PLM_OK : status_no_memory(st, positions, "the evaluation");
    if (!code)
        code = batch_create(&e->batch, c->micro_batch, c->seq_len, st);
    for (int i = 0; i < c->n_eval && !code; i++)
        code = open_set(&e->sets[i], c, i, r, report, st);
    if (!code && c->answers.path)
        code = sft_answers_open(&e->answers, c, t, r, report, st);
    return code;
}

void sft_evaluator_close(struct sft_evaluator *e)
{
    if (!e)
        return;
    for (int i = 0; e->sets && i < e->c->n_eval; i++) {
        examples_free(&e->sets[i].examples);
        packed_examples_free(&e->sets[i].packed);
    }
    sft_answers_close(e->answers);
    batch_free(&e->batch);
    free(e->sets);
    free(e->correct);
    free(e->turns);
    free(e);
}

/* Micro-batches r, r + size, ... of a source: loss, targets, right ones. */
static int hold_out(struct sft_evaluator *e, const struct eval_set *set, struct held_out *out, struct plm_status *st)
{
    struct trainer *t = e->t;
    struct batch *b = &e->batch;
    double sums[3] = {0, 0, 0};
    const int64_t rows = set->packed.packing.n_rows, micro = e->c->micro_batch;
    for (int64_t first = t->comm->rank * micro; first < rows; first += t->comm->size * micro) {
        int longest = 1;
        b->rows = (int)(rows - first < micro ? rows - first : micro);
        b->seq_len = e->c->seq_len;
        for (int r = 0; r < b->rows; r++) {
            const int used = packed_row_fill(&set->packed, &set->examples, first + r, r, b);
            longest = used > longest ? used : longest;
        }
        batch_shorten(b, longest);
        step_forward(&t->step, b);
        step_nll(&t->step, b, t->nll, e->correct);
        for (int64_t i = 0; i < (int64_t)b->rows * b->seq_len; i++)
            if (b->weight[i] > 0) {
                sums[0] += t->nll[i];
                sums[1] += 1;
                sums[2] += e->correct[i];
            }
    }
    int code = comm_sum_doubles(t->comm, sums, 3, st);
    *out = (struct held_out){.loss = sums[0] / sums[1], .accuracy = sums[2] / sums[1], .tokens = (int64_t)sums[1]};
    return code;
}

static int report_held_out(struct sft_evaluator *e, const char *name, const struct held_out *h, json_t *record, struct plm_status *st)
{
    struct trainer *t = e->t;
    const struct metric values[] = {{"eval", 0, name}, {"eval_loss", h->loss, NULL}, {"eval_token_accuracy", h->accuracy, NULL},
                                    {"eval_tokens", (double)h->tokens, NULL}};
    progress_note(&t->progress, "step %lld: held-out %s: loss %.4f, token accuracy %.2f %% over %lld tokens", (long long)t->state.step, name, h->loss,
                  100 * h->accuracy, (long long)h->tokens);
    json_object_set_new(record, name, json_pack("{s:f, s:f, s:I}", "loss", h->loss, "token_accuracy", h->accuracy, "tokens", (json_int_t)h->tokens));
    return run_log_write(t->log, t->state.step, values, sizeof values / sizeof *values, st);
}

static int report_turn(struct sft_evaluator *e, int turn, json_t *list, struct plm_status *st)
{
    struct trainer *t = e->t;
    const struct turn_result *r = &e->turns[turn];
    const struct metric values[] = {{"eval", 0, "answers"}, {"turn", turn, NULL}, {"eval_score", r->score, NULL}, {"length", r->length, NULL},
                                    {"ended_rate", r->ended_rate, NULL}, {"eval_answers", (double)r->scored, NULL}};
    progress_note(&t->progress, "step %lld: answers, turn %d: score %.4f, %.1f tokens, %.1f %% ended, over %lld", (long long)t->state.step, turn, r->score,
                  r->length, 100 * r->ended_rate, (long long)r->scored);
    json_array_append_new(list, json_pack("{s:i, s:f, s:f, s:f, s:I}", "turn", turn, "score", r->score, "length", r->length, "ended_rate", r->ended_rate,
                                          "scored", (json_int_t)r->scored));
    return run_log_write(t->log, t->state.step, values, sizeof values / sizeof *values, st);
}

static int evaluate_answers(struct sft_evaluator *e, json_t *record, struct plm_status *st)
{
    int code = sft_answers_run(e->answers, e->turns, st);
    if (code || e->t->comm->rank != 0)
        return code;
    json_t *list = json_array();
    for (int k = 0; k <= e->c->answers.refinements && !code; k++)
        code = report_turn(e, k, list, st);
    json_object_set_new(record, "answers", list);
    return code;
}

int sft_evaluator_run(struct sft_evaluator *e, json_t *record, struct plm_status *st)
{
    json_t *held_out = json_object();
    int code = held_out ? PLM_OK : status_no_memory(st, 0, "an evaluation");
    for (int i = 0; i < e->c->n_eval && !code; i++) {
        struct held_out h;
        code = hold_out(e, &e->sets[i], &h, st);
        if (!code && e->t->comm->rank == 0)
            code = report_held_out(e, e->c->eval[i].name, &h, held_out, st);
        code = comm_agree(e->t->comm, code, st);
    }
    if (record && e->c->n_eval)
        json_object_set(record, "held_out", held_out);
    json_decref(held_out);
    if (!code && e->answers)
        code = comm_agree(e->t->comm, evaluate_answers(e, record, st), st);
    return code;
}
