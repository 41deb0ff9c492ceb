/* Use everything an opened file offers, so that a sanitizer sees what a wrong extent would let a model read. */
#ifndef TESTS_FORMAT_TOUCH_H
#define TESTS_FORMAT_TOUCH_H

#include "infer/format/gguf.h"

/* Both return a checksum, which only keeps the compiler from dropping the reads. */
uint64_t touch_safetensors(const struct safetensors *s);
uint64_t touch_gguf(const struct gguf *g);

#endif
