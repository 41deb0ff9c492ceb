/* The multi-phase run: what a configuration file says, and where in it an optimizer step is.
 *
 * A curriculum is a sequence of phases, each with its own mixture, sequence length and batch, and each in one part of
 * the WSDC schedule; parts come in the order stable, decay, constant and may span several phases. Relative paths in the
 * file are relative to the current directory, like those of every other argument of the program. */
#ifndef TRAIN_CURRICULUM_H
#define TRAIN_CURRICULUM_H

#include "data/stream.h"
#include "infer/model/config.h"
#include "optim/adamw.h"
#include "optim/schedule.h"
#include "train/settings.h"

enum schedule_part { PART_STABLE, PART_DECAY, PART_CONSTANT };

struct phase {
    const char *name;
    enum schedule_part part;
    int64_t steps;                 /* optimizer steps: given, or ceil(tokens / (batch_rows * seq_len)) */
    int seq_len;                   /* input positions per row */
    int batch_rows;                /* rows per optimizer step, over all ranks */
    int n_sources;
    struct stream_source *mixture; /* (n_sources) */

    /* Derived. Tokens are input positions, padding included: rows * seq_len. */
    int64_t step_tokens;           /* batch_rows * seq_len */
    int64_t first_step;            /* steps of all phases before this one */
    int64_t first_tokens;          /* tokens of all phases before this one */
};

struct eval_source {
    const char *name;
    const char *path; /* a shard file or a directory of shards */
};

struct run_config {
    struct settings *settings;   /* owns every text below */
    const char *model_path;      /* model directory to start from; NULL: random weights of `model` */
    struct model_config model;   /* zero when model_path is given */
    const char *tokenizer;       /* path of tokenizer.json */
    const char *run_dir;
    uint64_t seed;
    int threads;                 /* per rank; 0: one per processor */
    int micro_batch;             /* rows per forward pass of one rank */
    struct adamw adamw;
    double clip;                 /* global norm; 0: off */
    bool schedule_in_tokens;     /* unit of the schedule's positions; otherwise steps */
    struct schedule schedule;    /* ends of its parts derived from the phases */
    int n_phases;
    struct phase *phases;        /* (n_phases) */
    int64_t eval_every;          /* steps between held-out evaluations; 0: only at the end */
    int64_t eval_max_tokens;     /* per source; 0: all */
    int n_eval;
    struct eval_source *eval;    /* (n_eval) */
    int64_t checkpoint_every;    /* steps between checkpoints; 0: only at the end */
    int checkpoint_keep;         /* how many to keep; 0: all */
    int64_t max_skipped;         /* steps in a row without an update that end the job; 0: none */
    int64_t log_every;           /* steps between lines when the output is not a terminal */

    int64_t total_steps, total_tokens; /* derived */
};

/* Read a configuration file with n overrides ("a.b=c"). Free with run_config_free, also after an error. */
int run_config_load(struct run_config *c, const char *path, const char *const *overrides, int n, struct plm_status *st);

/* The same from settings already open, which the configuration takes over in every case. */
int run_config_read(struct run_config *c, struct settings *settings, struct plm_status *st);
void run_config_free(struct run_config *c);

/* Every phase's batch_rows must be a multiple of micro_batch * world_size; the message suggests values. */
int run_config_check_world(const struct run_config *c, int world_size, struct plm_status *st);

/* The members of the configuration that decide what is learned: a run that goes on must agree in them. NULL at the end. */
extern const char *const run_config_identity[];

/* SHA-256 (hexadecimal) of what decides what is learned: everything but run_dir, threads, micro_batch, eval, checkpoint
 * and log, which may change when a run is continued. */
int run_config_hash(const struct run_config *c, char hex[65], struct plm_status *st);

/* Where an optimizer step is. */
struct curriculum_point {
    int phase;
    int64_t step;          /* steps before this one, in the run: update number step + 1 */
    int64_t step_in_phase; /* and in the phase */
    int64_t first_sample;  /* index in the phase of the step's first row; it takes [first_sample, + batch_rows) */
    int64_t tokens_before; /* of the run */
    int64_t tokens_after;
    double learning_rate;
};

/* False when the run is over: step >= total_steps (or step < 0). */
bool curriculum_at(const struct run_config *c, int64_t step, struct curriculum_point *out);

/* Forward passes that each rank makes for one step of a phase. */
int curriculum_micro_batches(const struct run_config *c, int phase, int world_size);

/* First sample of micro-batch j of a rank: row (j * world_size + rank) * micro_batch of the step's batch. From one
 * micro-batch to the next, also across steps, a rank's samples advance by world_size * micro_batch: the stride for
 * stream_schedule. */
int64_t curriculum_micro_sample(const struct run_config *c, const struct curriculum_point *p, int world_size, int rank,
                                int micro);

#endif
