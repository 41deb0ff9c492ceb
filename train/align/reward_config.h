/* Training of a reward model: what its configuration file says.
 *
 *     model            {"path": DIRECTORY}: usually the SFT model; a checkpoint, a run (its newest checkpoint), or a directory in the Hugging Face layout. A reward model
 *                      goes on with its head
 *     tokenizer, template, run_dir, seed, threads, micro_batch, seq_len, optimizer, lora, checkpoint, log   as in plm sft
 *     epochs, batch_pairs   passes over the pairs, pairs per optimizer step over all ranks
 *     learning_rate    {"peak", "floor", "warmup", "decay_shape"}: a linear warm-up (steps; below 1: share of all) and a decay
 *     loss             {"margin", "center"}: see struct reward_loss
 *     pairs            {"sources": [{"path", "weight", "fields"}], "skip_bad", "held_out"}: held_out is the share of prompts that is not trained on; all pairs of a
 *                      prompt are on the same side
 *     eval             {"every_steps", "at_start", "max_pairs", "sources": [{"name", "path", "fields"}]}: held-out pairs of other files. The model is judged by the
 *                      set "held-out", or without one by the first source
 *     early_stop       {"patience": evaluations in a row without a smaller held-out loss; 0: none}
 *
 * Relative paths are relative to the current directory. */
#ifndef TRAIN_ALIGN_REWARD_CONFIG_H
#define TRAIN_ALIGN_REWARD_CONFIG_H

#include "data/examples.h"
#include "optim/adamw.h"
#include "optim/schedule.h"
#include "train/align/reward_model.h"
#include "train/lora.h"
#include "train/settings.h"

struct reward_source {
    const char *name;
    struct example_source source;
};

struct reward_config {
    struct settings *settings;    /* owns every text below */
    const char *model_path, *tokenizer, *template, *run_dir;
    uint64_t seed;
    int threads, micro_batch, seq_len;
    struct adamw adamw;
    double clip;
    bool adapt;
    struct lora_options lora;
    double epochs;
    int batch_pairs;
    double peak, floor, warmup;
    enum decay_shape shape;
    struct reward_loss loss;
    int n_sources;
    struct example_source *sources;
    bool skip_bad;
    double held_out;
    int64_t eval_every;           /* steps between evaluations; 0: only at the end */
    bool eval_at_start;
    int64_t eval_max;             /* pairs of each set; 0: all */
    int n_eval;
    struct reward_source *eval;
    int patience;
    int64_t checkpoint_every;
    int checkpoint_keep;
    int64_t max_skipped;         /* steps in a row without an update that end the job; 0: none */
    int64_t log_every;
};

/* Read a configuration file with n overrides. Free with reward_config_free, also after an error. */
int reward_config_load(struct reward_config *c, const char *path, const char *const *overrides, int n, struct plm_status *st);
int reward_config_read(struct reward_config *c, struct settings *settings, struct plm_status *st);
void reward_config_free(struct reward_config *c);

/* The members of the configuration that decide what is learned: a run that goes on must agree in them. NULL at the end. */
extern const char *const reward_config_identity[];

/* SHA-256 of what decides what is learned, as far as the file says it. */
int reward_config_hash(const struct reward_config *c, char hex[65], struct plm_status *st);

/* Rate of update number step + 1 of `steps`. */
double reward_learning_rate(const struct reward_config *c, int64_t step, int64_t steps);

#endif
