/* Texts generated together: the tokens of all go through the model as one batch, and samples of one prompt share its cache. */
#ifndef TOOLS_GENERATION_H
#define TOOLS_GENERATION_H

#include <signal.h>
#include <stdio.h>

#include "infer/model/lookup.h"
#include "infer/model/model.h"
#include "tools/stop_text.h"
#include "tools/text_stream.h"

struct generation_options {
    struct plm_sampling sampling;       /* sample number k draws from stream k of the seed */
    struct sequence_options sequence;
    int n_threads;
    int64_t context;                    /* 0: what the model was trained for */
    bool dense;                         /* as in struct engine_options */
    int64_t max_tokens;                 /* 0: without end */
    int samples, lookup, logprobs;      /* logprobs: -1: none; otherwise so many of the likeliest beside each token */
    const char *const *stops;           /* (n_stops) */
    int n_stops;
    bool ignore_eos, special;           /* special: show special tokens */
    bool keep;                          /* tokens, text and log-probabilities are read afterwards; otherwise memory does not grow with them */
    FILE *out;                          /* text of the one sample as it comes; NULL: not wanted */
    const volatile sig_atomic_t *interrupted;
};

/* Log-probabilities are those of the model itself: temperature 1, no penalty, nothing cut off. */
struct sample {
    struct sequence *sequence;
    float *logits;           /* (V) for the next token */
    struct stop_text text;
    int32_t *tokens;         /* (n) generated, when kept; with the end token that ended it */
    double *log_probs;       /* (n) */
    int32_t *top;            /* (n, logprobs) */
    double *top_log_probs;   /* (n, logprobs) */
    size_t n, capacity;
    const char *finish;      /* "length", "eos", "stop", "context", "interrupted"; NULL while it goes on */
};

struct generation {
    const struct plm_model *model;
    const struct generation_options *o;
    struct engine *engine;
    struct sample *samples;  /* (o->samples); sample 0 keeps the prompt for the next call */
    struct lookup lookup;
    struct text_stream shown;
    void *scratch;           /* V * 8 bytes */
    size_t n_prompt, reused; /* tokens of the prompt, and those of it that were in the cache */
    size_t generated;        /* by all samples */
    double prefill_s, decode_s;
};

/* The options must outlive it. Close also after an error. */
int generation_open(struct generation *g, const struct plm_model *model, const struct generation_options *o, struct plm_status *st);
void generation_close(struct generation *g);

/* Samples of what follows tokens [0, n). What sample 0 holds of them from the call before, or from a loaded session, is not computed
 * again; a compressed cache is of use only when all it holds begins the prompt. */
int generation_run(struct generation *g, const int32_t *tokens, size_t n, struct plm_status *st);

/* One sample of each of n <= o->samples prompts, in one batch: samples 0 .. n - 1. n_prompt and reused are summed over them. */
int generation_run_each(struct generation *g, const struct token_list *prompts, int n, struct plm_status *st);

#endif
