/* The character properties the tokenizer needs. tools/unicode_tables writes the definitions when the project is built, so
 * that no library decides token boundaries at run time. */
#ifndef INFER_TEXT_UNICODE_TABLES_H
#define INFER_TEXT_UNICODE_TABLES_H

#include <stddef.h>
#include <stdint.h>

#define UNICODE_BLOCK_BITS 7 /* code points per block of the two-level table: 128 */

/* What the split pattern distinguishes. NEWLINE is \r and \n, SPACE the rest of Unicode White_Space. */
enum unicode_class { UNICODE_OTHER, UNICODE_LETTER, UNICODE_NUMBER, UNICODE_SPACE, UNICODE_NEWLINE };

/* NFC_Quick_Check of UAX #15. */
enum unicode_quick_check { UNICODE_NFC_YES, UNICODE_NFC_MAYBE, UNICODE_NFC_NO };

struct unicode_record {
    uint8_t class;           /* enum unicode_class */
    uint8_t combining_class; /* canonical combining class, 0 for a starter */
    uint8_t quick_check;     /* enum unicode_quick_check */
    uint8_t decomposes;      /* 1: has an entry in unicode_decomposed */
};

struct unicode_composition {
    uint32_t first, second, composite;
};

/* A code point c < unicode_limit has the record unicode_records[unicode_cells[unicode_blocks[c >> 7] << 7 | (c & 127)]];
 * all above have unicode_records[0]: other, starter, stable under NFC. */
extern const uint32_t unicode_limit;
extern const uint8_t unicode_blocks[];
extern const uint8_t unicode_cells[];
extern const struct unicode_record unicode_records[];
extern const uint8_t unicode_ascii_class[128];

/* Full canonical decompositions, Hangul syllables excepted: of unicode_decomposed[i] (ascending) it is
 * unicode_decomposition[unicode_decomposition_start[i] ... unicode_decomposition_start[i + 1] - 1]. */
extern const size_t unicode_n_decomposed;
extern const uint32_t unicode_decomposed[];
extern const uint16_t unicode_decomposition_start[];
extern const uint32_t unicode_decomposition[];

/* Primary composites, ascending by (first, second), Hangul excepted. */
extern const size_t unicode_n_compositions;
extern const struct unicode_composition unicode_compositions[];

static inline const struct unicode_record *unicode_lookup(uint32_t c)
{
    if (c >= unicode_limit)
        return &unicode_records[0];
    return &unicode_records[unicode_cells[(unsigned)unicode_blocks[c >> UNICODE_BLOCK_BITS] << UNICODE_BLOCK_BITS |
                                          (c & ((1u << UNICODE_BLOCK_BITS) - 1))]];
}

#endif
