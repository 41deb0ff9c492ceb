/* Tokens as text on a terminal, with those that are trained marked. */
#ifndef TOOLS_SHOW_TOKENS_H
#define TOOLS_SHOW_TOKENS_H

#include <stdio.h>

#include "infer/text/tokenizer.h"

struct show_options {
    bool colour;      /* trained: black on green, special tokens: bold; without: trained spans in brackets */
    bool boundaries;  /* a bar between tokens */
};

/* Write n tokens (targets NULL: none is trained) and a newline. Control characters and bytes that are not UTF-8 are written as \xNN, so that a data
 * file cannot write to the terminal what it wants. */
void show_tokens(FILE *f, const struct tokenizer *t, const int32_t *ids, const uint8_t *targets, size_t n, const struct show_options *o);

/* A text in the same safe way. */
void show_text(FILE *f, const char *text, size_t length);

#endif
