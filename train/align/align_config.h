/* A preference-learning run: what its configuration file says.
 *
 *     model            {"path": DIRECTORY}: the SFT model; a checkpoint, a run (its newest checkpoint), or a directory in the Hugging Face layout
 *     tokenizer, template, refine_template, run_dir, seed, threads, micro_batch, seq_len, optimizer, lora, checkpoint, log   as in plm sft
 *     method           "aries" (alpha 0.8), "dpo" (pairs of the starting model only), "iterative-dpo", "rejection-sft", "grpo"
 *     rounds           how often pairs are collected and trained on
 *     learning_rate    {"peak", "floor", "warmup", "decay_shape", "round_factor"}: per round a warm-up and a decay; round_factor multiplies both from one
 *                      round to the next
 *     loss             {"kind": DPO family, "alpha", "beta", "beta_refine", "label_smoothing", "gamma", "lambda", "nll_weight", ...}
 *     reference        {"model": "previous" or "start", "cache": true}
 *     offline          {"sources": [{"path", "weight", "fields"}], "unpaired", "skip_bad", "rounds"}: pairs (or labelled answers) of the first round(s)
 *     prompts          {"path", "fields", "per_round"}: tasks of the rounds that sample
 *     rollout          {"chains", "refinements", "max_tokens", "temperature", "top_p", "top_k", "batch", "chunk"}
 *     scorer, selection   see scorer.h, selection.h
 *     policy           for grpo: see policy_gradient.h, and "batch_tasks", "updates"
 *     eval             {"path", "fields", "count", "refinements", "max_tokens", "temperature", "samples"}: scored by the run's scorer
 *
 * Relative paths are relative to the current directory. */
#ifndef TRAIN_ALIGN_CONFIG_H
#define TRAIN_ALIGN_CONFIG_H

#include "data/examples.h"
#include "infer/plm.h"
#include "optim/adamw.h"
#include "optim/schedule.h"
#include "train/align/policy_gradient.h"
#include "train/align/preference_loss.h"
#include "train/align/scorer.h"
#include "train/align/selection.h"
#include "train/lora.h"
#include "train/settings.h"

enum align_method { METHOD_ARIES, METHOD_DPO, METHOD_ITERATIVE_DPO, METHOD_REJECTION_SFT, METHOD_GRPO };
extern const char *const align_method_names[]; /* NULL-terminated */

enum reference_model { REFERENCE_PREVIOUS, REFERENCE_START };

struct rollout_options {
    int chains, refinements;
    int64_t max_tokens;           /* of an answer */
    struct plm_sampling sampling; /* its seed is not used */
    int batch;                    /* sequences decoded together, per rank */
    int64_t chunk;                /* tasks per file of samples: what one rank takes at a time */
};

struct align_eval {
    const char *path;             /* tasks; NULL: no evaluation */
    const json_t *fields;
    int64_t count;                /* the first so many tasks; 0: all */
    struct rollout_options rollout;
    int samples;                  /* tasks whose answers are shown in samples.jsonl */
};

struct align_config {
    struct settings *settings;    /* owns every text below */
    const char *model_path, *tokenizer, *template, *refine_template, *run_dir;
    uint64_t seed;
    int threads, micro_batch, seq_len;
    struct adamw adamw;
    double clip;
    bool adapt;
    struct lora_options lora;
    enum align_method method;
    int rounds;
    double epochs;                /* passes over a round's pairs */
    int batch_pairs;              /* pairs (or answers) per optimizer step, over all ranks */
    double peak, floor, warmup, round_factor;
    enum decay_shape shape;
    const struct preference_loss *loss;
    struct preference_params params;
    double alpha, beta_refine;    /* weight of the refinement loss; 0: none */
    enum reference_model reference;
    bool reference_cache;         /* false: the reference runs beside the policy in every step (for comparison; it takes another copy of the weights) */
    int n_offline;
    struct example_source *offline;
    bool offline_skip_bad;
    bool offline_unpaired;        /* rows are labelled answers, not pairs: for losses that take them (kto, bco_pair, apo_zero) */
    int offline_rounds;           /* rounds that train on the offline pairs; the others sample */
    const char *prompts_path;
    const json_t *prompts_fields;
    int64_t per_round;            /* tasks per round; 0: all */
    struct rollout_options rollout;
    struct scorer *scorer;        /* NULL: all rounds are offline */
    struct selection_options selection;
    struct grpo_options policy;
    int policy_tasks;             /* tasks per rollout of grpo */
    int policy_updates;           /* updates made of each rollout */
    struct align_eval eval;
    int64_t checkpoint_every;
    int checkpoint_keep;
    int64_t max_skipped;         /* steps in a row without an update that end the job; 0: none */
    int64_t log_every;
};

/* Read a configuration file with n overrides. Free with align_config_free, also after an error. */
int align_config_load(struct align_config *c, const char *path, const char *const *overrides, int n, struct plm_status *st);
int align_config_read(struct align_config *c, struct settings *settings, struct plm_status *st);
void align_config_free(struct align_config *c);

/* The members of the configuration that decide what is learned: a run that goes on must agree in them. NULL at the end. */
extern const char *const align_config_identity[];

/* SHA-256 of what decides what is learned: everything but run_dir, threads, micro_batch, eval, checkpoint and log. */
int align_config_hash(const struct align_config *c, char hex[65], struct plm_status *st);

#endif
