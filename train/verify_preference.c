#include "train/verify_preference.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/examples.h"
#include "optim/clip.h"
#include "train/align/preference_loss.h"
#include "train/checkpoint.h"
#include "train/files.h"
#include "train/matmul.h"
#include "train/sequences.h"
#include "train/step.h"

#define MAX_TOKENS 65536 /* of an array of the case */

/* The sequences of a pair: an answer after a context. */
enum { W, L, W_W, L_W, W_L, L_L, SEQUENCES };
static const struct {
    const char *name, *context, *answer;
} sequences[SEQUENCES] = {
    [W] = {"w", "prompt", "chosen"},
    [L] = {"l", "prompt", "rejected"},
    [W_W] = {"w_w", "refine_context_w", "chosen"},
    [L_W] = {"l_w", "refine_context_w", "rejected"},
    [W_L] = {"w_l", "refine_context_l", "chosen"},
    [L_L] = {"l_l", "refine_context_l", "rejected"},
};

struct preference_case {
    char path[PATH_MAX]; /* of preference.json */
    json_t *root;
    double beta_dpo, beta_refine, alpha;
    struct examples examples; /* (SEQUENCES) */
    int longest;              /* tokens */
    int n_chosen, n_rejected;
};

struct results {
    double policy[SEQUENCES], reference[SEQUENCES], coef[SEQUENCES]; /* coef: d total / d log-probability */
    double dpo, total, refine_sft;
    struct refine_value refine;
};

/* The array of tokens `key`, appended at tokens[*n]. */
static int read_tokens(const struct preference_case *c, const char *key, int32_t *tokens, int *n, struct plm_status *st)
{
    const json_t *array = json_object_get(c->root, key);
    const size_t size = json_array_size(array);
    if (size < 1 || size > MAX_TOKENS)
        return status_set(st, PLM_EFORMAT, "%s: %s must be an array of 1 to %d tokens", c->path, key, MAX_TOKENS);
    for (size_t i = 0; i < size; i++) {
        const json_t *v = json_array_get(array, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
            return status_set(st, PLM_EFORMAT, "%s: %s[%zu] is no token", c->path, key, i);
        tokens[(*n)++] = (int32_t)json_integer_value(v);
    }
    return PLM_OK;
}

static int read_sequences(struct preference_case *c, struct plm_status *st)
{
    int32_t *tokens = malloc(2 * MAX_TOKENS * sizeof *tokens);
    int code = tokens ? PLM_OK : status_no_memory(st, 2 * MAX_TOKENS * sizeof *tokens, "a case's tokens");
    for (int i = 0; i < SEQUENCES && !code; i++) {
        int n = 0, n_context = 0;
        code = read_tokens(c, sequences[i].context, tokens, &n, st);
        n_context = n;
        if (!code)
            code = read_tokens(c, sequences[i].answer, tokens, &n, st);
        if (!code)
            code = examples_add(&c->examples, tokens, n, NULL, n_context, st);
        c->longest = n > c->longest ? n : c->longest;
        if (i == W)
            c->n_chosen = n - n_context;
        if (i == L)
            c->n_rejected = n - n_context;
    }
    free(tokens);
    return code;
}

static int read_number(const struct preference_case *c, const char *key, double min, double max, double *value, struct plm_status *st)
{
    const json_t *v = json_object_get(c->root, key);
    *value = json_is_number(v) ? json_number_value(v) : NAN;
    if (!(*value >= min && *value <= max))
        return status_set(st, PLM_EFORMAT, "%s: %s must be a number from %g to %g", c->path, key, min, max);
    return PLM_OK;
}

static int read_case(struct preference_case *c, const char *case_dir, struct plm_status *st)
{
    json_error_t error;
    if (snprintf(c->path, sizeof c->path, "%s/preference.json", case_dir) >= (int)sizeof c->path)
        return status_set(st, PLM_ELIMIT, "the path '%.100s...' is too long", case_dir);
    c->root = json_load_file(c->path, JSON_REJECT_DUPLICATES, &error);
    if (!c->root && error.line < 0)
        return status_set(st, PLM_EIO, "%s", error.text); /* names the file */
    if (!c->root)
        return status_set(st, PLM_EFORMAT, "%s:%d:%d: %s", c->path, error.line, error.column, error.text);
    int code = read_number(c, "beta_dpo", 1e-12, 1e12, &c->beta_dpo, st);
    if (!code)
        code = read_number(c, "beta_refine", 1e-12, 1e12, &c->beta_refine, st);
    if (!code)
        code = read_number(c, "alpha", 0, 1, &c->alpha, st);
    return code ? code : read_sequences(c, st);
}

/* What runs the sequences through one model. */
struct runner {
    struct step step;
    struct micro_batches batches;
    struct batch scratch;
    float *nll, *log_probs, *coef; /* by position; by token of the examples; so too */
};

static void runner_close(struct runner *r)
{
    step_destroy(&r->step);
    micro_batches_free(&r->batches);
    batch_free(&r->scratch);
    free(r->nll);
    free(r->log_probs);
    free(r->coef);
    *r = (struct runner){0};
}

/* Rows as long as the longest sequence, two to a micro-batch: the short ones share a row. */
static int runner_open(struct runner *r, const struct preference_case *c, const char *model, const struct ops *ops, struct thread_pool *pool,
                       struct plm_status *st)
{
    const int rows = 2, len = c->longest - 1;
    static const int64_t all[SEQUENCES] = {0, 1, 2, 3, 4, 5};
    const size_t n_tokens = (size_t)c->examples.begin[SEQUENCES], positions = (size_t)rows * (size_t)len;
    struct model_config config;
    int code = checkpoint_config(model, &config, st);
    for (size_t i = 0; i < n_tokens && !code; i++)
        if (c->examples.tokens.data[i] >= config.vocab_size)
            code = status_set(st, PLM_EFORMAT, "%s has token %d, but the vocabulary of '%s' ends at %d", c->path, (int)c->examples.tokens.data[i], model,
                              config.vocab_size - 1);
    if (!code)
        code = step_create(&r->step, &config, rows, len, 1, 1, ops, pool, st);
    if (!code)
        code = checkpoint_load_weights(model, &r->step.table, r->step.weights, st);
    if (!code)
        code = micro_batches_pack(&r->batches, &c->examples, all, NULL, SEQUENCES, rows, len, st);
    if (!code)
        code = batch_create(&r->scratch, rows, len, st);
    if (!code) {
        r->nll = malloc(positions * sizeof *r->nll);
        r->log_probs = calloc(n_tokens, sizeof *r->log_probs);
        r->coef = calloc(n_tokens, sizeof *r->coef);
        if (!r->nll || !r->log_probs || !r->coef)
            code = status_no_memory(st, (positions + 2 * n_tokens) * sizeof(float), "the log-probabilities of a case");
    }
    return code;
}

/* The sum of every sequence's log-probabilities. */
static int sum_log_probs(struct runner *r, const struct preference_case *c, struct comm *comm, double sums[SEQUENCES], struct plm_status *st)
{
    int code = sequences_log_probs(&r->step, &c->examples, &r->batches, &r->scratch, r->nll, r->log_probs, comm, st);
    for (int i = 0; i < SEQUENCES && !code; i++) {
        sums[i] = 0;
        for (int64_t t = c->examples.begin[i]; t < c->examples.begin[i + 1]; t++)
            sums[i] += (double)r->log_probs[t];
    }
    return code;
}

static struct pair_log_probs pair_of(const struct preference_case *c, const struct results *r, int w, int l)
{
    return (struct pair_log_probs){r->policy[w], r->policy[l], r->reference[w], r->reference[l], c->n_chosen, c->n_rejected};
}

static void losses(const struct preference_case *c, struct results *r)
{
    const struct preference_loss *dpo = preference_loss_find("sigmoid");
    struct preference_params params = dpo->defaults;
    struct preference_value direct;
    const struct pair_log_probs pair = pair_of(c, r, W, L), given_l = pair_of(c, r, W_L, L_L), given_w = pair_of(c, r, W_W, L_W);
    params.beta = c->beta_dpo;
    preference_value(dpo, &pair, &params, &direct);
    refine_loss(&given_l, &given_w, c->beta_refine, &r->refine);
    r->dpo = direct.loss;
    r->total = (1 - c->alpha) * direct.loss + c->alpha * r->refine.loss;
    r->refine_sft = -(r->policy[W] + r->policy[W_L]) / (2 * c->n_chosen);
    r->coef[W] = (1 - c->alpha) * direct.d_chosen, r->coef[L] = (1 - c->alpha) * direct.d_rejected;
    r->coef[W_L] = c->alpha * r->refine.d_chosen_given_l, r->coef[L_L] = c->alpha * r->refine.d_rejected_given_l;
    r->coef[W_W] = c->alpha * r->refine.d_chosen_given_w, r->coef[L_W] = c->alpha * r->refine.d_rejected_given_w;
}

struct applied {
    const struct preference_case *c;
    const struct results *r;
};

/* Known before the second pass: one coefficient for all tokens of a sequence, of which only the targets count. */
static int apply(void *ctx, const struct micro_batches *m, int64_t i, const float *log_probs, float *coef, struct plm_status *st)
{
    const struct applied *a = ctx;
    const struct examples *e = &a->c->examples;
    (void)log_probs, (void)st;
    for (int64_t k = m->begin[i]; k < m->begin[i + 1]; k++) {
        const int64_t s = m->placed[k].sequence;
        for (int64_t t = e->begin[s]; t < e->begin[s + 1]; t++)
            coef[t] = (float)a->r->coef[s];
    }
    return PLM_OK;
}

static json_t *by_sequence(const double *values)
{
    json_t *object = json_object();
    for (int i = 0; i < SEQUENCES; i++)
        json_object_set_new(object, sequences[i].name, json_real(values[i]));
    return object;
}

/* Norms of the gradient, whole and by tensor, into root. */
static int put_norms(json_t *root, const struct step *s, struct plm_status *st)
{
    double *partial = calloc((size_t)norm_partials(s->table.padded), sizeof *partial);
    if (!partial)
        return status_no_memory(st, (size_t)norm_partials(s->table.padded) * sizeof *partial, "a gradient's norm");
    json_t *norms = json_object();
    double all = 0;
    for (int i = 0; i < s->table.n_tensors; i++) {
        const struct tensor_desc *d = &s->table.tensors[i];
        const double square = norm_sum_squares(s->grads + d->offset, tensor_elements(d), partial, s->pool);
        json_object_set_new(norms, d->name, json_real(sqrt(square)));
        all += square;
    }
    json_object_set_new(root, "grad_norm", json_real(sqrt(all)));
    json_object_set_new(root, "grad_norms", norms);
    free(partial);
    return PLM_OK;
}

static int write_results(const struct preference_case *c, const struct results *r, const struct step *s, const char *out, struct plm_status *st)
{
    static const char *const given[] = {"prompt", "chosen", "rejected", "refine_context_w", "refine_context_l", "beta_dpo", "beta_refine", "alpha"};
    const struct { const char *key; double value; } numbers[] = {
        {"h_l", r->refine.h_l}, {"h_w", r->refine.h_w}, {"dpo_loss", r->dpo}, {"refine_loss", r->refine.loss}, {"total_loss", r->total},
        {"refine_sft_loss", r->refine_sft}};
    json_t *root = json_object();
    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        json_object_set(root, given[i], json_object_get(c->root, given[i]));
    json_object_set_new(root, "policy_logprobs", by_sequence(r->policy));
    json_object_set_new(root, "reference_logprobs", by_sequence(r->reference));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_object_set_new(root, numbers[i].key, json_real(numbers[i].value)); /* what is not finite is left out */
    json_object_set_new(root, "total_loss_grad_of_logprob", by_sequence(r->coef));
    int code = put_norms(root, s, st);
    char *text = code ? NULL : json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    if (!code)
        code = text ? file_replace(out, text, strlen(text), st) : status_no_memory(st, 0, "the results as text");
    free(text);
    return code;
}

static int verify(const struct preference_case *c, const char *case_dir, const char *out, struct thread_pool *pool, struct plm_status *st)
{
    char path[PATH_MAX];
    struct matmul matmul;
    struct results results = {0};
    struct runner runner = {0};
    struct comm alone;
    int code = comm_open(&alone, st);
    if (code)
        return code;
    if (alone.size > 1)
        code = status_set(st, PLM_EINVAL, "this is one process' work; start it without mpirun");
    matmul_select(&matmul);
    snprintf(path, sizeof path, "%s/reference", case_dir); /* fits: preference.json did */
    if (!code)
        code = runner_open(&runner, c, path, &matmul.ops, pool, st);
    if (!code)
        code = sum_log_probs(&runner, c, &alone, results.reference, st);
    runner_close(&runner);
    snprintf(path, sizeof path, "%s/model", case_dir);
    if (!code)
        code = runner_open(&runner, c, path, &matmul.ops, pool, st);
    if (!code)
        code = sum_log_probs(&runner, c, &alone, results.policy, st);
    if (!code) {
        struct applied applied = {c, &results};
        const struct sequence_objective objective = {apply, &applied};
        losses(c, &results);
        step_zero_gradients(&runner.step);
        code = sequences_backward(&runner.step, &c->examples, &runner.batches, &objective, &runner.scratch, runner.nll, runner.log_probs, runner.coef,
                                  &alone, st);
    }
    if (!code)
        code = write_results(c, &results, &runner.step, out, st);
    runner_close(&runner);
    comm_close(&alone);
    return code;
}

int verify_preference(const char *case_dir, const char *out, int threads, struct plm_status *st)
{
    struct preference_case c = {0};
    struct thread_pool *pool = NULL;
    int code = read_case(&c, case_dir, st);
    if (!code)
        code = pool_create(&pool, threads, st);
    if (!code)
        code = verify(&c, case_dir, out, pool, st);
    pool_destroy(pool);
    examples_free(&c.examples);
    json_decref(c.root);
    return code ? status_prefix(st, "case '%s'", case_dir) : PLM_OK;
}
