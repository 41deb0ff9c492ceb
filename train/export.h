/* Export of a model to GGUF (architecture `plm`, plm.md section 2), readable by llama.cpp and by the core itself. */
#ifndef TRAIN_EXPORT_H
#define TRAIN_EXPORT_H

#include "infer/model/model.h"

/* What the matrices become: all of one type, or with `more_bits` the mixture of llama.cpp's Q4_K_M (and the released file): the type,
 * but q6_K for the embedding and for ffn_down of the layers that suffer most, the first and last eighth and every third between. */
struct export_type {
    const char *name; /* "q4_k_m" */
    enum dtype type;
    bool more_bits;
};

/* By name: those of enum dtype, and "q4_k_m". False when unknown. export_type_names: all of them, for messages. */
bool export_type_by_name(struct export_type *out, const char *name);
extern const char export_type_names[];

struct export_summary {
    int64_t bytes;         /* of the file */
    int n_tensors;
    int n_of_type[DTYPE_COUNT]; /* tensors by stored type */
    int n_fallback;        /* matrices whose rows are no multiple of their type's block: stored as q8_0 if that fits, else as f16 */
    char first_fallback[80];
    char fallbacks[512];   /* their kinds, once each, and the types they got: "attn_kv_b.weight (f16)", comma-separated */
    char sha256[65];       /* of the file, hexadecimal */
};

/* Write m to `path` with matrices as `type` says and norms in f32. The file appears under its name only when complete. `name`:
 * general.name. Never writes output.weight: the head is tied (plm.md 2.2). */
int export_gguf(const struct plm_model *m, const struct export_type *type, const char *name, const char *path, struct export_summary *summary,
                struct plm_status *st);

/* The metadata of a model of this configuration (plm.md 2.1), the tokenizer's excepted. */
int export_put_config(struct gguf_writer *w, const struct model_config *c, enum dtype type, const char *name, struct plm_status *st);

#endif
