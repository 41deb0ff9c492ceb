/* Random strings made of what breaks tokenizers. */
#ifndef TESTS_TEXT_RANDOM_TEXT_H
#define TESTS_TEXT_RANDOM_TEXT_H

#include <stddef.h>
#include <stdint.h>

struct random_source {
    uint64_t seed, index;
};

uint64_t random_below(struct random_source *r, uint64_t n);

/* A code point that is not a surrogate: contraction letters, all kinds of white space and newlines, digits, marks, Hangul
 * parts, singletons and composition exclusions, now and then anything up to U+10FFFF. */
uint32_t random_point(struct random_source *r);

/* Write up to n random code points as UTF-8 to out, which has room for 4n bytes; returns the number of bytes. */
size_t random_text(struct random_source *r, size_t n, char *out);

/* n bytes among which no two or more make a valid multi-byte UTF-8 sequence. */
void random_broken_bytes(struct random_source *r, size_t n, char *out);

#endif
