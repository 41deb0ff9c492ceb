/* Models written for other programs: a GGUF file (architecture `plm`, plm.md section 2) for llama.cpp and the core itself, or a
 * Hugging Face directory. Import is the same: any model that opens, quantised ones too, becomes a directory to train from. */
#ifndef TRAIN_EXPORT_H
#define TRAIN_EXPORT_H

#include "infer/model/model.h"
#include "train/manifest.h"
#include "train/model_card.h"

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

struct export_file {
    char name[64];         /* without its directory */
    int64_t bytes;
    int n_tensors;         /* 0: a text */
    char sha256[SHA256_HEX];
};

struct export_summary {
    int64_t bytes;         /* of all files */
    int n_tensors;
    int n_of_type[DTYPE_COUNT];         /* tensors by stored type */
    int64_t bytes_of_type[DTYPE_COUNT]; /* and their data */
    int n_fallback;        /* matrices whose rows are no multiple of their type's block: stored as q8_0 if that fits, else as f16 */
    char first_fallback[80];
    char fallbacks[512];   /* their kinds, once each, and the types they got: "attn_kv_b.weight (f16)", comma-separated */
    struct export_file *files; /* (n_files), owned */
    int n_files;
};
void export_summary_free(struct export_summary *summary);

/* Write m to `path` with matrices as `type` says and norms in f32. The file appears under its name only when complete. `name`:
 * general.name. Never writes output.weight: the head is tied (plm.md 2.2). PLM_EFORMAT when a weight is not a finite number or does
 * not fit the type. */
int export_gguf(const struct plm_model *m, const struct model_card *card, const struct export_type *type, const char *name, const char *path,
                struct export_summary *summary, struct plm_status *st);

/* The metadata of a model of this configuration (plm.md 2.1), the tokenizer's excepted. */
int export_put_config(struct gguf_writer *w, const struct model_config *c, enum dtype type, const char *name, struct plm_status *st);

/* Say that the file has no tokenizer, as llama.cpp wants it said. */
int export_put_no_tokenizer(struct gguf_writer *w, struct plm_status *st);

/* Write m as a directory: config.json, generation_config.json, tokenizer.json, tokenizer_config.json, a README.md that says how
 * other programs load it, and every tensor in `type` (f32, f16 or bf16) as model.safetensors, or as several files and their index
 * when one of them would pass shard_bytes (0: one file). `dir` must be new or empty; it appears under its name only when
 * complete. Errors as above. */
int export_hf(const struct plm_model *m, const struct model_card *card, enum dtype type, int64_t shard_bytes, const char *dir,
              struct export_summary *summary, struct plm_status *st);

/* ---- shared by the writers ---- */

/* Add a tensor to the counts, and a complete file (its checksum is computed here) to the list. */
void export_count(struct export_summary *summary, const struct weight *from, enum dtype type);
int export_add_file(struct export_summary *summary, const char *path, const char *name, int n_tensors, struct plm_status *st);

/* The data of a tensor as `type`, row by row, into write(writer, ...), every value checked. */
int export_tensor(const struct weight *from, const char *name, enum dtype type,
                  int (*write)(void *writer, const void *data, size_t bytes, struct plm_status *st), void *writer, struct plm_status *st);

#endif
