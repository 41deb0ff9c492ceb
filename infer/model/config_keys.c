/* The keys of config.json that would make another model of it. */
#include <string.h>

#include "infer/base/log.h"
#include "infer/model/config_keys.h"

/* A key, and what it may be besides absent or null: a number, a boolean, a text, or (NULL, 0) nothing. */
struct neutral {
    const char *key;
    enum { ONLY_NULL, ONLY_NUMBER, ONLY_TRUE, ONLY_FALSE, ONLY_TEXT } kind;
    double number;
    const char *text;
};

static const struct neutral neutral_values[] = {
    {"hidden_act", ONLY_TEXT, .text = "relu2"},
    {"hidden_activation", ONLY_TEXT, .text = "relu2"},
    {"tie_word_embeddings", ONLY_TRUE},
    {"rope_interleave", ONLY_TRUE},
    {"is_causal", ONLY_TRUE},
    {"attention_bias", ONLY_FALSE},
    {"mlp_bias", ONLY_FALSE},
    {"qkv_bias", ONLY_FALSE},
    {"use_bias", ONLY_FALSE},
    {"qk_norm", ONLY_FALSE},
    {"use_qk_norm", ONLY_FALSE},
    {"use_mla_lora", ONLY_FALSE},
    {"use_sliding_window", ONLY_FALSE},
    {"is_encoder_decoder", ONLY_FALSE},
    {"use_parallel_residual", ONLY_FALSE},
    {"q_lora_rank", ONLY_NULL},
    {"quantization_config", ONLY_NULL},
    {"compression_config", ONLY_NULL},
    {"n_routed_experts", ONLY_NUMBER, 0},
    {"num_experts", ONLY_NUMBER, 0},
    {"num_local_experts", ONLY_NUMBER, 0},
    {"n_shared_experts", ONLY_NUMBER, 0},
    {"num_nextn_predict_layers", ONLY_NUMBER, 0},
    {"partial_rotary_factor", ONLY_NUMBER, 1},
    {"attn_logit_softcapping", ONLY_NULL},
    {"final_logit_softcapping", ONLY_NULL},
    {"query_pre_attn_scalar", ONLY_NULL},
    {"attention_multiplier", ONLY_NULL},
    {"attention_scale", ONLY_NULL},
    {"softmax_scale", ONLY_NULL},
    {"clip_qkv", ONLY_NULL},
    {"attention_chunk_size", ONLY_NULL},
    {"logit_scale", ONLY_NUMBER, 1},
    {"logits_scaling", ONLY_NUMBER, 1},
    {"residual_multiplier", ONLY_NUMBER, 1},
    {"embedding_multiplier", ONLY_NUMBER, 1},
    {"scale_emb", ONLY_NUMBER, 1},
    {"scale_depth", ONLY_NULL},
    {"dim_model_base", ONLY_NULL},
    {"index_topk", ONLY_NULL},
};

/* Keys that change nothing in what is computed here: of other programs' business, of training regimes, of texts (read
 * elsewhere), or of parts of the model whose absence is checked above. */
static const char *const harmless[] = {"_attn_implementation",
                                       "_attn_implementation_autoset",
                                       "_commit_hash",
                                       "_name_or_path",
                                       "architectures",
                                       "attention_dropout",
                                       "attn_implementation",
                                       "auto_map",
                                       "aux_loss_alpha",
                                       "bad_words_ids",
                                       "bos_token_id",
                                       "cache_implementation",
                                       "chunk_size_feed_forward",
                                       "decoder_start_token_id",
                                       "dtype",
                                       "embd_pdrop",
                                       "eos_token_id",
                                       "ep_size",
                                       "experts_per_token",
                                       "first_k_dense_replace",
                                       "forced_bos_token_id",
                                       "forced_eos_token_id",
                                       "head_dim",
                                       "hidden_dropout",
                                       "id2label",
                                       "initializer_range",
                                       "keys_to_ignore_at_inference",
                                       "label2id",
                                       "max_length",
                                       "max_window_layers",
                                       "model_type",
                                       "moe_intermediate_size",
                                       "moe_layer_freq",
                                       "n_group",
                                       "norm_topk_prob",
                                       "num_experts_per_tok",
                                       "output_attentions",
                                       "output_hidden_states",
                                       "pad_token_id",
                                       "pretraining_tp",
                                       "problem_type",
                                       "prefix",
                                       "qk_head_dim",
                                       "resid_pdrop",
                                       "return_dict",
                                       "rope_parameters",
                                       "rope_scaling",
                                       "routed_scaling_factor",
                                       "scoring_func",
                                       "sep_token_id",
                                       "seq_aux",
                                       "task_specific_params",
                                       "tokenizer_class",
                                       "topk_group",
                                       "topk_method",
                                       "torch_dtype",
                                       "torchscript",
                                       "transformers_version",
                                       "unk_token_id",
                                       "use_cache",
                                       "use_return_dict",
                                       "num_key_value_heads",
                                       "sliding_window",
                                       "layer_types",
                                       "finetuning_task"};

static bool is_neutral(const struct json_value *v, const struct neutral *n)
{
    double number;
    bool flag;
    const char *text = json_as_string(v, NULL);
    switch (n->kind) {
    case ONLY_NUMBER:
        return json_as_number(v, &number) && number == n->number;
    case ONLY_TRUE:
        return json_as_bool(v, &flag) && flag;
    case ONLY_FALSE:
        return json_as_bool(v, &flag) && !flag;
    case ONLY_TEXT:
        return text && strcmp(text, n->text) == 0;
    case ONLY_NULL:
        break;
    }
    return false;
}

static int fail_key(const struct json_value *v, const struct neutral *n, const char *where, struct plm_status *st)
{
    const char *text = json_as_string(v, NULL);
    if (n->kind == ONLY_TEXT)
        return status_set(st, PLM_EUNSUPPORTED, "%s: \"%s\" is \"%.64s\"; only \"%s\" is supported", where, n->key,
                          text ? text : "(not a string)", n->text);
    if (n->kind == ONLY_TRUE || n->kind == ONLY_FALSE)
        return status_set(st, PLM_EUNSUPPORTED, "%s: \"%s\" must be %s: other models are not supported", where, n->key,
                          n->kind == ONLY_TRUE ? "true" : "false");
    if (n->kind == ONLY_NUMBER)
        return status_set(st, PLM_EUNSUPPORTED, "%s: \"%s\" must be %g: other models are not supported", where, n->key,
                          n->number);
    return status_set(st, PLM_EUNSUPPORTED, "%s: \"%s\" is set; only models without it are supported", where, n->key);
}

static bool is_harmless(const char *key)
{
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (strcmp(harmless[i], key) == 0)
            return true;
    for (int i = 0; i < model_config_n_fields; i++)
        if (strcmp(model_config_fields[i].name, key) == 0)
            return true;
    return false;
}

/* Windows narrower than the context, and layers of another kind of attention. */
static int check_attention_span(const struct json_value *root, const char *where, struct plm_status *st)
{
    const struct json_value *window = json_get(root, "sliding_window"), *types = json_get(root, "layer_types");
    bool used = true;
    json_as_bool(json_get(root, "use_sliding_window"), &used);
    if (json_typeof(window) != JSON_NULL && used)
        return status_set(st, PLM_EUNSUPPORTED, "%s: \"sliding_window\" is set; only models without it are supported",
                          where);
    for (const struct json_value *t = json_typeof(types) == JSON_ARRAY ? json_first(types) : NULL; t;
         t = json_next(t)) {
        const char *name = json_as_string(t, NULL);
        if (!name || strcmp(name, "full_attention") != 0)
            return status_set(st, PLM_EUNSUPPORTED,
                              "%s: \"layer_types\" has \"%.64s\"; only \"full_attention\" is supported", where,
                              name ? name : "(not a string)");
    }
    return PLM_OK;
}

int config_check_keys(const struct json_value *root, const char *where, struct plm_status *st)
{
    for (const struct json_value *v = json_first(root); v; v = json_next(v)) {
        const char *key = json_key(v, NULL);
        const struct neutral *n = neutral_values, *end = n + sizeof neutral_values / sizeof *neutral_values;
        while (n < end && strcmp(n->key, key) != 0)
            n++;
        if (json_typeof(v) == JSON_NULL || (n < end && is_neutral(v, n)))
            continue;
        if (n < end)
            return fail_key(v, n, where, st);
        if (!is_harmless(key))
            log_info("%s: \"%.64s\" is not known and changes nothing here", where, key);
    }
    return check_attention_span(root, where, st);
}
