/* Decoding by active neurons against decoding by all of them, for every type a model can be stored in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/engine.h"
#include "tests/model/support.h"
#include "tests/ops/tables.h"
#include "train/export.h"

enum { TOKENS = 12, SEQUENCES = 4, VOCAB = 101 };

static void decode(const struct plm_model *m, bool dense, int together, float *logits /* (SEQUENCES, VOCAB) */, double *share)
{
    struct plm_status st = {0};
    struct engine *e;
    int64_t active = 0, neurons = 0;
    if (engine_create(&e, m, &(struct engine_options){.n_threads = 2, .max_batch = SEQUENCES, .context = 64, .dense = dense}, &st))
        fail_msg("%s", st.message);
    for (int first = 0; first < SEQUENCES; first += together) {
        struct sequence *s[SEQUENCES];
        for (int i = 0; i < together; i++)
            assert_int_equal(sequence_create(&s[i], e, NULL, NULL), PLM_OK);
        for (int t = 0; t < TOKENS; t++) {
            struct engine_item items[SEQUENCES];
            int32_t tokens[SEQUENCES];
            for (int i = 0; i < together; i++) {
                tokens[i] = ((first + i) * 31 + t * 17) % VOCAB;
                items[i] = (struct engine_item){.sequence = s[i], .tokens = &tokens[i], .n = 1, .logits = logits + (first + i) * VOCAB};
            }
            assert_int_equal(engine_step(e, items, together, &st), PLM_OK);
        }
        for (int i = 0; i < together; i++)
            sequence_destroy(s[i]);
    }
    engine_activity(e, 1, &active, &neurons);
    *share = (double)active / (double)neurons;
    engine_destroy(e);
}

static void inactive_neurons_change_nothing(void **state)
{
    (void)state;
    /* In plain types only the order of sums differs; elsewhere the last bit decides to which of 8 bits an activation is rounded. */
    static const struct { const char *type; double tolerance; } cases[] = {
        {"f32", 1e-5}, {"f16", 1e-5}, {"bf16", 1e-2}, {"q8_0", 0.02}, {"q4_0", 0.02}, {"q4_k", 0.02}, {"q6_k", 0.02}, {"q4_k_m", 0.02}};
    struct model_config c = small_config();
    c.hidden_size = 256, c.intermediate_size = 512;
    char dir[64];
    write_random_model(&c, DTYPE_F32, dir, sizeof dir);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        float dense[SEQUENCES * VOCAB], alone[SEQUENCES * VOCAB], together[SEQUENCES * VOCAB];
        double share, of_all;
        struct plm_status st = {0};
        struct plm_model *m;
        struct export_summary summary;
        const struct model_card card = {.eos = -1, .turn_end = -1};
        struct export_type type;
        size_t engine_bytes, less_bytes, sequence_bytes;
        assert_int_equal(plm_model_open(&m, dir, NULL), PLM_OK);
        assert_true(export_type_by_name(&type, cases[k].type));
        if (export_gguf(m, &card, &type, "test", "neurons.gguf", &summary, &st))
            fail_msg("%s", st.message);
        export_summary_free(&summary);
        plm_model_close(m);
        assert_int_equal(plm_model_open(&m, "neurons.gguf", NULL), PLM_OK);
        assert_int_equal(engine_measure(m, &(struct engine_options){.n_threads = 2, .context = 64}, NULL, &engine_bytes, &sequence_bytes, NULL), PLM_OK);
        assert_int_equal(engine_measure(m, &(struct engine_options){.n_threads = 2, .context = 64, .dense = true}, NULL, &less_bytes, &sequence_bytes, NULL), PLM_OK);
        assert_true(engine_bytes >= less_bytes + 2 * 256 * 512 / 2); /* two layers, at least 4 bits each */
        decode(m, true, 1, dense, &of_all);
        decode(m, false, 1, alone, &share);
        decode(m, false, SEQUENCES, together, &of_all);
        plm_model_close(m);
        remove("neurons.gguf");
        assert_true(share > 0.2 && share < 0.8);
        assert_true(share > of_all - 0.01 && share < of_all + 0.01);
        if (!(relative_error(together, alone, SEQUENCES * VOCAB) <= cases[k].tolerance))
            fail_msg("%s: a batch differs from its sequences alone by %g", cases[k].type, relative_error(together, alone, SEQUENCES * VOCAB));
        const double error = relative_error(alone, dense, SEQUENCES * VOCAB);
        if (!(error <= cases[k].tolerance && (k == 0 || error > 0))) /* zero: the same way was taken twice */
            fail_msg("%s: active neurons differ from all of them by %g", cases[k].type, error);
    }
    remove_model(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(inactive_neurons_change_nothing)};
    return RUN_WITH_EVERY_TABLE(tests, NULL, NULL);
}
