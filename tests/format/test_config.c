#include "tests/format/files.h"

#include <stdio.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/config.h"

static struct model_config sample(void)
{
    struct model_config c = model_config_default();
    c.num_hidden_layers = 3;
    c.hidden_size = 96;
    c.num_attention_heads = 4;
    c.kv_lora_rank = 40;
    c.qk_nope_head_dim = 24;
    c.qk_rope_head_dim = 8;
    c.v_head_dim = 20;
    c.intermediate_size = 200;
    c.vocab_size = 1000;
    c.rope_theta = 12345.678f;
    c.rms_norm_eps = 3e-5f;
    return c;
}

static void test_round_trip(void **state)
{
    (void)state;
    struct model_config c = sample(), back;
    struct plm_status st = {0};
    char *text = model_config_to_json(&c);
    assert_non_null(text);
    assert_non_null(strstr(text, "\"model_type\": \"plm\""));
    assert_non_null(strstr(text, "\"num_key_value_heads\": 4"));
    if (model_config_from_json(&back, text, strlen(text), "c.json", &st))
        fail_msg("%s", st.message);
    assert_memory_equal(&c, &back, sizeof c);
    free(text);
    for (int i = 0; i < model_config_n_fields; i++)
        assert_true(model_config_fields[i].offset < sizeof c);
}

#define REQUIRED                                                                                \
    "\"num_hidden_layers\":2,\"hidden_size\":64,\"num_attention_heads\":4,\"kv_lora_rank\":32," \
    "\"qk_nope_head_dim\":16,\"qk_rope_head_dim\":8,\"v_head_dim\":16,\"intermediate_size\":128"
#define PLM "\"model_type\":\"plm\"," REQUIRED ",\"vocab_size\":100"

static void test_defaults(void **state)
{
    (void)state;
    static const char text[] = "{" PLM ",\"torch_dtype\":\"bfloat16\",\"q_lora_rank\":null,\"rope_scaling\":null,"
                               "\"num_key_value_heads\":4,\"rope_theta\":10000}";
    struct model_config c;
    assert_int_equal(model_config_from_json(&c, text, strlen(text), "c.json", NULL), PLM_OK);
    assert_true(c.vocab_size == 100 && c.max_position_embeddings == 4096 && c.rope_theta == 10000.0f &&
                c.rms_norm_eps == 1e-6f);
    assert_int_equal(model_qk_head_dim(&c), 24);
    assert_int_equal(model_latent_dim(&c), 40);
    static const char newer[] = "{" PLM ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":500.0}}";
    assert_int_equal(model_config_from_json(&c, newer, strlen(newer), "c.json", NULL), PLM_OK);
    assert_true(c.rope_theta == 500.0f);
}

/* Rotary settings as releases of transformers spell them. */
static void test_rope_scaling(void **state)
{
    (void)state;
    static const char yarn[] =
        "{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":1024,\"rope_theta\":500.0}";
    char text[1024];
    struct model_config c, again;
    /* a base there goes before the one beside it, and what scales before what does not */
    snprintf(text, sizeof text,
             "{" PLM ",\"rope_theta\":7,\"rope_parameters\":{\"rope_type\":\"default\"},\"rope_scaling\":%s}", yarn);
    assert_int_equal(model_config_from_json(&c, text, strlen(text), "c.json", NULL), PLM_OK);
    const struct rope_scaling *s = &c.rope_scaling;
    assert_true(c.rope_theta == 500 && s->type == ROPE_YARN && s->factor == 4 && s->original == 1024 &&
                s->beta_fast == 32 && s->beta_slow == 1);
    assert_float_equal(s->magnitude, 0.1 * log(4) + 1, 1e-6);
    assert_true(s->logit_factor == 0);
    char *json = model_config_to_json(&c);
    assert_int_equal(model_config_from_json(&again, json, strlen(json), "again.json", NULL), PLM_OK);
    assert_memory_equal(&again.rope_scaling, &c.rope_scaling, sizeof c.rope_scaling);
    free(json);
    /* DeepSeek's: the rotation keeps its length, the logits grow */
    snprintf(text, sizeof text,
             "{" PLM ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":40,\"mscale\":1.0,\"mscale_all_dim\":1.0,"
                     "\"truncate\":false}}");
    assert_int_equal(model_config_from_json(&c, text, strlen(text), "c.json", NULL), PLM_OK);
    assert_true(s->original == 4096 && s->untruncated && s->magnitude == 1);
    assert_float_equal(s->logit_factor, pow(0.1 * log(40) + 1, 2), 1e-6);
    json = model_config_to_json(&c);
    assert_int_equal(model_config_from_json(&again, json, strlen(json), "again.json", NULL), PLM_OK);
    assert_float_equal(again.rope_scaling.logit_factor, s->logit_factor, 1e-5);
    free(json);
    snprintf(text, sizeof text, "{" PLM ",\"rope_scaling\":{\"type\":\"linear\",\"rope_type\":null,\"factor\":3}}");
    assert_int_equal(model_config_from_json(&c, text, strlen(text), "c.json", NULL), PLM_OK);
    assert_true(s->type == ROPE_LINEAR && s->factor == 3);
    /* DeepSeek's attention scales the logits whatever the type, and what is written says so */
    snprintf(
        text, sizeof text,
        "{" PLM
        ",\"head_dim\":8,\"rope_scaling\":{\"type\":\"linear\",\"factor\":4,\"mscale_all_dim\":0.7,\"beta_fast\":3}}");
    assert_int_equal(model_config_from_json(&c, text, strlen(text), "c.json", NULL), PLM_OK);
    assert_float_equal(s->logit_factor, pow(0.07 * log(4) + 1, 2), 1e-6);
    assert_true(s->magnitude == 0 && s->beta_fast == 0);
    json = model_config_to_json(&c);
    assert_int_equal(model_config_from_json(&again, json, strlen(json), "again.json", NULL), PLM_OK);
    assert_float_equal(again.rope_scaling.logit_factor, s->logit_factor, 1e-6);
    free(json);
    static const char *const none[] = {
        "\"rope_scaling\":null", "\"rope_parameters\":null,\"rope_theta\":null",
        "\"rope_scaling\":{\"rope_type\":\"default\"}", "\"rope_scaling\":{}",
        "\"attention_bias\":null,\"tie_word_embeddings\":null,\"partial_rotary_factor\":1.0"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        snprintf(text, sizeof text, "{" PLM ",%s}", none[i]);
        assert_int_equal(model_config_from_json(&c, text, strlen(text), "c.json", NULL), PLM_OK);
        assert_true(s->type == ROPE_UNSCALED && c.rope_theta == 100000.0f);
    }
}

static void test_bad(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int code;
        const char *message;
    } bad[] = {
        {"{", PLM_EFORMAT, "c.json: line 1, column 2"},
        {"[]", PLM_EFORMAT, "expected a JSON object"},
        {"{" REQUIRED "}", PLM_EFORMAT, "\"model_type\" is missing"},
        {"{\"model_type\":\"llama\"}", PLM_EUNSUPPORTED, "\"model_type\" is \"llama\"; only \"plm\""},
        {"{\"model_type\":\"plm\"}", PLM_EFORMAT, "\"num_hidden_layers\" is missing"},
        {"{\"model_type\":\"plm\"," REQUIRED "}", PLM_EFORMAT, "\"vocab_size\" is missing"},
        {"{\"model_type\":\"plm\"," REQUIRED ",\"vocab_size\":\"100\"}", PLM_EFORMAT,
         "\"vocab_size\" must be an integer"},
        {"{\"model_type\":\"plm\"," REQUIRED ",\"vocab_size\":10.5}", PLM_EFORMAT, "\"vocab_size\" must be an integer"},
        {"{\"model_type\":\"plm\"," REQUIRED ",\"vocab_size\":3000000000}", PLM_EFORMAT,
         "\"vocab_size\" must be an integer"},
        {"{\"model_type\":\"plm\"," REQUIRED ",\"vocab_size\":0}", PLM_EFORMAT, "vocab_size is 0; expected 1 to"},
        {"{" PLM ",\"rope_theta\":\"1\"}", PLM_EFORMAT, "\"rope_theta\" must be a number"},
        {"{" PLM ",\"rope_theta\":-1}", PLM_EFORMAT, "rope_theta is -1"},
        {"{" PLM ",\"rms_norm_eps\":0}", PLM_EFORMAT, "rms_norm_eps is 0"},
        {"{" PLM ",\"initializer_range\":-1}", PLM_EFORMAT, "initializer_range is -1"},
        {"{" PLM ",\"rope_theta\":1e300}", PLM_EFORMAT, "rope_theta is inf"},
        {"{" PLM ",\"tie_word_embeddings\":false}", PLM_EUNSUPPORTED, "\"tie_word_embeddings\" must be true"},
        {"{" PLM ",\"attention_bias\":true}", PLM_EUNSUPPORTED, "\"attention_bias\" must be false"},
        {"{" PLM ",\"rope_interleave\":false}", PLM_EUNSUPPORTED, "\"rope_interleave\" must be true"},
        {"{" PLM ",\"q_lora_rank\":1536}", PLM_EUNSUPPORTED, "\"q_lora_rank\" is set"},
        {"{" PLM ",\"rope_scaling\":{\"type\":\"yarn\"}}", PLM_EFORMAT,
         "rotary scaling (yarn) by 0; expected a factor"},
        {"{" PLM ",\"rope_parameters\":{\"rope_type\":\"dynamic\",\"factor\":2}}", PLM_EUNSUPPORTED,
         "rotary scaling \"dynamic\" is not supported"},
        {"{" PLM ",\"rope_scaling\":{\"rope_type\":\"longrope\"}}", PLM_EUNSUPPORTED,
         "\"longrope\" is not supported; default, linear and yarn are"},
        {"{" PLM ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0.5}}", PLM_EFORMAT,
         "rotary scaling (linear) by 0.5"},
        {"{" PLM ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2,\"low_freq_factor\":1}}", PLM_EUNSUPPORTED,
         "\"low_freq_factor\" is not supported"},
        {"{" PLM ",\"rope_scaling\":\"yarn\"}", PLM_EFORMAT, "\"rope_scaling\" must be an object"},
        {"{" PLM ",\"rope_parameters\":{\"rope_theta\":[]}}", PLM_EFORMAT, "\"rope_theta\" must be a number"},
        {"{" PLM ",\"rope_parameters\":{\"rope_theta\":-5}}", PLM_EFORMAT, "rope_theta is -5"},
        {"{" PLM
         ",\"rope_parameters\":{\"type\":\"linear\",\"factor\":2},\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}}",
         PLM_EFORMAT, "say different things"},
        {"{" PLM ",\"rope_parameters\":{\"rope_theta\":2},\"rope_scaling\":{\"rope_theta\":3}}", PLM_EFORMAT,
         "say different things"},
        {"{" PLM ",\"partial_rotary_factor\":0.5}", PLM_EUNSUPPORTED, "\"partial_rotary_factor\" must be 1"},
        {"{" PLM ",\"n_routed_experts\":64}", PLM_EUNSUPPORTED, "\"n_routed_experts\" must be 0"},
        {"{" PLM ",\"quantization_config\":{\"bits\":4}}", PLM_EUNSUPPORTED, "\"quantization_config\" is set"},
        {"{" PLM ",\"attn_logit_softcapping\":30.0}", PLM_EUNSUPPORTED, "\"attn_logit_softcapping\" is set"},
        {"{" PLM ",\"sliding_window\":128}", PLM_EUNSUPPORTED, "\"sliding_window\" is set"},
        {"{" PLM ",\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", PLM_EUNSUPPORTED,
         "has \"sliding_attention\""},
        {"{" PLM ",\"mlp_bias\":true}", PLM_EUNSUPPORTED, "\"mlp_bias\" must be false"},
        {"{" PLM ",\"qk_head_dim\":32}", PLM_EUNSUPPORTED, "\"qk_head_dim\" must equal"},
        {"{" PLM ",\"rope_theta\":1,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2}}", PLM_EFORMAT,
         "YaRN wants one above 1"},
        {"{" PLM ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2,\"original_max_position_embeddings\":10.5}}",
         PLM_EFORMAT,
         "is 10.5; expected"},
        {"{" PLM ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2,\"original_max_position_embeddings\":0}}",
         PLM_EFORMAT,
         "is 0; expected a whole"},
        {"{" PLM ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2,\"mscale\":-1}}", PLM_EFORMAT, "\"mscale\" is -1"},
        {"{" PLM ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2,\"mscale_all_dim\":-1}}", PLM_EFORMAT,
         "\"mscale_all_dim\" is -1"},
        {"{" PLM ",\"head_dim\":64}", PLM_EUNSUPPORTED, "\"head_dim\" must be qk_rope_head_dim (8)"},
        {"{" PLM ",\"hidden_act\":\"silu\"}", PLM_EUNSUPPORTED, "\"hidden_act\" is \"silu\"; only \"relu2\""},
        {"{" PLM ",\"num_key_value_heads\":2}", PLM_EUNSUPPORTED,
         "\"num_key_value_heads\" must equal num_attention_heads (4)"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct model_config c;
        struct plm_status st = {0};
        if (model_config_from_json(&c, bad[i].text, strlen(bad[i].text), "c.json", &st) == PLM_OK)
            fail_msg("accepted: %s", bad[i].text);
        assert_message(&st, bad[i].code, "c.json: ", bad[i].message, NULL);
    }
}

static void test_check(void **state)
{
    (void)state;
    struct model_config c = sample();
    assert_int_equal(model_config_check(&c, "here", NULL), PLM_OK);
    for (int i = 0; i < model_config_n_fields; i++) {
        const struct model_config_field *field = &model_config_fields[i];
        static const int bad[] = {0, -1, 0x7fffffff};
        for (int j = 0; j < 3 && !field->is_float; j++) {
            struct plm_status st = {0};
            c = sample();
            *(int *)((char *)&c + field->offset) = bad[j];
            assert_int_equal(model_config_check(&c, "here", &st), PLM_EFORMAT);
            char want[64];
            snprintf(want, sizeof want, "here: %s is %d; expected 1 to ", field->name, bad[j]);
            assert_message(&st, PLM_EFORMAT, want, NULL);
        }
    }
    struct plm_status st = {0};
    c = sample();
    c.qk_rope_head_dim = 7;
    model_config_check(&c, "here", &st);
    assert_message(&st, PLM_EFORMAT, "here: qk_rope_head_dim is 7; it must be even", NULL);
    c = sample();
    c.num_attention_heads = 65536;
    c.v_head_dim = 1000;
    model_config_check(&c, "here", &st);
    assert_message(&st, PLM_EFORMAT, "here: num_attention_heads * (qk_nope_head_dim + v_head_dim) is ", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_defaults), cmocka_unit_test(test_rope_scaling),
        cmocka_unit_test(test_bad),        cmocka_unit_test(test_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
