#include "infer/model/tensor_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Everything that is true of a role, whatever the layer. */
static const struct role_traits {
    const char *hf_name, *gguf_name; /* without "model.layers.N." and "blk.N." in the layers */
    bool in_layer;
    enum tensor_init init;
    bool decay;
} role_traits[TENSOR_ROLES] = {
    [TENSOR_EMBED] = {"model.embed_tokens.weight", "token_embd.weight", false, INIT_NORMAL, true},
    [TENSOR_ATTN_NORM] = {"input_layernorm.weight", "attn_norm.weight", true, INIT_ONES, false},
    [TENSOR_Q] = {"self_attn.q_proj.weight", "attn_q.weight", true, INIT_NORMAL, true},
    [TENSOR_KV_A] = {"self_attn.kv_a_proj_with_mqa.weight", "attn_kv_a_mqa.weight", true, INIT_NORMAL, true},
    [TENSOR_KV_A_NORM] = {"self_attn.kv_a_layernorm.weight", "attn_kv_a_norm.weight", true, INIT_ONES, false},
    [TENSOR_KV_B] = {"self_attn.kv_b_proj.weight", "attn_kv_b.weight", true, INIT_NORMAL, true},
    [TENSOR_O] = {"self_attn.o_proj.weight", "attn_output.weight", true, INIT_NORMAL, true},
    [TENSOR_FFN_NORM] = {"post_attention_layernorm.weight", "ffn_norm.weight", true, INIT_ONES, false},
    [TENSOR_UP] = {"mlp.up_proj.weight", "ffn_up.weight", true, INIT_NORMAL, true},
    [TENSOR_DOWN] = {"mlp.down_proj.weight", "ffn_down.weight", true, INIT_NORMAL, true},
    [TENSOR_FINAL_NORM] = {"model.norm.weight", "output_norm.weight", false, INIT_ONES, false},
};

static void role_shape(const struct model_config *c, enum tensor_role role, int64_t *rows, int64_t *cols)
{
    const int64_t heads = c->num_attention_heads, d = c->hidden_size, rank = c->kv_lora_rank;
    *rows = 1;
    switch (role) {
    case TENSOR_EMBED: *rows = c->vocab_size, *cols = d; break;
    case TENSOR_Q: *rows = heads * model_qk_head_dim(c), *cols = d; break;
    case TENSOR_KV_A: *rows = model_latent_dim(c), *cols = d; break;
    case TENSOR_KV_A_NORM: *cols = rank; break;
    case TENSOR_KV_B: *rows = heads * (c->qk_nope_head_dim + c->v_head_dim), *cols = rank; break;
    case TENSOR_O: *rows = d, *cols = heads * c->v_head_dim; break;
    case TENSOR_UP: *rows = c->intermediate_size, *cols = d; break;
    case TENSOR_DOWN: *rows = d, *cols = c->intermediate_size; break;
    default: *cols = d; break; /* the norms over the residual stream */
    }
}

static void describe(struct tensor_desc *t, const struct model_config *c, enum tensor_role role, int layer)
{
    const struct role_traits *r = &role_traits[role];
    *t = (struct tensor_desc){.role = role, .layer = layer, .init = r->init, .decay = r->decay};
    if (r->in_layer) {
        snprintf(t->name, sizeof t->name, "model.layers.%d.%s", layer, r->hf_name);
        snprintf(t->gguf_name, sizeof t->gguf_name, "blk.%d.%s", layer, r->gguf_name);
    } else {
        snprintf(t->name, sizeof t->name, "%s", r->hf_name);
        snprintf(t->gguf_name, sizeof t->gguf_name, "%s", r->gguf_name);
    }
    role_shape(c, role, &t->rows, &t->cols);
    t->n_dims = r->init == INIT_ONES ? 1 : 2;
}

int tensor_table_build(struct tensor_table *t, const struct model_config *c, int world_size, struct plm_status *st)
{
    *t = (struct tensor_table){0};
    int code = model_config_check(c, "model", st);
    if (code)
        return code;
    int per_layer = TENSOR_ROLES - 2; /* all roles but the embedding and the final norm */
    size_t capacity = 2 + (size_t)per_layer * (size_t)c->num_hidden_layers;
    t->tensors = calloc(capacity, sizeof *t->tensors);
    if (!t->tensors)
        return status_no_memory(st, capacity * sizeof *t->tensors, "the tensor table");
    describe(&t->tensors[t->n_tensors++], c, TENSOR_EMBED, -1);
    for (int layer = 0; layer < c->num_hidden_layers; layer++)
        for (int role = 0; role < TENSOR_ROLES; role++)
            if (role_traits[role].in_layer)
                describe(&t->tensors[t->n_tensors++], c, (enum tensor_role)role, layer);
    describe(&t->tensors[t->n_tensors++], c, TENSOR_FINAL_NORM, -1);
    for (int i = 0; i < t->n_tensors; i++) {
        t->tensors[i].offset = t->padded;
        t->parameters += tensor_elements(&t->tensors[i]);
        t->padded += (tensor_elements(&t->tensors[i]) + 15) / 16 * 16;
    }
    int64_t unit = 16 * (int64_t)(world_size > 0 ? world_size : 1);
    t->padded = (t->padded + unit - 1) / unit * unit;
    return PLM_OK;
}

void tensor_table_free(struct tensor_table *t)
{
    free(t->tensors);
    *t = (struct tensor_table){0};
}

const struct tensor_desc *tensor_table_find(const struct tensor_table *t, const char *name)
{
    for (int i = 0; i < t->n_tensors; i++)
        if (!strcmp(t->tensors[i].name, name) || !strcmp(t->tensors[i].gguf_name, name))
            return &t->tensors[i];
    return NULL;
}

const struct tensor_desc *tensor_table_at(const struct tensor_table *t, enum tensor_role role, int layer)
{
    if (role == TENSOR_EMBED)
        return t->n_tensors ? &t->tensors[0] : NULL;
    if (role == TENSOR_FINAL_NORM)
        return t->n_tensors ? &t->tensors[t->n_tensors - 1] : NULL;
    int i = 1 + layer * (TENSOR_ROLES - 2) + ((int)role - TENSOR_ATTN_NORM); /* the order tensor_table_build writes */
    return layer >= 0 && i < t->n_tensors - 1 ? &t->tensors[i] : NULL;
}

bool tensor_is_derived(const char *name)
{
    static const char *const endings[] = {"rotary_emb.inv_freq", "rotary_emb.original_inv_freq", "rotary_emb.cos_cached",
                                          "rotary_emb.sin_cached", "position_ids"};
    const size_t length = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        const size_t n = strlen(endings[i]);
        if (length >= n && strcmp(name + length - n, endings[i]) == 0)
            return true;
    }
    return false;
}
