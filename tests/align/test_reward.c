/* Reward models: the loss, the backward pass from hidden states (against the one from token log-probabilities, and against finite differences), packing, the frozen model
 * that scorers use against the trainer's step, and the files. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "infer/base/random.h"
#include "tests/model/support.h"
#include "tests/ops/tables.h"
#include "train/align/reward_config.h"
#include "train/align/reward_model.h"
#include "train/frozen.h"
#include "train/step.h"

static double uniform(uint32_t stream, int64_t i) { return random_uniform(11, RANDOM_TEST, stream, (uint64_t)i); }

/* ---- the loss ---- */

static void losses(void **state)
{
    (void)state;
    const struct reward_loss plain = {0}, full = {.margin = 0.5, .center = 0.01};
    double d_w, d_l, unused[2];
    assert_true(fabs(reward_pair_loss(&plain, 3, 3, &d_w, &d_l) - log(2)) < 1e-15 && d_w == -0.5 && d_l == 0.5);
    assert_true(fabs(reward_pair_loss(&plain, 2, 1, &d_w, &d_l) - 0.31326168751822286) < 1e-15); /* -ln sigmoid(1) */
    assert_true(fabs(reward_pair_loss(&full, 2, 1, &d_w, &d_l) - (0.47407698418010669 + 0.09)) < 1e-15); /* -ln sigmoid(0.5) + 0.01 * 9 */
    for (int i = 0; i < 50; i++) {
        const double w = 8 * uniform(0, i) - 4, l = 8 * uniform(1, i) - 4, h = 1e-5;
        reward_pair_loss(&full, w, l, &d_w, &d_l);
        const double by_w = (reward_pair_loss(&full, w + h, l, unused, unused + 1) - reward_pair_loss(&full, w - h, l, unused, unused + 1)) / (2 * h);
        const double by_l = (reward_pair_loss(&full, w, l + h, unused, unused + 1) - reward_pair_loss(&full, w, l - h, unused, unused + 1)) / (2 * h);
        assert_true(fabs(by_w - d_w) < 1e-8 && fabs(by_l - d_l) < 1e-8);
    }
    assert_true(reward_pair_loss(&plain, -1e4, 1e4, &d_w, &d_l) == 2e4 && d_w == -1 && d_l == 1); /* no overflow */
    assert_true(reward_pair_loss(&plain, 1e4, -1e4, &d_w, &d_l) == 0 && d_w == 0 && d_l == 0);
}

/* ---- the backward pass ---- */

struct fixture {
    struct model_config config;
    struct thread_pool *pool;
    struct step step;
};

static void open_fixture(struct fixture *f, int rows, int len)
{
    struct plm_status st = {0};
    f->config = small_config();
    assert_int_equal(pool_create(&f->pool, 2, NULL), PLM_OK);
    if (step_create(&f->step, &f->config, rows, len, 1, 9, ops_select(OPS_BEST), f->pool, &st))
        fail_msg("%s", st.message);
}

static void close_fixture(struct fixture *f)
{
    step_destroy(&f->step);
    pool_destroy(f->pool);
}

/* The gradients of sum(coef * nll) through the head by hand: d h = coef (softmax - onehot) E. Every tensor but the embedding, which is also the head, must be as
 * step_backward has it, and the embedding after adding the head's own part. */
static void hidden_backward_is_the_token_backward(void **state)
{
    (void)state;
    enum { ROWS = 2, LEN = 24, N = ROWS * LEN };
    struct fixture f;
    struct batch b;
    open_fixture(&f, ROWS, LEN);
    struct step *s = &f.step;
    const int64_t vocab = f.config.vocab_size, d = f.config.hidden_size;
    const size_t bytes = (size_t)s->table.padded * sizeof(float);
    float *want = malloc(bytes), *logits = malloc(sizeof *logits * (size_t)(N * vocab)), nll[N], coef[N];
    assert_int_equal(batch_create(&b, ROWS, LEN, NULL), PLM_OK);
    for (int i = 0; i < N; i++) {
        b.tokens[i] = (int32_t)(uniform(2, i) * (double)vocab);
        b.targets[i] = (int32_t)(uniform(3, i) * (double)vocab);
        b.doc_start[i] = i % LEN < 10 ? 0 : 10;
        coef[i] = i % 3 ? (float)(uniform(4, i) - 0.5) : 0;
    }
    step_zero_gradients(s);
    step_forward(s, &b);
    step_backward(s, &b, coef, nll);
    memcpy(want, s->grads, bytes);

    step_zero_gradients(s);
    step_forward(s, &b);
    step_logits(s, &b, nll, logits);
    const float *embed = s->bound.embed.data;
    float *d_embed = (float *)s->bound_grads.embed.data, *d_h = step_hidden_gradients(s, &b);
    for (int i = 0; i < N; i++)
        for (int64_t v = 0; v < vocab && coef[i] != 0; v++) {
            const double z = logits[i * vocab + v] - logits[i * vocab + b.targets[i]], p = exp(z - nll[i]);
            const double g = coef[i] * (p - (v == b.targets[i]));
            for (int64_t k = 0; k < d; k++) {
                d_h[i * d + k] += (float)(g * embed[v * d + k]);
                d_embed[v * d + k] += (float)(g * s->final_h[i * d + k]);
            }
        }
    step_backward_hidden(s, &b);
    for (int i = 0; i < s->table.n_tensors; i++) {
        const struct tensor_desc *t = &s->table.tensors[i];
        const double error = relative_error(s->grads + t->offset, want + t->offset, (size_t)tensor_elements(t));
        if (!(error < 1e-5))
            fail_msg("%s: relative error %g", t->name, error);
    }
    free(want);
    free(logits);
    batch_free(&b);
    close_fixture(&f);
}

/* n sequences of 4 to 15 tokens: pairs of neighbours. */
static void random_pairs(struct examples *e, int n, int vocab)
{
    *e = (struct examples){0};
    for (int i = 0; i < n; i++) {
        int32_t tokens[16];
        const int length = 4 + (int)(12 * uniform(5, i));
        for (int k = 0; k < length; k++)
            tokens[k] = (int32_t)(uniform(6, 100 * i + k) * vocab);
        assert_int_equal(reward_sequence_add(e, tokens, length, NULL), PLM_OK);
        assert_int_equal(example_length(e, i), length + 1);
        for (int64_t k = e->begin[i]; k < e->begin[i + 1]; k++)
            assert_int_equal(e->target.data[k], 0);
    }
}

enum { SEQUENCES = 8 };
static const int64_t all[SEQUENCES] = {0, 1, 2, 3, 4, 5, 6, 7}, pair_of[SEQUENCES] = {0, 0, 1, 1, 2, 2, 3, 3};

/* Mean loss over the pairs; with head_grads its gradients too. */
static double objective(struct step *s, const struct examples *e, const struct micro_batches *m, struct batch *b, const float *head, float *head_grads, double *rewards)
{
    const struct reward_loss loss = {.margin = 0.25, .center = 0.05};
    double d_rewards[SEQUENCES], sum = 0;
    for (int64_t i = 0; i < m->n; i++) {
        micro_batch_fill(m, i, e, b, s->max_rows, s->max_len);
        step_forward(s, b);
        reward_gather(m, i, e, b, s->final_h, head, s->config.hidden_size, rewards);
        for (int64_t k = m->begin[i]; k < m->begin[i + 1]; k++) {
            const int64_t w = m->placed[k].sequence;
            if (w % 2 == 0)
                sum += reward_pair_loss(&loss, rewards[w], rewards[w + 1], &d_rewards[w], &d_rewards[w + 1]);
        }
        if (head_grads)
            reward_backward(s, m, i, e, b, head, head_grads, d_rewards);
    }
    return sum;
}

static void gradients_and_finite_differences(void **state)
{
    (void)state;
    struct fixture f;
    struct examples e;
    struct micro_batches m;
    struct batch b;
    double rewards[SEQUENCES];
    open_fixture(&f, 2, 30);
    struct step *s = &f.step;
    const int64_t d = f.config.hidden_size;
    float *head = calloc((size_t)d, sizeof *head), *head_grads = calloc((size_t)d, sizeof *head_grads);
    for (int64_t k = 0; k < d; k++)
        head[k] = (float)(uniform(7, k) - 0.5);
    for (int i = 0; i < s->table.n_tensors; i++) /* weights large enough to matter */
        for (int64_t k = 0; k < tensor_elements(&s->table.tensors[i]); k++)
            s->weights[s->table.tensors[i].offset + k] += (float)(0.2 * (uniform((uint32_t)(8 + i), k) - 0.5));
    random_pairs(&e, SEQUENCES, f.config.vocab_size);
    assert_int_equal(batch_create(&b, 2, 30, NULL), PLM_OK);
    assert_int_equal(micro_batches_pack(&m, &e, all, pair_of, SEQUENCES, 2, 30, NULL), PLM_OK);
    assert_true(m.n > 1);
    step_zero_gradients(s);
    objective(s, &e, &m, &b, head, head_grads, rewards);
    for (int64_t k = 0; k < d; k += 5) { /* the loss is smooth in the head, which float32 resolves well */
        const float h = 1e-2f, was = head[k];
        head[k] = was + h;
        const double up = objective(s, &e, &m, &b, head, NULL, rewards), above = head[k];
        head[k] = was - h;
        const double slope = (up - objective(s, &e, &m, &b, head, NULL, rewards)) / (above - head[k]);
        head[k] = was;
        if (fabs(slope - head_grads[k]) > 1e-3 * fabs(slope) + 1e-4)
            fail_msg("head %lld: %g, by differences %g", (long long)k, (double)head_grads[k], slope);
    }
    for (int i = 0; i < s->table.n_tensors; i++) { /* along the gradient of each tensor: the derivative is its norm */
        const struct tensor_desc *t = &s->table.tensors[i];
        const size_t n = (size_t)tensor_elements(t);
        float *w = s->weights + t->offset, *was = malloc(n * sizeof *was);
        const float *g = s->grads + t->offset;
        double norm = 0;
        for (size_t k = 0; k < n; k++)
            norm += (double)g[k] * g[k];
        norm = sqrt(norm);
        assert_true(norm > 1e-4);
        memcpy(was, w, n * sizeof *was);
        double loss[2];
        const double h = 4e-3;
        for (int side = 0; side < 2; side++) {
            for (size_t k = 0; k < n; k++)
                w[k] = (float)((double)was[k] + (side ? -h : h) * g[k] / norm);
            loss[side] = objective(s, &e, &m, &b, head, NULL, rewards);
        }
        memcpy(w, was, n * sizeof *was);
        const double slope = (loss[0] - loss[1]) / (2 * h);
        if (fabs(slope - norm) > 1e-2 * norm)
            fail_msg("%s: |gradient| %g, by differences %g", t->name, norm, slope);
        free(was);
    }
    micro_batches_free(&m);
    examples_free(&e);
    batch_free(&b);
    free(head);
    free(head_grads);
    close_fixture(&f);
}

/* The same rewards and gradients packed into few rows and one by one. */
static void packing_does_not_matter(void **state)
{
    (void)state;
    struct fixture f;
    struct examples e;
    struct batch b;
    float *grads[2], *head_grads[2], head[64];
    double rewards[2][SEQUENCES];
    open_fixture(&f, 3, 64);
    struct step *s = &f.step;
    const size_t d = (size_t)f.config.hidden_size, bytes = (size_t)s->table.padded * sizeof(float);
    assert_true(d <= 64);
    for (size_t k = 0; k < d; k++)
        head[k] = (float)(uniform(7, (int64_t)k) - 0.5);
    random_pairs(&e, SEQUENCES, f.config.vocab_size);
    assert_int_equal(batch_create(&b, 3, 64, NULL), PLM_OK);
    for (int way = 0; way < 2; way++) {
        grads[way] = malloc(bytes);
        head_grads[way] = calloc(d, sizeof(float));
        step_zero_gradients(s);
        for (int pair = 0; pair < SEQUENCES / 2; pair++) {
            struct micro_batches m;
            const int64_t *list = way ? all + 2 * pair : all;
            assert_int_equal(micro_batches_pack(&m, &e, list, list == all && !way ? pair_of : pair_of + 2 * pair, way ? 2 : SEQUENCES, 3, 64, NULL), PLM_OK);
            objective(s, &e, &m, &b, head, head_grads[way], rewards[way]);
            micro_batches_free(&m);
            if (!way)
                break;
        }
        memcpy(grads[way], s->grads, bytes);
    }
    for (int i = 0; i < SEQUENCES; i++)
        assert_true(fabs(rewards[0][i] - rewards[1][i]) < 1e-6 * (1 + fabs(rewards[0][i])));
    assert_true(relative_error(head_grads[1], head_grads[0], d) < 1e-6);
    assert_true(relative_error(grads[1], grads[0], (size_t)s->table.padded) < 1e-5);
    for (int way = 0; way < 2; way++)
        free(grads[way]), free(head_grads[way]);
    examples_free(&e);
    batch_free(&b);
    close_fixture(&f);
}

/* ---- scoring ---- */

/* Hidden states and losses of the mapped model are those of the trainer's step; wide vocabularies come in several blocks. */
static void frozen_is_the_step(void **state)
{
    (void)state;
    struct fixture f;
    struct frozen frozen = {0};
    struct batch b;
    struct plm_status st = {0};
    char path[64], head[128];
    open_fixture(&f, 2, 40);
    struct step *s = &f.step;
    write_random_model(&f.config, DTYPE_F32, path, sizeof path);
    if (frozen_open(&frozen, path, 0, f.pool, &st))
        fail_msg("%s", st.message);
    assert_true(frozen.max_len == f.config.max_position_embeddings && frozen.max_rows >= 1 && frozen_bytes(&frozen) > 0);
    for (int i = 0; i < s->table.n_tensors; i++) {
        const struct tensor_desc *t = &s->table.tensors[i];
        const struct stored_tensor *from = safetensors_set_find(&frozen.model->safetensors, t->name);
        dtype_to_f32(from->type, s->weights + t->offset, from->data, tensor_elements(t));
    }
    assert_int_equal(batch_create(&b, 2, 40, NULL), PLM_OK);
    for (int i = 0; i < 80; i++) {
        b.tokens[i] = (int32_t)(uniform(2, i) * f.config.vocab_size);
        b.targets[i] = (int32_t)(uniform(3, i) * f.config.vocab_size);
        b.doc_start[i] = i % 40 < 13 ? 0 : 13;
        b.weight[i] = i % 4 != 0;
    }
    float want[80], got[80];
    step_forward(s, &b);
    step_nll(s, &b, want, NULL);
    frozen_forward(&frozen, &b);
    assert_true(relative_error(frozen.h, s->final_h, 80 * (size_t)f.config.hidden_size) < 1e-5);
    frozen_nll(&frozen, &b, got);
    for (int i = 0; i < 80; i++)
        assert_true(b.weight[i] != 0 ? fabsf(got[i] - want[i]) < 1e-4f * (1 + want[i]) : got[i] == 0);
    frozen_close(&frozen);
    assert_int_equal(frozen_open(&frozen, path, f.config.max_position_embeddings + 1, f.pool, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "takes sequences of"));
    frozen_close(&frozen);

    /* The head and its statistics as files. */
    struct extra_params x, y;
    const char *names[2];
    assert_int_equal(extra_params_create(&x, REWARD_HEAD, 48, NULL), PLM_OK);
    assert_int_equal(extra_params_create(&y, REWARD_HEAD, 48, NULL), PLM_OK);
    for (int k = 0; k < 48; k++)
        x.params[k] = (float)k, x.m[k] = (float)-k, x.v[k] = 2;
    assert_int_equal(extra_params_save(&x, path, names, &st), PLM_OK);
    assert_string_equal(names[0], "reward_head.safetensors");
    assert_string_equal(names[1], "optimizer_reward_head.safetensors");
    assert_int_equal(extra_params_load(&y, path, false, &st), PLM_OK);
    assert_true(y.params[47] == 47 && y.m[47] == 0);
    assert_int_equal(extra_params_load(&y, path, true, &st), PLM_OK);
    assert_true(y.m[47] == -47 && y.v[0] == 2);
    extra_params_free(&y);
    assert_int_equal(extra_params_create(&y, REWARD_HEAD, 47, NULL), PLM_OK);
    assert_int_equal(extra_params_load(&y, path, false, &st), PLM_EFORMAT);
    assert_non_null(strstr(st.message, "47 numbers"));
    x.params[5] = NAN;
    assert_int_equal(extra_params_save(&x, path, names, &st), PLM_OK);
    assert_int_equal(extra_params_load(&x, path, false, &st), PLM_EFORMAT);
    assert_non_null(strstr(st.message, "element 5"));
    for (int i = 0; i < 2; i++) {
        snprintf(head, sizeof head, "%s/%s", path, names[i]);
        remove(head);
    }
    extra_params_free(&x);
    extra_params_free(&y);

    struct reward_statistics r = {.step = 7, .pairs = 9, .loss = 0.1, .accuracy = 0.75, .margin = 1.0 / 3, .mean = -0.2, .deviation = 1.5}, back;
    assert_int_equal(reward_statistics_read(&back, path, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "no reward model"));
    snprintf(head, sizeof head, "%s/" REWARD_FILE, path);
    for (int broken = 0; broken < 2; broken++) {
        r.deviation = broken ? 0 : 1.5;
        char *text = reward_statistics_to_json(&r);
        FILE *file = fopen(head, "w");
        assert_true(fputs(text, file) >= 0 && fclose(file) == 0);
        free(text);
        assert_int_equal(reward_statistics_read(&back, path, &st), broken ? PLM_EFORMAT : PLM_OK);
        assert_true(back.step == 7 && back.pairs == 9 && back.margin == 1.0 / 3 && back.mean == -0.2);
    }
    remove(head);
    remove_model(path);
    batch_free(&b);
    close_fixture(&f);
}

/* ---- configuration ---- */

static int parse(struct reward_config *c, const char *more, struct plm_status *st)
{
    struct settings *s;
    char text[1024];
    snprintf(text, sizeof text, "{\"model\": {\"path\": \"m\"}, \"run_dir\": \"r\", \"seq_len\": 64, \"pairs\": {\"sources\": [{\"path\": \"p\"}]}%s}", more);
    const int code = settings_parse(&s, text, strlen(text), "reward.json", st);
    return code ? code : reward_config_read(c, s, st);
}

static void configurations(void **state)
{
    (void)state;
    struct reward_config c;
    struct plm_status st = {0};
    if (parse(&c, ", \"lora\": {\"rank\": 4}, \"eval\": {\"sources\": [{\"name\": \"a\", \"path\": \"q\"}]}", &st))
        fail_msg("%s", st.message);
    assert_true(c.loss.center == 0.01 && c.loss.margin == 0 && c.held_out == 0.05 && c.n_eval == 1 && c.adapt && c.lora.alpha == 8);
    assert_true(reward_learning_rate(&c, 0, 100) == c.peak / 5 && reward_learning_rate(&c, 4, 100) == c.peak && reward_learning_rate(&c, 99, 100) > 0);
    reward_config_free(&c);
    static const char *const bad[][2] = {
        {", \"learning_rate\": {\"peak\": 0}", "above 0"}, {", \"loss\": {\"centre\": 1}", "did you mean 'center'"}, {", \"batch_pairs\": 0", "batch_pairs"},
        {", \"eval\": {\"sources\": [{\"name\": \"held-out\", \"path\": \"q\"}]}", "another set"}, {", \"early_stop\": {\"patience\": 1}", "eval.every_steps"},
        {", \"lora\": {\"rank\": 4, \"alpha\": 0}", "alpha"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (!parse(&c, bad[i][0], &st) || !strstr(st.message, bad[i][1]))
            fail_msg("expected '%s', got '%s'", bad[i][1], st.message);
        reward_config_free(&c);
    }
}

static const char *example; /* configs/reward.json */

static void example_configuration(void **state)
{
    (void)state;
    struct reward_config c;
    struct plm_status st = {0};
    const char *const overrides[] = {"epochs=2"};
    if (reward_config_load(&c, example, overrides, 1, &st))
        fail_msg("%s", st.message);
    assert_true(c.epochs == 2 && c.n_sources == 1 && c.n_eval == 2 && c.skip_bad);
    reward_config_free(&c);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return fprintf(stderr, "usage: %s REWARD.json\n", argv[0]), 2;
    example = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses), cmocka_unit_test(hidden_backward_is_the_token_backward), cmocka_unit_test(gradients_and_finite_differences),
        cmocka_unit_test(packing_does_not_matter), cmocka_unit_test(frozen_is_the_step), cmocka_unit_test(configurations),
        cmocka_unit_test(example_configuration),
    };
    return RUN_WITH_EVERY_TABLE(tests, NULL, NULL);
}
