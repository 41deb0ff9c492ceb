/* Checkpoints: RUN/step-00000123/ is a model directory that any tool of the ecosystem opens.
 *
 *     config.json            hyper-parameters, Hugging Face layout
 *     tokenizer.json         copied
 *     generation_config.json, tokenizer_config.json: the tokens that begin and end a text
 *     model.safetensors      weights, F32, Hugging Face names
 *     optimizer.safetensors  "m.<tensor>", "v.<tensor>", F32 (sharded state becomes optimizer-00000-of-0000N.safetensors)
 *     trainer.json           struct trainer_state
 *     manifest.json          size and SHA-256 of the files above, written last
 *
 * Written as RUN/.step-00000123.tmp, every file and the directory fsynced, then renamed and the parent fsynced: a
 * checkpoint is there completely or not at all, and any number of ranks can continue from it. One process writes. */
#ifndef TRAIN_CHECKPOINT_H
#define TRAIN_CHECKPOINT_H

#include "infer/model/tensor_table.h"
#include "train/comm.h"
#include "train/trainer_state.h"

/* One arena of optimizer state (table.padded elements), e.g. {"m", m}. */
struct optimizer_slot {
    const char *prefix;
    float *data;
};

/* What makes up a checkpoint; everything is the caller's. */
struct checkpoint {
    const struct model_config *config;
    const struct tensor_table *table;
    float *params;                     /* (table.padded) */
    const struct optimizer_slot *slots;
    int n_slots;
    const char *tokenizer;             /* text of tokenizer.json */
    size_t tokenizer_bytes;
    const struct tensor_table *slot_table; /* of the slots, when they belong to other tensors (LoRA's); NULL: table */
    /* More files for the directory: written there, their names (at most CHECKPOINT_MORE, with static life) added to the manifest. NULL: none. */
    int (*write_more)(void *ctx, const char *dir, const char **names, int *n_names, struct plm_status *st);
    void *ctx;
};
#define CHECKPOINT_MORE 10

/* Write RUN/step-NNNNNNNN (one of the same step is replaced) in a run directory that is there, then remove the oldest complete ones
 * beyond `keep` (0: keep all), never this one. On an error (disk full) the temporary directory is removed and older
 * checkpoints are untouched. *path (PATH_MAX, NULL allowed) receives the directory. */
int checkpoint_save(const char *run_dir, const struct checkpoint *c, const struct trainer_state *state, int keep,
                    char *path, struct plm_status *st);

/* Check the manifest: complete, and every file as it was written. */
int checkpoint_verify(const char *dir, struct plm_status *st);

/* Verify, check every shape against the table, then fill params, slots (n_slots may be 0: weights only) and *state
 * (NULL allowed). Nothing is filled before everything is checked. config and tokenizer of *c are not used. */
int checkpoint_load(const char *dir, const struct checkpoint *c, struct trainer_state *state, struct plm_status *st);

/* The newest complete and valid checkpoint of a run: its directory into path (PATH_MAX). Broken ones are skipped with a
 * warning that says why. An empty path when there is none. Errors: the run directory or one of the newer checkpoints cannot
 * be read (that is no damage: it may be a good one), or all of them are damaged. A missing run directory is none. */
int checkpoint_latest(const char *run_dir, char *path, struct plm_status *st);

/* The model that a user names: itself when it is a file or a directory with config.json, the newest complete checkpoint of a run
 * otherwise. A directory that has a manifest is checked against it. path: PATH_MAX. */
int checkpoint_resolve(const char *model, char *path, struct plm_status *st);

/* The same, as rank 0 finds it, on every rank. Collective. */
int checkpoint_resolve_shared(const char *model, struct comm *comm, char *path, struct plm_status *st);

/* Hyper-parameters of a model directory. */
int checkpoint_config(const char *dir, struct model_config *config, struct plm_status *st);

/* Weights of any model directory (model.safetensors or several files with an index; F32, F16 or BF16) into params (table.padded), as
 * F32. PLM_EFORMAT when one is not a finite number. */
int checkpoint_load_weights(const char *dir, const struct tensor_table *table, float *params, struct plm_status *st);

#endif
