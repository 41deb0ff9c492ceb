/* Inference strategies of ARIES (aries.md 1.8): direct answers, chains of self-refinement, several in parallel. y[0] answers the conversation; y[k] answers the
 * refinement template filled with the last user message and y[k - 1] (earlier messages stay). The same code answers a person and makes rollouts. */
#ifndef INFER_MODEL_STRATEGY_H
#define INFER_MODEL_STRATEGY_H

#include "infer/model/completions.h"
#include "infer/text/chat_template.h"
#include "infer/text/refine_template.h"

struct strategy {
    int chains;              /* answers in parallel, >= 1 */
    int refinements;         /* K >= 0: turns 0 .. K */
    int64_t max_tokens;      /* of each answer */
    uint64_t seed;           /* answer (question, chain, turn) draws from a seed that depends on these four only */
    const struct chat_template *chat;
    const struct refine_template *refine; /* used when K > 0 */
    /* NULL allowed: sees every token of an answer as it is sampled, with the ctx of strategy_run; PLM_ESTOPPED ends the run. */
    int (*token)(void *ctx, int64_t question, int chain, int turn, int32_t token, struct plm_status *st);
};

struct strategy_question {
    const struct chat_message *messages; /* (n_messages), the last is the user's */
    int n_messages;
    uint64_t id;             /* part of the seed: the same question is answered the same way whichever others are asked beside it, up to rounding */
};

/* One answer, during the call of `take`. */
struct strategy_answer {
    int64_t question;        /* index */
    int chain, turn;
    const char *text;        /* NUL-terminated, without special tokens */
    size_t bytes;
    const int32_t *prompt;   /* (n_prompt) what was answered */
    int64_t n_prompt;
    const int32_t *tokens;   /* (n) */
    const float *log_probs;  /* (n) */
    int64_t n;
    bool ended;
};

struct strategy_counts {
    int64_t too_long;        /* chains that ended early, or did not begin: the prompt of the next turn left no room for max_tokens */
};

/* Answer n questions: all first turns, then the refinements. take: in the order in which answers are ready; an error ends the run. The completer samples,
 * with chat_template_end and the tokenizer's end of text as its end_tokens. stop (NULL allowed): after each answer of a chain, true ends that
 * chain (a verifier accepts it). The ids of a prompt are exactly what training must put before the answer: chat_template_render of the same messages. */
int strategy_run(struct completer *c, const struct plm_model *model, const struct strategy *s, const struct strategy_question *questions, int64_t n,
                 int (*take)(void *ctx, const struct strategy_answer *answer, struct plm_status *st),
                 bool (*stop)(void *ctx, const struct strategy_answer *answer), void *ctx, struct strategy_counts *counts, struct plm_status *st);

/* The ids of the prompt for turn k, appended: y NULL for turn 0, the previous answer otherwise. */
int strategy_prompt(const struct strategy *s, struct encoder *e, const struct chat_message *messages, int n_messages, const char *y, size_t y_bytes,
                    struct token_list *ids, struct plm_status *st);

/* Index of the answer chosen by majority among keys (NULL: no key, no vote): the first with the most frequent key; -1 without any. */
int majority_vote(const char *const *keys, int n);

#endif
