/* Pre-tokens: the split pattern of Qwen2 and PLM (plm.md 3.2, data.md 1.7), by tables instead of a regular expression:
 *   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
#ifndef INFER_TEXT_SPLITTER_H
#define INFER_TEXT_SPLITTER_H

#include <stddef.h>

#define SPLITTER_PATTERN                                                                                     \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|" \
    "\\s+(?!\\S)|\\s+"

/* End of the pre-token that begins at text[begin], begin < length. A byte that is not UTF-8 counts as a symbol. There is
 * always a boundary between a newline and a following character that is not white space. Linear time over a text. */
size_t splitter_next(const char *text, size_t length, size_t begin);

#endif
