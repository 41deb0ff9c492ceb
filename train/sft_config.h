/* A supervised fine-tuning run: what its configuration file says.
 *
 *     model            {"path": DIRECTORY}: Hugging Face layout, a checkpoint, or a run (its newest checkpoint)
 *     tokenizer        path; default: the model's tokenizer.json
 *     template         chat template file; default: ChatML of PLM
 *     refine_template  refinement template file; default: the built-in one
 *     run_dir, seed, threads, micro_batch, seq_len     rows of seq_len positions, micro_batch of them per forward pass of one rank
 *     optimizer        as in pretraining
 *     lora             {"rank", "alpha"}; default: all weights are trained
 *     neftune_alpha    noise on the embeddings (NEFTune); default 0: none
 *     phases           in order: [{"name", "epochs" or "steps", "batch_rows", "peak", "floor", "warmup", "decay_shape", "over_long": "drop" or "truncate",
 *                      "last_turn_only", "skip_bad", "reset_optimizer", "sources": [{"path", "weight", "fields", "use": "conversation", "chosen",
 *                      "refine" or "refine_both"}]}]
 *     eval             {"every_steps", "at_start", "max_rows", "last_turn_only", "sources": [{"name", "path", "fields", "use"}],
 *                      "answers": {"path", "fields", "count", "max_tokens", "refinements", "temperature", "batch", "samples", "scorer": {"kind", ...}}}
 *     early_stop       {"patience", "metric": "loss" or "score"}; the metric decides what RUN/best is, also without patience
 *     checkpoint, log  {"every_steps", "keep"}, {"every_steps"}
 *
 * Relative paths are relative to the current directory. */
#ifndef TRAIN_SFT_CONFIG_H
#define TRAIN_SFT_CONFIG_H

#include "data/examples.h"
#include "optim/adamw.h"
#include "optim/schedule.h"
#include "train/align/scorer.h"
#include "train/lora.h"
#include "train/settings.h"

/* What the rows of a source are used for. */
enum sft_use {
    USE_CONVERSATION, /* conversations, prompts with completions, texts */
    USE_CHOSEN,       /* of pairs the chosen answer: x -> y_w */
    USE_REFINE,       /* ARIES stage 1 (aries.md 1.3): of pairs x -> y_w and (x, y_l, z) -> y_w, both with coefficient 1 */
    USE_REFINE_BOTH,  /* the same and (x, y_w, z) -> y_w: a good draft is kept, as the second half of the refinement loss wants (aries.md 1.4) */
};

struct sft_source {
    const char *name;     /* evaluation sources only */
    const char *path;
    const json_t *fields; /* renamed fields (data/conversation.h), NULL: none */
    double weight;        /* copies of each row per epoch (data/examples.h) */
    enum sft_use use;
};

struct sft_phase {
    const char *name;
    double epochs;        /* passes over the rows, or */
    int64_t steps;        /* optimizer steps; the other one is 0 */
    int batch_rows;       /* packed rows per optimizer step, over all ranks */
    double peak, floor;   /* learning rates: a linear warm-up to peak, then `shape` down to floor at the end of the phase */
    double warmup;        /* steps; below 1: share of the phase */
    enum decay_shape shape;
    bool truncate;        /* sequences longer than seq_len + 1 tokens are cut at the end; otherwise they are dropped (both are counted) */
    bool last_turn_only, skip_bad;
    bool reset_optimizer; /* the phase begins with moments of zero */
    int n_sources;
    struct sft_source *sources;
};

struct sft_answers_config {
    const char *path;     /* tasks; NULL: no answers are generated */
    int64_t count;        /* the first so many tasks; 0: all */
    int64_t max_tokens;   /* of an answer */
    int refinements;      /* turns after the first answer */
    double temperature;   /* 0: greedy */
    int batch;            /* answers decoded together, per rank */
    int samples;          /* tasks whose answers go to samples.jsonl */
    const json_t *fields;
    struct scorer *scorer;
};

enum sft_metric { METRIC_LOSS, METRIC_SCORE };

struct sft_config {
    struct settings *settings;   /* owns every text below */
    const char *model_path, *tokenizer, *template, *refine_template, *run_dir;
    uint64_t seed;
    int threads, micro_batch, seq_len;
    struct adamw adamw;
    double clip;
    bool adapt;                  /* train LoRA adapters */
    struct lora_options lora;
    double neftune_alpha;
    int n_phases;
    struct sft_phase *phases;

    int64_t eval_every;          /* steps between evaluations; 0: only at the end */
    bool eval_at_start;
    int64_t eval_max_rows;       /* rows of each source, as they come in the file; 0: all */
    bool eval_last_turn_only;
    int n_eval;
    struct sft_source *eval;
    struct sft_answers_config answers;
    int patience;                /* evaluations in a row without a better one after which the run ends; 0: it does not end early */
    enum sft_metric metric;      /* what "better" means: the held-out loss (mean over all tokens), or the score of the last turn */

    int64_t checkpoint_every;
    int checkpoint_keep;
    int64_t max_skipped;         /* steps in a row without an update that end the job; 0: none */
    int64_t log_every;
};

/* Read a configuration file with n overrides ("a.b=c"). Free with sft_config_free, also after an error. */
int sft_config_load(struct sft_config *c, const char *path, const char *const *overrides, int n, struct plm_status *st);

/* The same from settings already open, which the configuration takes over in every case. */
int sft_config_read(struct sft_config *c, struct settings *settings, struct plm_status *st);
void sft_config_free(struct sft_config *c);

/* Is anything evaluated? */
bool sft_config_evaluates(const struct sft_config *c);

/* The members of the configuration that decide what is learned: a run that goes on must agree in them. NULL at the end. */
extern const char *const sft_config_identity[];

/* SHA-256 of what decides what is learned, as far as the file says it: everything but tokenizer and templates
 * (the sequences made with them are hashed, sft_data_hash), run_dir, threads, micro_batch, eval, early_stop, checkpoint and log. */
int sft_config_hash(const struct sft_config *c, char hex[65], struct plm_status *st);

#endif
