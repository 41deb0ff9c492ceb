/* Hyper-parameters of a PLM, under the names of Hugging Face's config.json (plm.md 1.1). */
#ifndef INFER_MODEL_CONFIG_H
#define INFER_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "infer/base/status.h"
#include "infer/ops/rope.h"

struct model_config {
    int num_hidden_layers;
    int hidden_size;
    int num_attention_heads;
    int kv_lora_rank;
    int qk_nope_head_dim;
    int qk_rope_head_dim;
    int v_head_dim;
    int intermediate_size;
    int vocab_size;
    int max_position_embeddings;
    float rope_theta;
    float rms_norm_eps;
    float initializer_range;
    struct rope_scaling rope_scaling;
};

/* Defaults for the optional ones: max_position_embeddings 4096, rope_theta 100000, rms_norm_eps 1e-6,
 * initializer_range 0.02. The rest is zero and must be given. */
struct model_config model_config_default(void);

/* Ranges, even qk_rope_head_dim, and products that fit: sizes from files are never trusted. `where` names the source. */
int model_config_check(const struct model_config *c, const char *where, struct plm_status *st);

/* One field by its config.json name: its address and whether it is an int or a float; NULL when there is no such field.
 * Readers of JSON, GGUF and run configurations are loops over this list. */
struct model_config_field {
    const char *name;      /* config.json key */
    const char *gguf_key;  /* key after "plm.", or NULL where GGUF has none or derives it */
    size_t offset;
    bool is_float;
    bool required;
};
extern const struct model_config_field model_config_fields[];
extern const int model_config_n_fields;

/* qk_nope_head_dim + qk_rope_head_dim */
static inline int model_qk_head_dim(const struct model_config *c) { return c->qk_nope_head_dim + c->qk_rope_head_dim; }

/* Values cached per token and layer: kv_lora_rank + qk_rope_head_dim. */
static inline int model_latent_dim(const struct model_config *c) { return c->kv_lora_rank + c->qk_rope_head_dim; }

/* Read config.json text (`where` names it in messages): wants model_type plm, tied embeddings, no q_lora_rank, no
 * attention bias, hidden_act relu2. null means absent. Rotary settings stand in "rope_parameters" (transformers 5), which goes before
 * "rope_scaling" and a "rope_theta" beside them; "rope_type" (or "type") default, linear and yarn are applied, others are refused. */
int model_config_from_json(struct model_config *c, const char *text, size_t length, const char *where, struct plm_status *st);

/* Only the rotary settings of such an object, which a run configuration has too; c has the context that they relate to. */
int model_config_rope_from_json(struct model_config *c, const char *text, size_t length, const char *where, struct plm_status *st);

/* config.json text in the Hugging Face layout, malloc'ed; the caller frees. NULL when out of memory. */
char *model_config_to_json(const struct model_config *c);

#endif
