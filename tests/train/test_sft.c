/* Fine-tuning: the configuration, packing, the rows of every step, the refinement term, the gradient of a step however it is cut, and the memory of evaluations. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "infer/base/random.h"
#include "tests/model/support.h"
#include "train/evaluations.h"
#include "train/files.h"
#include "train/manifest.h"
#include "train/model_keep.h"
#include "train/sft_data.h"
#include "train/step.h"

#define HEAD "{\"model\": {\"path\": \"m\"}, \"run_dir\": \"run\", \"micro_batch\": 2, \"seq_len\": 128"
#define PHASE(length, more) "{\"name\": \"one\", " length ", \"batch_rows\": 4, \"peak\": 1e-3, \"sources\": [{\"path\": \"rows.jsonl\"" more "}]}"
#define RUN(phases, more) HEAD ", \"phases\": [" phases "]" more "}"

/* ---- configuration ---- */

static int parse(struct sft_config *c, const char *text, struct plm_status *st)
{
    struct settings *s;
    const int code = settings_parse(&s, text, strlen(text), "sft.json", st);
    return code ? code : sft_config_read(c, s, st);
}

static struct sft_config good(const char *text)
{
    struct sft_config c;
    struct plm_status st = {0};
    if (parse(&c, text, &st))
        fail_msg("%s", st.message);
    return c;
}

static void refuse(const char *text, const char *want)
{
    struct sft_config c = {0};
    struct plm_status st = {0};
    if (!parse(&c, text, &st) || !strstr(st.message, want))
        fail_msg("expected '%s', got '%s'", want, st.message);
    sft_config_free(&c);
}

static void configurations(void **state)
{
    (void)state;
    struct sft_config c = good(RUN(PHASE("\"epochs\": 2", ", \"use\": \"refine\", \"fields\": {\"prompt\": \"instruction\"}") ", " PHASE("\"steps\": 7", ""),
                                   ", \"lora\": {\"rank\": 8}"));
    assert_int_equal(c.n_phases, 2);
    assert_true(c.phases[0].epochs == 2 && c.phases[0].steps == 0 && c.phases[1].steps == 7);
    assert_int_equal(c.phases[0].shape, DECAY_COSINE);
    assert_int_equal(c.phases[0].sources[0].use, USE_REFINE);
    assert_string_equal(json_string_value(json_object_get(c.phases[0].sources[0].fields, "prompt")), "instruction");
    assert_true(c.adapt && c.lora.rank == 8 && c.lora.alpha == 16);
    assert_false(sft_config_evaluates(&c));
    sft_config_free(&c);

    refuse(RUN(PHASE("\"epochs\": 1, \"steps\": 3", ""), ""), "phases[0]: give the length either as \"epochs\" or as \"steps\", not both");
    refuse(RUN(PHASE("\"epochs\": 1, \"last_turn_only\": 1", ""), ""), "expected true or false");
    refuse(RUN(PHASE("\"epochs\": 1", ", \"wieght\": 2"), ""), "phases[0].sources[0].wieght: unknown key; did you mean 'weight'?");
    refuse(RUN(PHASE("\"epochs\": 1", ", \"weight\": 0"), ""), "expected a number above 0");
    refuse(RUN(PHASE("\"epochs\": 1", ", \"fields\": {\"prompt\": 3}"), ""), "fields.prompt");
    refuse(RUN(PHASE("\"epochs\": 1, \"floor\": 1", ""), ""), "floor");
    refuse(RUN("", ""), "phases");
    refuse(RUN(PHASE("\"epochs\": 1", ""), ", \"lora\": {}"), "lora.rank: missing");
    refuse(RUN(PHASE("\"epochs\": 1", ""), ", \"early_stop\": {\"patience\": 2}"), "early_stop.patience: stopping early needs eval.every_steps");
    refuse(RUN(PHASE("\"epochs\": 1", ""), ", \"eval\": {\"sources\": [{\"name\": \"a\", \"path\": \"p\"}, {\"name\": \"a\", \"path\": \"q\"}]}"),
           "is also the name of sources[0]");
    refuse(RUN(PHASE("\"epochs\": 1", ""), ", \"eval\": {\"sources\": [{\"name\": \"a\", \"path\": \"p\"}]}, \"early_stop\": {\"metric\": \"score\"}"),
           "\"score\" needs eval.answers");
    refuse(RUN(PHASE("\"epochs\": 1", ""), ", \"eval\": {\"answers\": {\"path\": \"p\", \"scorer\": {\"kind\": \"nonsense\"}}}"), "scorer");
}

static const char *example; /* configs/sft.json */

static void the_example(void **state)
{
    (void)state;
    struct sft_config c;
    struct plm_status st = {0};
    if (sft_config_load(&c, example, NULL, 0, &st))
        fail_msg("%s", st.message);
    assert_int_equal(c.n_phases, 2);
    assert_true(c.phases[0].peak == 2e-5 && c.phases[1].peak == 2e-5 && c.phases[0].shape == DECAY_COSINE);
    assert_true(sft_config_evaluates(&c));
    sft_config_free(&c);
}

/* ---- packing ---- */

/* n sequences of 2 to `longest` tokens below vocab, about half of the tokens targets. */
static void random_examples(struct examples *e, int n, int longest, int vocab)
{
    *e = (struct examples){0};
    for (int i = 0; i < n; i++) {
        int32_t tokens[512];
        uint8_t targets[512];
        const int length = 2 + (int)(random_u64(1, RANDOM_TEST, 0, (uint64_t)i) % (uint64_t)(longest - 1));
        for (int j = 0; j < length; j++) {
            tokens[j] = (int32_t)(random_u64(2, RANDOM_TEST, (uint32_t)i, (uint64_t)j) % (uint64_t)vocab);
            targets[j] = j > length / 2 || j == length - 1;
        }
        assert_int_equal(examples_add(e, tokens, length, targets, 0, NULL), PLM_OK);
    }
}

static void rows_hold_every_sequence_once(void **state)
{
    (void)state;
    enum { LEN = 100, N = 300 };
    struct examples e;
    struct batch b;
    random_examples(&e, N, LEN + 1, 50);
    assert_int_equal(batch_create(&b, 1, LEN, NULL), PLM_OK);
    int64_t n_rows = 0;
    for (uint64_t key = 0; key < 3; key++) {
        struct packed_examples p;
        bool seen[N] = {false};
        int64_t inputs = 0, targets = 0;
        assert_int_equal(packed_examples_build(&p, &e, LEN, key, NULL), PLM_OK);
        assert_true(key == 0 || p.packing.n_rows == n_rows);
        n_rows = p.packing.n_rows;
        for (int64_t row = 0; row < n_rows; row++) {
            int64_t row_inputs, row_targets;
            const int used = packed_row_fill(&p, &e, row, 0, &b);
            packed_row_counts(&p, &e, row, &row_inputs, &row_targets);
            assert_int_equal(row_inputs, used);
            inputs += used;
            for (int t = 0; t < used;) { /* the document at t is one of the sequences, whole */
                int end = t;
                while (end < used && b.doc_start[end] == t)
                    end++;
                int found = -1;
                for (int i = 0; i < N && found < 0; i++)
                    if (!seen[i] && example_length(&e, i) == end - t + 1 && !memcmp(b.tokens + t, e.tokens.data + e.begin[i], (size_t)(end - t) * 4))
                        found = i;
                assert_true(found >= 0);
                seen[found] = true;
                for (int j = t; j < end; j++) {
                    const int64_t next = e.begin[found] + j - t + 1;
                    assert_true(b.weight[j] == e.target.data[next] && (!e.target.data[next] || b.targets[j] == e.tokens.data[next]));
                    targets += b.weight[j] > 0;
                    row_targets -= b.weight[j] > 0;
                }
                t = end;
            }
            assert_int_equal(row_targets, 0);
            for (int t = used; t < LEN; t++)
                assert_true(b.weight[t] == 0 && b.doc_start[t] == t);
        }
        for (int i = 0; i < N; i++)
            assert_true(seen[i]);
        assert_int_equal(inputs, (int64_t)e.tokens.length - N);
        for (size_t i = 0; i < e.target.length; i++)
            targets -= e.target.data[i];
        assert_int_equal(targets, 0);
        packed_examples_free(&p);
    }
    struct packed_examples p;
    struct plm_status st = {0};
    assert_int_equal(packed_examples_build(&p, &e, 20, 0, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "rows of 20 positions take 2 to 21"));
    batch_free(&b);
    examples_free(&e);
}

/* ---- the gradient of a step ---- */

/* The mean gradient over the targets of all rows, `micro` rows at a time; every document in a row of its own when alone is set. */
static float *mean_gradient(const struct examples *e, int len, int micro, bool alone, int64_t *n)
{
    struct plm_status st = {0};
    struct model_config c = small_config();
    struct step s;
    struct batch b;
    struct thread_pool *pool;
    struct packed_examples *packs = calloc((size_t)e->n, sizeof *packs);
    struct examples *parts = calloc((size_t)e->n, sizeof *parts);
    int64_t n_rows = 0;
    double weight = 0;
    assert_int_equal(pool_create(&pool, 1, NULL), PLM_OK);
    assert_int_equal(batch_create(&b, micro, len, NULL), PLM_OK);
    if (step_create(&s, &c, micro, len, 1, 9, ops_select(OPS_BEST), pool, &st))
        fail_msg("%s", st.message);
    for (int64_t i = 0; i < (alone ? e->n : 1); i++) {
        if (alone)
            assert_int_equal(examples_add(&parts[i], e->tokens.data + e->begin[i], example_length(e, i), e->target.data + e->begin[i], 0, NULL), PLM_OK);
        assert_int_equal(packed_examples_build(&packs[i], alone ? &parts[i] : e, len, 0, NULL), PLM_OK);
        n_rows += packs[i].packing.n_rows;
    }
    float *nll = malloc((size_t)micro * (size_t)len * sizeof *nll);
    step_zero_gradients(&s);
    for (int64_t first = 0; first < n_rows; first += micro) {
        int longest = 1;
        b.rows = (int)(n_rows - first < micro ? n_rows - first : micro);
        b.seq_len = len;
        for (int r = 0; r < b.rows; r++) {
            const int64_t row = first + r;
            const int used = alone ? packed_row_fill(&packs[row], &parts[row], 0, r, &b) : packed_row_fill(&packs[0], e, row, r, &b);
            longest = used > longest ? used : longest;
        }
        batch_shorten(&b, longest);
        assert_int_equal(step_check_batch(&s, &b, NULL), PLM_OK);
        step_forward(&s, &b);
        step_backward(&s, &b, b.weight, nll);
        for (int i = 0; i < b.rows * b.seq_len; i++)
            weight += b.weight[i];
    }
    *n = s.table.padded;
    float *g = malloc((size_t)*n * sizeof *g);
    for (int64_t i = 0; i < *n; i++)
        g[i] = (float)(s.grads[i] / weight);
    for (int64_t i = 0; i < e->n; i++) {
        packed_examples_free(&packs[i]);
        examples_free(&parts[i]);
    }
    free(packs);
    free(parts);
    free(nll);
    batch_free(&b);
    step_destroy(&s);
    pool_destroy(pool);
    return g;
}

static void the_gradient_does_not_depend_on_how_a_step_is_cut(void **state)
{
    (void)state;
    struct examples e;
    int64_t n;
    random_examples(&e, 24, 60, small_config().vocab_size);
    float *want = mean_gradient(&e, 64, 8, false, &n);
    for (int micro = 1; micro <= 8; micro *= 2)
        for (int alone = 0; alone < 2; alone++) {
            float *got = mean_gradient(&e, 64, micro, alone, &n);
            const double error = relative_error(got, want, (size_t)n);
            if (!(error < 1e-6))
                fail_msg("%d rows at a time, %s: %.2g from 8 packed rows at a time", micro, alone ? "a document per row" : "packed", error);
            free(got);
        }
    free(want);
    examples_free(&e);
}

/* ---- the data of a run ---- */

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

struct rendering {
    struct tokenizer *tokenizer;
    struct chat_template *chat;
    struct refine_template *refine;
    struct sft_renderer r;
};

static void rendering_open(struct rendering *o)
{
    static const char refine[] = "Q {x} A {y_prev} Better:";
    byte_tokenizer(&o->tokenizer);
    assert_int_equal(chat_template_open(&o->chat, NULL, NULL, NULL), PLM_OK);
    assert_int_equal(refine_template_from_text(&o->refine, refine, strlen(refine), "test", NULL), PLM_OK);
    o->r = (struct sft_renderer){o->tokenizer, o->chat, o->refine};
}

static void rendering_close(struct rendering *o)
{
    tokenizer_free(o->tokenizer);
    chat_template_free(o->chat);
    refine_template_free(o->refine);
}

/* The text of sequence i: all of it, or its targets. */
static char *text_of(const struct rendering *o, const struct examples *e, int64_t i, bool targets_only)
{
    int32_t ids[4096];
    size_t n = 0, length;
    char *text = NULL;
    for (int64_t j = e->begin[i]; j < e->begin[i + 1]; j++)
        if (!targets_only || e->target.data[j])
            ids[n++] = e->tokens.data[j];
    assert_int_equal(tokenizer_decode(o->tokenizer, ids, n, true, &text, &length, NULL), PLM_OK);
    return text;
}

static void the_refinement_term(void **state)
{
    (void)state;
    struct rendering o;
    rendering_open(&o);
    write_text("pairs.jsonl", "{\"prompt\": \"Why?\", \"chosen\": \"Because.\", \"rejected\": \"No idea\"}\n"
                              "{\"prompt\": \"When?\", \"chosen\": \"Now, at once, and without any delay whatsoever.\", \"rejected\": \"Never ever, not in a hundred years\"}\n");
    const struct sft_phase how = {0};
    struct sft_source source = {.path = "pairs.jsonl", .weight = 1, .use = USE_REFINE};
    struct plm_status st = {0};
    struct examples e = {0};
    if (sft_read_sources(&e, &source, 1, &o.r, &how, 512, 1, false, &st))
        fail_msg("%s", st.message);
    assert_int_equal(e.n, 4);
    const char *targets[] = {"Because.<|im_end|>", "Because.<|im_end|>", "Now, at once, and without any delay whatsoever.<|im_end|>"};
    const char *wholes[] = {"<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nBecause.<|im_end|>",
                            "<|im_start|>user\nQ Why? A No idea Better:<|im_end|>\n<|im_start|>assistant\nBecause.<|im_end|>",
                            "<|im_start|>user\nWhen?<|im_end|>\n<|im_start|>assistant\nNow, at once, and without any delay whatsoever.<|im_end|>"};
    for (int i = 0; i < 3; i++) {
        char *target = text_of(&o, &e, i, true), *whole = text_of(&o, &e, i, false);
        assert_string_equal(target, targets[i]);
        assert_non_null(strstr(whole, wholes[i]));
        assert_string_equal(strstr(whole, wholes[i]), wholes[i]);
        free(target);
        free(whole);
    }
    const int64_t longest = example_length(&e, 3);
    examples_free(&e);
    /* Where the long refinement does not fit it alone is dropped, also when answers may be cut. */
    const struct sft_phase cut = {.truncate = true};
    assert_int_equal(sft_read_sources(&e, &source, 1, &o.r, &cut, (int)longest - 2, 1, false, &st), PLM_OK);
    assert_int_equal(e.n, 3);
    examples_free(&e);
    /* refine_both also keeps the good draft */
    source.use = USE_REFINE_BOTH;
    assert_int_equal(sft_read_sources(&e, &source, 1, &o.r, &how, 512, 1, false, &st), PLM_OK);
    assert_int_equal(e.n, 6);
    char *kept = text_of(&o, &e, 2, false);
    assert_non_null(strstr(kept, "<|im_start|>user\nQ Why? A Because. Better:<|im_end|>\n<|im_start|>assistant\nBecause.<|im_end|>"));
    free(kept);
    examples_free(&e);
    source.use = USE_CHOSEN;
    source.weight = 2;
    assert_int_equal(sft_read_sources(&e, &source, 1, &o.r, &how, 512, 1, false, &st), PLM_OK);
    assert_int_equal(e.n, 4);
    examples_free(&e);
    assert_int_equal(sft_read_sources(&e, &source, 1, &o.r, &how, 8, 1, false, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "no row can be used"));
    examples_free(&e);
    write_text("pairs.jsonl", "{\"prompt\": \"Why?\", \"chosen\": \"x\", \"rejected\": \"y\"}\n{\"prompt\": \"Why?\", \"chosen\": \"x\", \"rejected\": \"x\"}\n");
    assert_int_not_equal(sft_read_sources(&e, &source, 1, &o.r, &how, 512, 1, false, &st), PLM_OK);
    assert_non_null(strstr(st.message, "pairs.jsonl:2"));
    examples_free(&e);
    unlink("pairs.jsonl");
    rendering_close(&o);
}

static void write_rows(const char *path, int n)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < n; i++)
        fprintf(f, "{\"prompt\": \"Number %d?\", \"completion\": \"%.*s\"}\n", i, 1 + i * 7 % 40, "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz");
    assert_int_equal(fclose(f), 0);
}

static void steps_take_every_row_once_per_epoch(void **state)
{
    (void)state;
    struct rendering o;
    struct plm_status st = {0};
    struct sft_data d;
    rendering_open(&o);
    write_rows("rows.jsonl", 37);
    struct sft_config c = good(RUN(PHASE("\"epochs\": 2.5, \"warmup\": 0.25", "") ", " PHASE("\"steps\": 3, \"floor\": 1e-4, \"warmup\": 1", ""), ""));
    if (sft_data_open(&d, &c, &o.r, false, &st))
        fail_msg("%s", st.message);
    const struct sft_phase_data *p = &d.phases[0];
    const int64_t rows = p->epoch_rows;
    assert_int_equal(p->rows, llround(2.5 * (double)rows));
    assert_int_equal(d.total_steps, (p->rows + 3) / 4 + 3);
    int *seen = calloc((size_t)rows * 3, sizeof *seen);
    int64_t next = 0;
    double last = 0;
    struct sft_point at;
    for (int64_t step = 0; step < p->steps; step++) {
        assert_true(sft_data_at(&d, step, &at));
        assert_int_equal(at.first_row, next);
        assert_int_equal(at.n_rows, step + 1 < p->steps ? 4 : p->rows - next);
        assert_true(at.learning_rate > 0 && at.learning_rate <= 1e-3);
        assert_true(step < p->steps / 4 ? at.learning_rate > last : at.learning_rate <= 1e-3);
        last = at.learning_rate;
        next += at.n_rows;
        struct sft_row taken[4];
        assert_int_equal(sft_data_step(&d, &at, taken, &st), PLM_OK);
        for (int64_t k = 0; k < at.n_rows; k++) {
            int64_t row, inputs, targets;
            const int64_t i = taken[k].i;
            assert_true(i >= at.first_row && i < next);
            assert_true(k == 0 || i / rows > taken[k - 1].i / rows || taken[k].inputs <= taken[k - 1].inputs);
            assert_int_equal(sft_data_row(&d, 0, i, &row, &st), PLM_OK);
            assert_true(row >= 0 && row < rows);
            packed_row_counts(&d.packed, &p->examples, row, &inputs, &targets);
            assert_true(inputs == taken[k].inputs && targets == taken[k].targets);
            seen[i / rows * rows + row]++;
        }
    }
    for (int64_t i = 0; i < 2 * rows; i++)
        assert_int_equal(seen[i], 1);
    assert_true(sft_data_at(&d, p->steps, &at) && at.phase == 1 && at.step_in_phase == 0 && at.first_row == 0);
    assert_true(fabs(at.learning_rate - 1e-3) < 1e-12);
    assert_false(sft_data_at(&d, d.total_steps, &at));
    int64_t first, again;
    assert_int_equal(sft_data_row(&d, 0, 0, &first, &st), PLM_OK); /* any order gives the same */
    assert_int_equal(sft_data_row(&d, 1, 5, &again, &st), PLM_OK);
    assert_int_equal(sft_data_row(&d, 0, 0, &again, &st), PLM_OK);
    assert_int_equal(first, again);
    char hash[SHA256_HEX], other[SHA256_HEX];
    assert_int_equal(sft_data_hash(&d, "", hash, &st), PLM_OK);
    sft_data_close(&d);
    free(seen);
    write_rows("rows.jsonl", 38); /* other data, another hash */
    assert_int_equal(sft_data_open(&d, &c, &o.r, false, &st), PLM_OK);
    assert_int_equal(sft_data_hash(&d, "", other, &st), PLM_OK);
    assert_string_not_equal(hash, other);
    sft_data_close(&d);
    sft_config_free(&c);
    c = good(RUN(PHASE("\"steps\": 3, \"warmup\": 4", ""), ""));
    assert_int_equal(sft_data_open(&d, &c, &o.r, false, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "the warm-up has 4 steps, the whole phase has 3"));
    sft_data_close(&d);
    sft_config_free(&c);
    unlink("rows.jsonl");
    rendering_close(&o);
}

/* ---- evaluations ---- */

static json_t *record(double loss, double score)
{
    return json_pack("{s:{s:{s:f, s:i}, s:{s:f, s:i}}, s:[{s:f}, {s:f}]}", "held_out", "a", "loss", loss, "tokens", 30, "b", "loss", loss + 4, "tokens", 10, "answers",
                     "score", 0.0, "score", score);
}

static void the_best_evaluation(void **state)
{
    (void)state;
    char dir[] = "run-XXXXXX";
    struct plm_status st = {0};
    struct evaluations e;
    bool improved;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(evaluations_open(&e, dir, METRIC_LOSS, 0, &st), PLM_OK);
    const struct { int64_t step; double loss, score; bool best; } steps[] = {{0, 1, 1, false}, {10, 3, 0.2, true}, {20, 2, 0.5, true}, {30, 2, 0.4, false},
                                                                            {40, NAN, 0.5, false}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        json_t *r = record(isfinite(steps[i].loss) ? steps[i].loss : 0, steps[i].score);
        if (!isfinite(steps[i].loss))
            json_object_del(r, "held_out");
        assert_int_equal(evaluations_add(&e, steps[i].step, r, &improved, &st), PLM_OK);
        assert_int_equal(improved, steps[i].best);
    }
    assert_int_equal(e.best_step, 20);
    assert_true(e.best == 3 && e.since == 2); /* (30 * 2 + 10 * 6) / 40 */
    evaluations_close(&e);
    assert_int_equal(evaluations_open(&e, dir, METRIC_LOSS, 35, &st), PLM_OK); /* continues before the last one */
    assert_true(evaluations_has(&e, 0) && evaluations_has(&e, 30) && !evaluations_has(&e, 40) && e.best_step == 20 && e.since == 1);
    evaluations_close(&e);
    assert_int_equal(evaluations_open(&e, dir, METRIC_SCORE, 40, &st), PLM_OK); /* the first of equal scores */
    assert_true(e.best_step == 20 && e.best == 0.5 && e.since == 2);
    evaluations_close(&e);
    assert_int_equal(evaluations_open(&e, dir, METRIC_LOSS, 0, &st), PLM_OK);
    assert_false(evaluations_has(&e, 0));
    evaluations_close(&e);
    char path[256];
    snprintf(path, sizeof path, "%s/evaluation.json", dir);
    write_text(path, "{\"evaluations\": [");
    assert_int_equal(evaluations_open(&e, dir, METRIC_LOSS, 5, &st), PLM_EFORMAT);
    evaluations_close(&e);
    assert_int_equal(directory_remove(dir, &st), PLM_OK);
}

static void the_best_model_stays(void **state)
{
    (void)state;
    char dir[] = "run-XXXXXX", path[256], best[256];
    struct plm_status st = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(best, sizeof best, "%s/best", dir);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/step-%d", dir, i);
        assert_int_equal(mkdir(path, 0777), 0);
        const char *names[] = {"config.json", "model.safetensors", "optimizer.safetensors", "manifest.json"};
        for (int k = 0; k < 4; k++) {
            char file[300], text[16];
            snprintf(file, sizeof file, "%s/%s", path, names[k]);
            snprintf(text, sizeof text, "%d-%d", i, k);
            write_text(file, text);
        }
        assert_int_equal(model_keep(path, dir, "best", &st), PLM_OK);
        assert_int_equal(directory_remove(path, &st), PLM_OK);
        if (manifest_verify(best, &st))
            fail_msg("%s", st.message);
        snprintf(path, sizeof path, "%s/model.safetensors", best);
        FILE *f = fopen(path, "r");
        assert_non_null(f);
        assert_int_equal(fgetc(f), '0' + i);
        fclose(f);
        snprintf(path, sizeof path, "%s/optimizer.safetensors", best);
        assert_int_not_equal(access(path, F_OK), 0);
    }
    assert_int_equal(directory_remove(best, &st), PLM_OK);
    assert_int_not_equal(model_keep("nowhere", dir, "best", &st), PLM_OK);
    snprintf(path, sizeof path, "%s/.best.tmp", dir);
    assert_int_equal(directory_remove(path, &st), PLM_OK);
    assert_int_equal(directory_remove(dir, &st), PLM_OK);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return fprintf(stderr, "usage: %s SFT.json\n", argv[0]), 2;
    example = argv[1];
    const struct CMUnitTest tests[] = {cmocka_unit_test(configurations), cmocka_unit_test(the_example), cmocka_unit_test(rows_hold_every_sequence_once),
                                       cmocka_unit_test(the_gradient_does_not_depend_on_how_a_step_is_cut), cmocka_unit_test(the_refinement_term),
                                       cmocka_unit_test(steps_take_every_row_once_per_epoch), cmocka_unit_test(the_best_evaluation),
                                       cmocka_unit_test(the_best_model_stays)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
