/* The tensor table: a model described once. Allocation, initialisation, optimizer, partitioning, checkpoint, memory plan,
 * export and import are loops over it. */
#ifndef INFER_MODEL_TENSOR_TABLE_H
#define INFER_MODEL_TENSOR_TABLE_H

#include "infer/format/dtype.h"
#include "infer/model/config.h"

enum tensor_role { /* the order is the order in files: embedding, layers, final norm */
    TENSOR_EMBED,       /* (vocab_size, hidden_size), also the output head */
    TENSOR_ATTN_NORM,   /* (hidden_size) */
    TENSOR_Q,           /* (n_head * (nope + rope), hidden_size) */
    TENSOR_KV_A,        /* (kv_lora_rank + rope, hidden_size) */
    TENSOR_KV_A_NORM,   /* (kv_lora_rank) */
    TENSOR_KV_B,        /* (n_head * (nope + v), kv_lora_rank) */
    TENSOR_O,           /* (hidden_size, n_head * v) */
    TENSOR_FFN_NORM,    /* (hidden_size) */
    TENSOR_UP,          /* (intermediate_size, hidden_size) */
    TENSOR_DOWN,        /* (hidden_size, intermediate_size) */
    TENSOR_FINAL_NORM,  /* (hidden_size) */
    TENSOR_ROLES
};

enum tensor_init { INIT_ONES, INIT_NORMAL }; /* normal(0, initializer_range) */

struct tensor_desc {
    char name[80];          /* Hugging Face name */
    char gguf_name[48];
    enum tensor_role role;
    int layer;              /* -1 outside the layers */
    int n_dims;             /* 1 or 2 */
    int64_t rows, cols;     /* [out, in]; rows = 1 for a vector */
    enum tensor_init init;
    bool decay;             /* weight decay applies */
    int64_t offset;         /* of the first element in a float arena of tensor_table.padded elements */
};

struct tensor_table {
    int n_tensors;
    struct tensor_desc *tensors; /* (n_tensors), owned */
    int64_t parameters;          /* number of weights */
    int64_t padded;              /* elements of an arena that holds all tensors, each 16-element aligned, times world size */
};

/* world_size: the arena is padded so that it divides evenly among that many ranks. */
int tensor_table_build(struct tensor_table *t, const struct model_config *c, int world_size, struct plm_status *st);
void tensor_table_free(struct tensor_table *t);

static inline int64_t tensor_elements(const struct tensor_desc *d) { return d->rows * d->cols; }

/* By Hugging Face or GGUF name; NULL when unknown. */
const struct tensor_desc *tensor_table_find(const struct tensor_table *t, const char *name);

/* Whether a tensor of this name, as others save them beside the weights, holds only what the configuration says already: rotary
 * frequencies and tables, position numbers. Such tensors are left out, with a note. */
bool tensor_is_derived(const char *name);

/* By role and layer (-1 for those outside the layers); NULL when there is none. */
const struct tensor_desc *tensor_table_at(const struct tensor_table *t, enum tensor_role role, int layer);

#endif
