/* The multi-phase run: derived boundaries, the learning rate, the samples of ranks and micro-batches, and bad input. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train/curriculum.h"

#define MODEL "\"model\": {\"num_hidden_layers\": 2, \"hidden_size\": 32, \"num_attention_heads\": 2, \"kv_lora_rank\": 16, "    \
              "\"qk_nope_head_dim\": 8, \"qk_rope_head_dim\": 4, \"v_head_dim\": 8, \"intermediate_size\": 64, "                 \
              "\"vocab_size\": 100, \"max_position_embeddings\": 64}, "
#define PATHS "\"tokenizer\": \"t.json\", \"run_dir\": \"run\", \"micro_batch\": 2, "
#define MIX ", \"mixture\": [{\"path\": \"a\", \"weight\": 3}, {\"path\": \"b\"}]}"
#define STABLE "{\"name\": \"one\", \"schedule\": \"stable\", \"steps\": 5, \"seq_len\": 16, \"batch_rows\": 8" MIX
#define STABLE2 "{\"name\": \"two\", \"schedule\": \"stable\", \"tokens\": 513, \"seq_len\": 32, \"batch_rows\": 8" MIX
#define DECAY "{\"name\": \"three\", \"schedule\": \"decay\", \"tokens\": 2048, \"seq_len\": 32, \"batch_rows\": 16" MIX
#define CONSTANT "{\"name\": \"four\", \"schedule\": \"constant\", \"steps\": 2, \"seq_len\": 64, \"batch_rows\": 4" MIX
#define STEPS "\"schedule\": {\"unit\": \"steps\", \"peak\": 1e-3, \"floor\": 1e-4, \"warmup\": 2}, "
#define TOKENS "\"schedule\": {\"unit\": \"tokens\", \"peak\": 1e-3, \"floor\": 1e-4, \"warmup\": 256, "             \
               "\"decay_shape\": \"cosine\"}, "
#define PHASES(list) "\"phases\": [" list "]"
#define ALL STABLE ", " STABLE2 ", " DECAY ", " CONSTANT
#define RUN(schedule, list) "{" MODEL PATHS schedule PHASES(list) "}"

static int parse(struct run_config *c, const char *text, const char *override, struct plm_status *st)
{
    struct settings *s;
    int code = settings_parse(&s, text, strlen(text), "run.json", st);
    if (!code && override)
        code = settings_override(s, override, st);
    if (!code)
        return run_config_read(c, s, st);
    settings_close(s);
    *c = (struct run_config){0};
    return code;
}

static struct run_config good(const char *text, const char *override)
{
    struct run_config c;
    struct plm_status st = {0};
    if (parse(&c, text, override, &st))
        fail_msg("%s", st.message);
    return c;
}

static void refuse(const char *text, const char *override, const char *want)
{
    struct run_config c;
    struct plm_status st = {0};
    int code = parse(&c, text, override, &st);
    if (!code || !strstr(st.message, want))
        fail_msg("with %s: expected '%s', got '%s'", override ? override : "-", want, st.message);
    run_config_free(&c);
}

static void boundaries(void **state)
{
    (void)state;
    struct run_config c = good(RUN(STEPS, ALL), NULL);
    assert_int_equal(c.n_phases, 4);
    assert_int_equal(c.phases[0].steps, 5);
    assert_int_equal(c.phases[1].steps, 3); /* 513 / 256, rounded up */
    assert_int_equal(c.phases[2].steps, 4); /* 2048 / 512 */
    assert_int_equal(c.phases[3].steps, 2);
    assert_int_equal(c.total_steps, 14);
    assert_int_equal(c.phases[3].first_step, 12);
    assert_int_equal(c.phases[2].first_tokens, 5 * 128 + 3 * 256);
    assert_int_equal(c.total_tokens, 5 * 128 + 3 * 256 + 4 * 512 + 2 * 256);
    assert_true(c.schedule.stable_end == 8 && c.schedule.decay_end == 12);
    assert_string_equal(c.phases[0].mixture[0].path, "a");
    assert_true(c.phases[0].mixture[0].weight == 3 && c.phases[0].mixture[1].weight == 1);
    assert_true(c.adamw.beta2 == 0.95 && c.clip == 1 && c.seed == 1 && c.model.hidden_size == 32);
    run_config_free(&c);
    c = good(RUN(TOKENS, ALL), NULL);
    assert_true(c.schedule.stable_end == 5 * 128 + 3 * 256);
    assert_true(c.schedule.decay_end == 5 * 128 + 3 * 256 + 4 * 512);
    run_config_free(&c);
}

/* Update k, from 1, is made with the reference's wsdc(k). */
static void rates_by_steps(void **state)
{
    (void)state;
    static const double want[14] = {5e-4, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3,
                                    7.75e-4, 5.5e-4, 3.25e-4, 1e-4, 1e-4, 1e-4};
    static const int phase[14] = {0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3};
    struct run_config c = good(RUN(STEPS, ALL), NULL);
    struct curriculum_point p;
    int64_t tokens = 0;
    for (int k = 0; k < 14; k++) {
        assert_true(curriculum_at(&c, k, &p));
        assert_int_equal(p.phase, phase[k]);
        assert_int_equal(p.step_in_phase, k - c.phases[p.phase].first_step);
        assert_int_equal(p.first_sample, p.step_in_phase * c.phases[p.phase].batch_rows);
        assert_int_equal(p.tokens_before, tokens);
        tokens = p.tokens_after;
        assert_true(fabs(p.learning_rate - want[k]) < 1e-15);
    }
    assert_int_equal(tokens, c.total_tokens);
    assert_false(curriculum_at(&c, 14, &p));
    assert_false(curriculum_at(&c, -1, &p));
    run_config_free(&c);
}

static void rates_by_tokens(void **state)
{
    (void)state;
    struct run_config c = good(RUN(TOKENS, ALL), NULL);
    struct curriculum_point p;
    assert_true(curriculum_at(&c, 0, &p)); /* 128 of 256 tokens of warmup */
    assert_true(fabs(p.learning_rate - 5e-4) < 1e-15);
    assert_true(curriculum_at(&c, 9, &p)); /* half of the decay is consumed: cosine gives 1/2 */
    assert_true(fabs(p.learning_rate - 5.5e-4) < 1e-15);
    assert_true(curriculum_at(&c, 11, &p));
    assert_true(p.learning_rate == 1e-4);
    run_config_free(&c);
    c = good(RUN(STEPS, STABLE), NULL); /* nothing follows: the last update is at the peak too */
    assert_true(curriculum_at(&c, 4, &p));
    assert_true(p.learning_rate == 1e-3);
    run_config_free(&c);
}

/* Whatever the number of ranks, a step takes each row of its batch once, and a rank's samples have one stride. */
static void samples_of_ranks(void **state)
{
    (void)state;
    struct run_config c = good(RUN(STEPS, ALL), NULL);
    for (int world = 1; world <= 4; world *= 2) {
        int seen[24] = {0};
        for (int rank = 0; rank < world; rank++) {
            int64_t last = -1;
            for (int64_t step = 5; step < 8; step++) { /* phase 1: batches of 8 */
                struct curriculum_point p;
                assert_true(curriculum_at(&c, step, &p));
                assert_int_equal(curriculum_micro_batches(&c, p.phase, world) * world * c.micro_batch, 8);
                for (int j = 0; j < curriculum_micro_batches(&c, p.phase, world); j++) {
                    int64_t first = curriculum_micro_sample(&c, &p, world, rank, j);
                    assert_true(last < 0 || first - last == world * c.micro_batch);
                    last = first;
                    assert_true(first >= p.first_sample && first + c.micro_batch <= p.first_sample + 8);
                    for (int i = 0; i < c.micro_batch; i++)
                        seen[first + i]++;
                }
            }
        }
        for (int i = 0; i < 24; i++)
            assert_int_equal(seen[i], 1);
    }
    run_config_free(&c);
}

static void uneven_batches(void **state)
{
    (void)state;
    struct plm_status st = {0};
    struct run_config c = good(RUN(STEPS, ALL), "phases.1.batch_rows=10");
    assert_int_equal(run_config_check_world(&c, 1, &st), PLM_OK);
    assert_int_equal(run_config_check_world(&c, 2, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "phases[1].batch_rows is 10"));
    assert_non_null(strstr(st.message, "set batch_rows to 8 or 12, or micro_batch to 1"));
    run_config_free(&c);
    c = good(RUN(STEPS, STABLE), NULL);
    assert_int_equal(run_config_check_world(&c, 16, &st), PLM_EINVAL);
    assert_non_null(strstr(st.message, "set batch_rows to 32"));
    run_config_free(&c);
}

static void hash_of_what_is_learned(void **state)
{
    (void)state;
    char a[65], b[65];
    static const struct {
        const char *override;
        bool same;
    } cases[] = {
        {"threads=2", true}, {"run_dir=elsewhere", true}, {"checkpoint.keep=9", true}, {"optimizer.clip=2.0", false},
        {"seed=2", false}, {"phases.0.steps=6", false}, {"model.hidden_size=64", false}, {"schedule.floor=1e-4", true},
        {"schedule.warmup=2.0", true}, {"phases.0.steps=5.0", true},
    };
    struct run_config c = good(RUN(STEPS, ALL), NULL);
    assert_int_equal(run_config_hash(&c, a, NULL), PLM_OK);
    assert_int_equal(strlen(a), 64);
    run_config_free(&c);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        c = good(RUN(STEPS, ALL), cases[i].override);
        assert_int_equal(run_config_hash(&c, b, NULL), PLM_OK);
        assert_int_equal(strcmp(a, b) == 0, cases[i].same);
        run_config_free(&c);
    }
}

static void bad_input(void **state)
{
    (void)state;
    const char *run = RUN(STEPS, ALL);
    refuse(run, "phases.1.mixtur=1", "run.json: phases[1].mixtur: unknown key; did you mean 'mixture'?");
    refuse(run, "phases.2.mixture.0.wieght=1", "phases[2].mixture[0].wieght: unknown key; did you mean 'weight'?");
    refuse(run, "phases.0.mixture.1.weight=0", "phases[0].mixture[1].weight: expected a number above 0");
    refuse(run, "phases.0.mixture=[]", "phases[0].mixture: expected an array of 1 to");
    refuse(run, "phases=[]", "phases: expected an array of 1 to");
    refuse(run, "phases.0.tokens=100", "phases[0]: give the budget either as \"tokens\" or as \"steps\", not both");
    refuse(run, "phases.0.seq_len=65", "phases[0].seq_len: expected a whole number from 1 to 64");
    refuse(run, "phases.0.steps=281474976710657", "phases[0].steps");
    refuse(run, "phases.0.schedule=falling", "expected one of \"stable\", \"decay\", \"constant\"");
    refuse(run, "model.hidden_size=\"big\"", "model.hidden_size: expected a whole number");
    refuse(run, "model.path=dir", "model."); /* both a path and hyper-parameters */
    refuse(run, "model.qk_rope_head_dim=3", "qk_rope_head_dim");
    refuse(run, "optimizer.beta2=1", "beta2");
    refuse(run, "optimizer.eps=0", "eps");
    refuse(run, "schedule.peak=0", "peak");
    refuse(run, "schedule.floor=1", "floor");
    refuse(run, "schedule.warmup=9", "warmup");
    refuse(run, "schedule.decay_shape=square", "expected one of \"linear\", \"cosine\", \"exponential\", \"one_minus_sqrt\"");
    refuse(run, "eval.sources=[{\"name\": \"x\", \"path\": \"a\"}, {\"name\": \"x\", \"path\": \"b\"}]", "is also the name");
    refuse(run, "micro_batch=0", "micro_batch: expected");
    refuse(RUN(STEPS, DECAY ", " STABLE), NULL, "phases[1].schedule: \"stable\" after \"decay\"");
    refuse(RUN("\"schedule\": {\"peak\": 1, \"warmup\": 641}, ", STABLE), NULL, "warmup");
    refuse("{" MODEL PATHS PHASES(STABLE) "}", NULL, "schedule.peak: missing");
    refuse("{" PATHS STEPS PHASES(STABLE) "}", NULL, "model.num_hidden_layers: missing");
    struct run_config c;
    struct plm_status st = {0};
    assert_int_equal(run_config_load(&c, "no-such.json", NULL, 0, &st), PLM_EIO);
    run_config_free(&c);
}

static void rope_scaling_of_a_new_model(void **state)
{
    (void)state;
    const char *run = RUN(STEPS, ALL);
    struct run_config c = good(run, "model.rope_scaling={\"rope_type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":16}");
    assert_true(c.model.rope_scaling.type == ROPE_YARN && c.model.rope_scaling.factor == 4 && c.model.rope_scaling.original == 16);
    run_config_free(&c);
    c = good(run, "model.rope_parameters={\"rope_type\":\"linear\",\"factor\":2,\"rope_theta\":500}");
    assert_true(c.model.rope_scaling.type == ROPE_LINEAR && c.model.rope_theta == 500);
    run_config_free(&c);
    refuse(run, "model.rope_scaling={\"type\":\"dynamic\",\"factor\":2}", "\"dynamic\"");
    refuse(run, "model.rope_scaling={\"type\":\"linear\",\"factors\":2}", "\"factors\"");
    refuse(run, "model.rope_scaling={\"type\":\"linear\"}", "expected a factor");
}

static void starting_from_a_model(void **state)
{
    (void)state;
    struct run_config c = good("{\"model\": {\"path\": \"dir\"}, " PATHS STEPS PHASES(ALL) "}", "seed=9007199254740993");
    assert_string_equal(c.model_path, "dir");
    assert_int_equal(c.model.hidden_size, 0);
    assert_true(c.seed == 9007199254740993u);
    run_config_free(&c);
}

/* Arguments: the configurations that ship with the program, the quickstart first. */
static char **shipped;

static void shipped_configurations(void **state)
{
    (void)state;
    if (!shipped[0])
        skip();
    struct run_config c;
    struct plm_status st = {0};
    for (char **path = shipped; *path; path++) {
        if (run_config_load(&c, *path, NULL, 0, &st) || run_config_check_world(&c, 1, &st) || run_config_check_world(&c, 2, &st))
            fail_msg("%s", st.message);
        assert_int_equal(c.n_phases, 3);
        for (int i = 0; i < 3; i++)
            assert_int_equal(c.phases[i].part, PART_STABLE + i);
        run_config_free(&c);
    }
    const char *const overrides[] = {"phases.0.tokens=1e6", "run_dir=elsewhere"};
    if (run_config_load(&c, shipped[0], overrides, 2, &st))
        fail_msg("%s", st.message);
    assert_int_equal(c.phases[0].steps, (1000000 + c.phases[0].step_tokens - 1) / c.phases[0].step_tokens);
    assert_string_equal(c.run_dir, "elsewhere");
    run_config_free(&c);
}

int main(int argc, char **argv)
{
    (void)argc;
    shipped = argv + 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(boundaries), cmocka_unit_test(rates_by_steps), cmocka_unit_test(rates_by_tokens),
        cmocka_unit_test(samples_of_ranks), cmocka_unit_test(uneven_batches), cmocka_unit_test(hash_of_what_is_learned),
        cmocka_unit_test(bad_input), cmocka_unit_test(rope_scaling_of_a_new_model), cmocka_unit_test(starting_from_a_model), cmocka_unit_test(shipped_configurations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
