/* Token sequences with targets: what fine-tuning, preference and policy training consume. */
#ifndef DATA_EXAMPLES_H
#define DATA_EXAMPLES_H

#include "data/conversation.h"

/* Sequence i is tokens [begin[i], begin[i + 1]); target[j] 1: predicting token j from those before it is trained, or counted. The first
 * token of a sequence is never a target (nothing predicts it). Zero-initialise; examples_free. */
struct examples {
    int64_t n, capacity;
    int64_t *begin;             /* (n + 1) */
    struct token_list tokens;
    struct target_list target;
};
void examples_free(struct examples *e);

static inline int64_t example_length(const struct examples *e, int64_t i) { return e->begin[i + 1] - e->begin[i]; }

/* Append one sequence (copied): targets NULL: tokens [first_target, n) are targets. n >= 1. */
int examples_add(struct examples *e, const int32_t *tokens, int64_t n, const uint8_t *targets, int64_t first_target, struct plm_status *st);

/* Sequence of one row, appended to ids and targets: a conversation through the template, up to its last target (nothing learns from what follows); a
 * text with end-of-text after it, all of it targets (PLM_EUNSUPPORTED when end_of_text is negative). */
int example_render(const struct row *row, const struct chat_template *t, struct encoder *e, int32_t end_of_text, struct token_list *ids,
                   struct target_list *targets, struct plm_status *st);

/* Sequence of a prompt and an answer to it (pairs, rollouts), appended: messages, generation prompt, answer and "end". Its answer is the target. */
int example_render_answer(const struct chat_message *messages, int n_messages, const char *answer, const struct chat_template *t, struct encoder *e,
                          struct token_list *ids, struct target_list *targets, struct plm_status *st);

struct example_counts {
    int64_t rows;          /* rows that were read */
    int64_t used, tokens, targets; /* sequences, as often as `weight` uses each, and what is in them */
    int64_t left_out;      /* rows that a weight below 1 leaves out */
    int64_t bad;           /* malformed rows skipped (skip_bad) */
    int64_t no_target;     /* rows dropped: nothing to learn in them */
    int64_t dropped_long;  /* rows dropped: longer than max_len */
    int64_t truncated;     /* rows cut at the end to max_len */
    struct row_unread unread;
};

struct example_source {
    const char *path;
    const json_t *fields;
    double weight;         /* > 0: how often each of its rows is used per epoch: 0.5 takes every second row (by a hash of seed and row), 2 takes all
                            * twice, 1.5 all once and half of them once more */
};

struct example_options {
    const struct chat_template *chat;
    const struct tokenizer *tokenizer;
    int max_len;           /* most tokens of a sequence */
    bool truncate;         /* over-long rows are cut at the end instead of dropped (dropped when nothing to learn is left) */
    bool last_turn_only, skip_bad;
    uint64_t seed;
};

/* All sequences of n sources, in file order, source after source; a row is read and tokenised once. Counts are per source (counts: n), those of rows
 * whatever their weight. An empty result is PLM_EINVAL and says where the rows went. */
int examples_read(struct examples *out, const struct example_source *sources, int n, const struct example_options *o,
                  struct example_counts *counts, struct plm_status *st);

#endif
