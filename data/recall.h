/* Generated recall tasks: documents in which something is said once and asked for later, so that the answer can only come from the
 * context. The same code makes text to train on and documents to evaluate with.
 *
 *   passkey      one number ("The pass key is 48213.") in filler text at a given depth, asked for at the end; the classic needle
 *   mqar         multi-query associative recall as text: lines "key kx7 is 4812.", then "What is key kx7? key kx7 is 4812."
 *                (Arora et al., "Zoology", arXiv 2312.04927)
 *   mqar-tokens  the same with random tokens of the vocabulary, as in the paper: k1 v1 k2 v2 ... k2 v2 k1 v1; it has no text form
 *   facts        several needles: "The colour is red.", "The city is Rome.", then "What is the city? The city is Rome."; what is
 *                asked for is a kind of thing, so that no key has to be matched with its copy, which small models learn late
 *
 * A document is a pure function of (seed, split, task, options, index). Training and held-out documents come from different
 * streams of the generator, so no seed can make one out of the other. */
#ifndef DATA_RECALL_H
#define DATA_RECALL_H

#include <stdbool.h>
#include <stdint.h>

#include "infer/text/tokenizer.h"

enum recall_task { RECALL_PASSKEY, RECALL_MQAR, RECALL_MQAR_TOKENS, RECALL_FACTS, RECALL_N_TASKS };

/* "passkey", "mqar", "mqar-tokens", "facts". */
const char *recall_task_name(enum recall_task task);

/* The task of a name. PLM_EINVAL lists the names. */
int recall_task_parse(enum recall_task *task, const char *name, struct plm_status *st);

enum {
    RECALL_MAX_KEYS = 26 * 26 * 10,
    RECALL_MAX_FACTS = 12,
    RECALL_MAX_PAIRS = 2048,
    RECALL_MAX_QUERIES = 4 * RECALL_MAX_PAIRS,
    RECALL_MAX_LENGTH = 1 << 22,
};

struct recall_options {
    enum recall_task task;
    int length;   /* tokens of a document: filler is added as long as it fits */
    double depth; /* passkey: share of the filler in front of the needle, 0 to 1; negative: drawn uniformly */
    int pairs;    /* mqar: 1 to RECALL_MAX_PAIRS; facts: to RECALL_MAX_FACTS */
    int queries;  /* mqar: 1 to RECALL_MAX_QUERIES; every pair is asked for once before one is asked for again */
    int keys;     /* mqar: how many keys there are to draw from, at least as many as pairs: up to 26 "x", up to 260 "x7", up to
                   * RECALL_MAX_KEYS "kx7"; 0: as many as there are. facts: up to RECALL_MAX_FACTS */
    int digits;   /* of a number, 1 to 9; 0: 5 of a passkey, 4 of a value */
    bool held_out;
    uint64_t seed;
};

struct recall_answer {
    size_t begin, end; /* tokens [begin, end) of the document: the loss mask */
    double depth;      /* where it was said: 0 at the start, 1 right before the questions */
};

/* Start with {0}; free with recall_document_free; may be used for any number of documents. */
struct recall_document {
    char *text; /* NULL for mqar-tokens */
    size_t text_length;
    struct token_list tokens;      /* of the whole document, without a token in front or at the end */
    size_t questions;              /* the token where the first question begins: all before it is context */
    struct recall_answer *answers; /* (n_answers), in order */
    int n_answers;
};
void recall_document_free(struct recall_document *d);

/* Scratch memory of one generating thread. The tokenizer must outlive it. */
struct recall_generator;
int recall_generator_create(struct recall_generator **out, const struct tokenizer *t, struct plm_status *st);
void recall_generator_free(struct recall_generator *g);

/* Document number `index` (below 2^40). PLM_ELIMIT when what must be in it is longer than o->length or needs more tokens than
 * the vocabulary has, PLM_EINVAL for options out of range. */
int recall_generate(struct recall_generator *g, const struct recall_options *o, uint64_t index, struct recall_document *d,
                    struct plm_status *st);

#endif
