/* Vocabularies with merges in random order. */
#ifndef TESTS_TEXT_RANDOM_VOCAB_H
#define TESTS_TEXT_RANDOM_VOCAB_H

#include "infer/text/tokenizer.h"
#include "tests/text/random_text.h"

/* 256 bytes, n_merges merges over tokens made of `letters` (some pairs make a token that another pair makes too), and
 * <|endoftext|>, <|im_start|>, <|im_end|>. Fails the test when out of memory. */
struct tokenizer *random_vocab(struct random_source *r, const char *letters, int n_merges);

/* The token whose bytes are those of left and right. */
int32_t random_vocab_join(const struct tokenizer *t, int32_t left, int32_t right);

#endif
