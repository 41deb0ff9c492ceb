/* What the keys of a GGUF file's architecture make of the model: rotary settings as llama.cpp computes them, and keys
 * that are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "infer/model/model.h"

/* A number or text under plm.rope. (or any key of plm.). */
struct entry {
    const char *key;
    double value;
    const char *text;
};

static int read_gguf(struct model_config *c, const struct entry *entries, struct plm_status *st)
{
    static const struct entry shape[] = {{"context_length", 4096},
                                         {"embedding_length", 64},
                                         {"block_count", 1},
                                         {"feed_forward_length", 64},
                                         {"attention.head_count", 2},
                                         {"attention.key_length", 32},
                                         {"attention.value_length", 32},
                                         {"rope.dimension_count", 16},
                                         {"attention.kv_lora_rank", 32},
                                         {"vocab_size", 64}};
    struct gguf_writer *w;
    struct gguf *g;
    assert_int_equal(gguf_create(&w, "rope.gguf", NULL), PLM_OK);
    gguf_set_string(w, "general.architecture", "plm", 3, NULL);
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        char key[96];
        snprintf(key, sizeof key, "plm.%s", shape[i].key);
        gguf_set_u32(w, key, (uint32_t)shape[i].value, NULL);
    }
    for (const struct entry *e = entries; e->key; e++) {
        char key[96];
        snprintf(key, sizeof key, "plm.%s", e->key);
        if (e->text)
            gguf_set_string(w, key, e->text, strlen(e->text), NULL);
        else if (e->value >= 0 && e->value < 1e9 && e->value == floor(e->value))
            gguf_set_u32(w, key, (uint32_t)e->value, NULL);
        else
            gguf_set_f32(w, key, (float)e->value, NULL);
    }
    assert_int_equal(gguf_finish(w, st), PLM_OK);
    assert_int_equal(gguf_open(&g, "rope.gguf", st), PLM_OK);
    const int code = gguf_read_config(c, g, st);
    gguf_close(g);
    unlink("rope.gguf");
    return code;
}

#define TYPE "rope.scaling.type"
#define FACTOR "rope.scaling.factor"
#define ATTN "rope.scaling.attn_factor"
#define ORIGINAL "rope.scaling.original_context_length"
#define EXT "rope.scaling.yarn_ext_factor"

/* What llama.cpp computes of these keys: the frequency of pair 3 of 8 and the magnitude. */
static void gguf_keys_are_applied(void **state)
{
    (void)state;
    static const struct {
        struct entry e[8];
        double frequency, magnitude, logits;
    } cases[] = {
        {{{0}}, 0.0316227766, 1, 1}, /* base 10000 where the file does not say */
        {{{"rope.freq_base", 100000}}, 0.0133352143, 1, 1},
        {{{TYPE, .text = "none"}, {FACTOR, 4}}, 0.0316227766, 1, 1},
        {{{TYPE, .text = "linear"}, {FACTOR, 4}}, 0.00790569415, 1, 1},
        {{{FACTOR, 4}}, 0.00790569415, 1, 1}, /* linear where there is no type */
        {{{FACTOR, 0}}, 0.0316227766, 1, 1},
        {{{"rope.scale_linear", 4}}, 0.00790569415, 1, 1},
        {{{"rope.scale_linear", 2}, {FACTOR, 4}}, 0.00790569415, 1, 1},
        {{{TYPE, .text = "yarn"}, {FACTOR, 8}, {ORIGINAL, 512}}, 0.0108703295, 1.2079441541679836, 1},
        {{{TYPE, .text = "linear"}, {EXT, 1}, {FACTOR, 8}, {ORIGINAL, 512}}, 0.0108703295, 1.2079441541679836, 1},
        {{{TYPE, .text = "yarn"}, {FACTOR, 8}, {ORIGINAL, 512}, {ATTN, 0.5}}, 0.0108703295, 0.6039720770839918, 1},
        {{{TYPE, .text = "yarn"}, {FACTOR, 8}, {EXT, 0}}, 0.00395284708, 1, 1},
        {{{TYPE, .text = "yarn"}, {FACTOR, 8}, {ORIGINAL, 512}, {EXT, -1}, {"rope.scaling.yarn_attn_factor", 1}},
         0.0108703295,
         1.2079441541679836,
         1},
        {{{TYPE, .text = "yarn"}, {FACTOR, 2}, {ORIGINAL, 0}}, 0.0276699295, 1.0693147180559945, 1},
        {{{ATTN, 1.5}}, 0.0316227766, 1.5, 1},
        {{{TYPE, .text = "yarn"},
          {FACTOR, 8},
          {ORIGINAL, 512},
          {"rope.scaling.yarn_beta_fast", 64},
          {"rope.scaling.yarn_beta_slow", 0.5}},
         0.0150208189,
         1.2079441541679836,
         1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model_config c;
        struct plm_status st = {0};
        if (read_gguf(&c, cases[i].e, &st))
            fail_msg("case %zu: %s", i, st.message);
        const struct rope_scaling s = c.rope_scaling;
        const double frequency = rope_frequency(c.rope_theta, 16, &s, 3);
        if (fabs(frequency - cases[i].frequency) > 1e-7 * frequency ||
            fabs(rope_magnitude(&s) - cases[i].magnitude) > 1e-6 ||
            fabs((s.logit_factor > 0 ? (double)s.logit_factor : 1) - cases[i].logits) > 1e-6)
            fail_msg("case %zu: frequency %.9g, magnitude %.9g, logits %.9g", i, frequency, rope_magnitude(&s),
                     (s.logit_factor > 0 ? (double)s.logit_factor : 1));
    }
}

static void gguf_keys_are_refused(void **state)
{
    (void)state;
    static const struct {
        struct entry e[8];
        const char *want;
    } cases[] = {
        {{{TYPE, .text = "longrope"}, {FACTOR, 4}}, "plm.rope.scaling.type is 'longrope'"},
        {{{TYPE, 2}}, "plm.rope.scaling.type"},
        {{{FACTOR, -4}}, "plm.rope.scaling.factor"},
        {{{FACTOR, NAN}}, "plm.rope.scaling.factor"},
        {{{FACTOR, .text = "4"}}, "plm.rope.scaling.factor"},
        {{{FACTOR, 4}, {ATTN, 2}}, "plm.rope.scaling.attn_factor is 2 with linear scaling"},
        {{{TYPE, .text = "yarn"}, {FACTOR, 4}, {EXT, 0.5}}, "yarn_ext_factor is 0.5"},
        {{{TYPE, .text = "yarn"}, {FACTOR, 4}, {"rope.scaling.yarn_attn_factor", 2}}, "yarn_attn_factor is 2"},
        {{{TYPE, .text = "yarn"}, {FACTOR, 4}, {"rope.scaling.yarn_beta_fast", 0}}, "beta_fast (0)"},
        {{{TYPE, .text = "yarn"}, {FACTOR, 4}, {"rope.scaling.yarn_log_multiplier", 0.1}},
         "yarn_log_multiplier is 0.1"},
        {{{TYPE, .text = "yarn"}, {FACTOR, 4}, {"rope.freq_base", 1}}, "YaRN wants one above 1"},
        {{{ATTN, -1}}, "attn_factor is -1"},
        {{{TYPE, .text = "yarn"}, {FACTOR, 4}, {EXT, NAN}}, "yarn_ext_factor is "},
        {{{TYPE, .text = "yarn"}, {FACTOR, 4}, {ATTN, INFINITY}}, "attention factor of inf"},
        {{{"attention.scale", 0.5}}, "plm.attention.scale is set, to 0.5"},
        {{{"expert_count", 8}}, "plm.expert_count is set, to 8"},
        {{{"attention.sliding_window", 128}}, "plm.attention.sliding_window is set, to 128"},
        {{{"attention.head_count_kv", 3}}, "plm.attention.head_count_kv is 3"},
        {{{"rope.dimension_sections", 3}}, "'plm.rope.dimension_sections' is not known"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model_config c;
        struct plm_status st = {0};
        assert_int_not_equal(read_gguf(&c, cases[i].e, &st), PLM_OK);
        if (!strstr(st.message, cases[i].want))
            fail_msg("expected '%s': %s", cases[i].want, st.message);
    }
    struct model_config c;
    assert_int_equal(read_gguf(&c,
                               (const struct entry[]){{"attention.head_count_kv", 2},
                                                      {"expert_count", 0},
                                                      {"logit_scale", 1},
                                                      {"rope.scaling.finetuned", 1},
                                                      {0}},
                               NULL),
                     PLM_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(gguf_keys_are_applied),
                                       cmocka_unit_test(gguf_keys_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
