/* What every training job has: a model and its step, the optimizer, ranks, a run directory with checkpoints, metrics and a status line. A job (pretraining,
 * SFT, preference learning) accumulates gradients in trainer.step and calls trainer_update; the rest is here, once. */
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include <jansson.h>

#include "infer/base/arena.h"
#include "infer/model/model.h"
#include "optim/adamw.h"
#include "train/comm.h"
#include "train/extra_params.h"
#include "train/lora.h"
#include "train/manifest.h"
#include "train/matmul.h"
#include "train/progress.h"
#include "train/run_log.h"
#include "train/settings.h"
#include "train/step.h"
#include "train/trainer_state.h"

struct trainer_options {
    const char *run_dir;
    const char *tokenizer;            /* path; NULL: tokenizer.json of model_path */
    const char *model_path;           /* directory to start from; NULL: random weights of *model */
    const struct model_config *model; /* when model_path is NULL */
    const struct settings *settings;  /* saved as run.json; NULL: not */
    char config_sha256[SHA256_HEX];   /* what a run that continues must agree in */
    const char *const *identity;      /* the settings' members in it, to name what differs */
    json_t *data;                     /* what each source of data holds, in words (an object of texts); NULL: not said */
    int64_t max_skipped;              /* steps in a row without an update that are an error; 0: none */
    uint64_t seed;
    int threads;
    int max_rows, max_len;            /* of a micro-batch */
    struct adamw adamw;
    double clip;
    int checkpoint_keep;
    int64_t log_every;
    int64_t total_steps;              /* for messages */
    const struct lora_options *lora;  /* NULL: all weights are trained */
    struct extra_params *extra;       /* trained with them; NULL: none. The caller's, who zeroes their gradients before a step */
};

/* A small file that every checkpoint of the job carries: the chat template, the refinement template. */
struct trainer_text {
    const char *name, *text;          /* the caller's, until trainer_close */
};
#define TRAINER_TEXTS 6

struct trainer {
    struct trainer_options o;
    struct comm *comm;
    struct matmul matmul;
    struct thread_pool *pool;
    struct step step;
    bool adapted;                     /* lora below is what is trained */
    struct lora lora;
    struct arena moments;
    float *m, *v;                     /* (trained table's padded) */
    double *norm_partials;
    float *nll;                       /* (max_rows * max_len) */
    struct tokenizer *tokenizer;
    char *tokenizer_text;
    size_t tokenizer_bytes;
    char tokenizer_sha256[SHA256_HEX];
    struct trainer_state state;
    int64_t first_step;               /* where this session began */
    int64_t skipped;
    int64_t tried;                /* updates of this session, skipped ones too */
    struct run_log *log;              /* rank 0: metrics, TensorBoard, samples */
    struct progress progress;
    int lock;
    struct plm_model view;            /* the weights as the core's model, for sampling and scoring between steps; decodes dense */
    struct trainer_text texts[TRAINER_TEXTS]; /* (n_texts) */
    int n_texts;
    char *generation_config, *tokenizer_config; /* two of the texts: what ends a text of this model */
};

/* Open everything and load: the newest checkpoint of the run, model_path, or random weights. Free with trainer_close, also after an error. Collective. */
int trainer_open(struct trainer *t, const struct trainer_options *o, struct comm *comm, struct plm_status *st);
void trainer_close(struct trainer *t);

struct update_outcome {
    struct step_control control;      /* sums over ranks */
    double grad_norm;                 /* of the mean gradient, before clipping */
    bool applied;
};

/* Are all steps of the run done (of a job that knows its number of steps)? */
bool trainer_is_complete(const struct trainer *t);

/* One optimizer update from the gradients that the ranks have accumulated (those of sum(coef * nll)) and each rank's control (loss_sum, weight_sum, nonfinite; `stop` is
 * filled in here): sums over ranks, divides by the total weight, clips, applies. Not applied, and counted, when something is not finite or there is no weight; max_skipped times
 * in a row: an error.
 * Collective. state.updates counts; the caller counts steps. */
int trainer_update(struct trainer *t, double lr, struct step_control control, struct update_outcome *out, struct plm_status *st);

/* RUN/step-N for state.step, from rank 0. While updates are skipped no older checkpoint is pruned: the last one that an update made stays. path (PATH_MAX, NULL allowed) receives it there. Collective. */
int trainer_save(struct trainer *t, char *path, struct plm_status *st);

/* Keep another file in the checkpoints that follow. */
void trainer_add_text(struct trainer *t, const char *name, const char *text);

/* Start anew from the weights as they are: moments and counts zero (a new round of preference learning). */
void trainer_reset_optimizer(struct trainer *t);

#endif
