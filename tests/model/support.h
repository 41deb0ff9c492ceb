/* Models for tests: the golden cases, and random ones written to a directory. */
#ifndef TESTS_MODEL_SUPPORT_H
#define TESTS_MODEL_SUPPORT_H

#include "infer/format/safetensors.h"
#include "infer/model/config.h"
#include "infer/text/tokenizer.h"

/* ||got - want|| / ||want|| */
double relative_error(const float *got, const float *want, size_t n);

/* An array of integers in a JSON file: root[key][row], or root[key] when row < 0. Returns their number (0: not there). */
size_t read_integers(const char *path, const char *key, int row, int32_t *out, size_t capacity);

/* A small model with a context of 700: more than two prefill chunks. */
struct model_config small_config(void);

/* Write config.json and model.safetensors with random weights of `type` to a new directory below the current one; its name into
 * path (size bytes). */
void write_random_model(const struct model_config *c, enum dtype type, char *path, size_t size);

/* 256 bytes and <|endoftext|> 256, <|im_start|> 257, <|im_end|> 258; freed with the model it is given to. */
void byte_tokenizer(struct tokenizer **out);

/* Remove what write_random_model made. */
void remove_model(const char *path);

#endif
