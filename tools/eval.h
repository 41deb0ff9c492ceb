/* plm eval: how good a model is, on any model the program opens. Each evaluation fills a result for result_print.
 *
 * Every text is put after the end-of-text token, as every document of the training data is, so that its first token is predicted
 * too. Consecutive sequences that begin alike share the cache of what they have in common. */
#ifndef TOOLS_EVAL_H
#define TOOLS_EVAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "data/recall.h"
#include "infer/plm.h"
#include "infer/text/tokenizer.h"
#include "tools/likelihood.h"

struct eval_model {
    const char *path; /* as the user named it */
    struct plm_model *model;
    struct encoder *encoder;
    size_t context; /* positions of a sequence */
    int32_t start;  /* the end-of-text token */
    int threads, batch;  /* batch: sequences that are scored together; set it before the first is */
    struct likelihood likelihood; /* made with the first score */
    int64_t fed, reused; /* tokens that went through the model, and that were in a cache already */
    double seconds;      /* spent on that */
};

/* context 0: what the model was trained for; threads 0: one per processor. A model without a tokenizer, or one without an
 * end-of-text token, is PLM_EUNSUPPORTED. Close with eval_model_close, also after an error. */
int eval_model_open(struct eval_model *e, const char *path, int context, int threads, struct plm_status *st);
void eval_model_close(struct eval_model *e);

/* *ids becomes the start token and the tokens of the text. */
int eval_encode(struct eval_model *e, const char *text, size_t length, bool parse_special, struct token_list *ids,
                struct plm_status *st);

/* Score the requests, which begin with the start token; several in one batch. The first makes the caches. */
int eval_score_batch(struct eval_model *e, const struct score_request *requests, int n, struct plm_status *st);

/* One: tokens [from, n), scores (n - from): 1 <= from < n, n - 1 <= context. */
int eval_score(struct eval_model *e, const int32_t *tokens, size_t n, size_t from, struct token_score *scores,
               struct plm_status *st);

/* "tokens_through_the_model", "tokens_reused", "seconds", "tokens_per_s" of the model's work so far, and the share of active neurons. */
int eval_add_speed(const struct eval_model *e, json_t *result, struct plm_status *st);

/* Add `record` (taken over, NULL is an error) as a line of a JSONL file; nothing for a NULL file. */
int eval_write_item(FILE *items, json_t *record, struct plm_status *st);

struct eval_perplexity_options {
    int stride;             /* tokens between the windows; 0: half of the context */
    int64_t max_tokens;     /* stop after so many; 0: all */
    const char *text_field; /* of JSON lines; NULL: "text" */
};

/* Perplexity of documents (any input of data/reader.h): ln p of every token once, in windows of the context. A window's tokens
 * that an earlier window has counted are context only, so from the second window on a token has at least context - stride tokens
 * before it. The end-of-text token is not counted. Bits per byte = nats / ln 2 / bytes of the text. */
int eval_perplexity(struct eval_model *e, const char *const *paths, int n_paths, const struct eval_perplexity_options *o,
                    json_t **result, struct plm_status *st);

struct eval_choice_options {
    const char *delimiter; /* between context and choice */
    int64_t limit;         /* rows; 0: all */
    FILE *items;           /* one JSON line per row, or NULL */
};

/* Multiple choice by log-likelihood. Rows {"context", "choices": [...], "answer": index}, also "query" for context and "gold" for
 * answer, or {"context_options": [...], "continuation", "gold"}, where the choice is among contexts.
 *
 * The token boundary: context and choice are tokenised together, because that is how the model has met them; a tokenizer may join
 * the end of the one and the start of the other. Tokens are scored from the first where any choice of the row departs from the
 * tokens of its context alone, so that all choices of a row are scored for the same text after the same tokens.
 * Per byte: the sum of log-probabilities divided by the bytes of the choice without delimiter. */
int eval_choice(struct eval_model *e, const char *path, const struct eval_choice_options *o, json_t **result,
                struct plm_status *st);

struct eval_exact_options {
    const char *prompt_template; /* "{field}" stands for a field of the row; NULL: {prompt}, or GSM8K's question */
    const char *const *stops;    /* (n_stops) generation ends before the first of these */
    int n_stops;
    int extract; /* enum answer_rule of tools/eval_answer.h */
    int max_tokens;
    bool parse_special; /* of the prompt */
    int64_t limit;
    int batch; /* rows that are generated together */
    FILE *items;
};

/* Exact match of greedily generated answers. Rows {"prompt", "answer"} or any fields with a template. */
int eval_exact(struct eval_model *e, const char *path, const struct eval_exact_options *o, json_t **result, struct plm_status *st);

struct eval_recall_options {
    bool tasks[RECALL_N_TASKS];
    const double *depths; /* (n_depths) of the passkey */
    int n_depths;
    int count;  /* documents per depth, or per task */
    int length; /* tokens; 0: the context, at most 1024 */
    int pairs, queries, keys, digits; /* as in struct recall_options */
    uint64_t seed;
};

/* Recall of generated documents (data/recall.h, the held-out ones): an answer is right when each of its tokens is the likeliest
 * given the right ones before it. */
int eval_recall(struct eval_model *e, const struct eval_recall_options *o, json_t **result, struct plm_status *st);

#endif
