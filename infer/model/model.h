/* struct plm_model: what plm_model_open gives; hyper-parameters, weights and tokenizer of one model. */
#ifndef INFER_MODEL_MODEL_H
#define INFER_MODEL_MODEL_H

#include "infer/base/arena.h"
#include "infer/format/gguf.h"
#include "infer/format/safetensors_set.h"
#include "infer/model/brought_template.h"
#include "infer/model/end_tokens.h"
#include "infer/model/weights.h"
#include "infer/text/tokenizer.h"

struct neurons;

struct plm_model {
    struct model_config config;
    struct tensor_table table;
    struct model_weights weights;
    struct tokenizer *tokenizer;    /* NULL when the model came without one */
    struct end_tokens ends;         /* any of them ends a text */
    char *chat_template, *refine_template; /* what it was trained on (infer/model/templates.h); NULL: not known */
    struct brought_template brought;       /* the chat template of its other files */
    struct safetensors_set safetensors; /* the mapped files behind the weights: these, */
    struct gguf *gguf;              /* or this one */
    struct neurons *neurons;        /* neuron-major copies (infer/model/neurons.h); NULL: none, decoding is dense */
    struct arena norms;             /* norms of 16-bit files, widened: they are computed in float32 */
};

/* What a tokenizer has that llama.cpp's keys do not say: i32 [id, ADDED_* traits, ...], and two switches. */
#define ADDED_TRAITS_KEY "plm.tokenizer.added_traits"
#define NO_NFC_KEY "plm.tokenizer.no_nfc"
#define IGNORE_MERGES_KEY "plm.tokenizer.ignore_merges"

/* The tokenizer of a GGUF file (tokenizer.ggml.*), as llama.cpp reads it: a file without `pre` is read as qwen2, one
 * without `token_type` has special tokens where they look like <|...|>; both are noted. NULL in *out when the file has
 * none. */
int gguf_read_tokenizer(struct tokenizer **out, const struct gguf *g, struct plm_status *st);

/* Hyper-parameters of a GGUF file of architecture plm (plm.md 2.1). */
int gguf_read_config(struct model_config *c, const struct gguf *g, struct plm_status *st);

/* Whole text of a small file (config.json, tokenizer.json), malloc'ed, NUL-terminated; at most `limit` bytes. */
int file_read_text(char **out, size_t *length, const char *path, size_t limit, struct plm_status *st);

#endif
