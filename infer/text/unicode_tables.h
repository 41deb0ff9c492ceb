/* The character properties the tokenizer needs. tools/unicode_tables writes the definitions when the project is built, so
 * that no library decides token boundaries at run time. */
#ifndef INFER_TEXT_UNICODE_TABLES_H
#define INFER_TEXT_UNICODE_TABLES_H

#include <stdint.h>

/* What the split pattern distinguishes. NEWLINE is \r and \n, SPACE the rest of Unicode White_Space. */
enum unicode_class { UNICODE_OTHER, UNICODE_LETTER, UNICODE_NUMBER, UNICODE_SPACE, UNICODE_NEWLINE };

/* NFC_Quick_Check of UAX #15; a code point that is YES and has a decomposition is a primary composite. NO implies a
 * decomposition, MAYBE implies none. */
enum unicode_form { UNICODE_YES, UNICODE_COMPOSITE, UNICODE_MAYBE, UNICODE_NO };

/* The table has a cell per code point, an index of unicode_records. That of a starter is form << 2 | class, where NEWLINE, which
 * is ASCII, counts as SPACE; a higher one belongs to a combining mark, whose class is OTHER. */
#define UNICODE_N_STARTER_CELLS 16

struct unicode_record {
    uint8_t combining_class; /* canonical, 0 for a starter */
    uint8_t form;            /* enum unicode_form */
};

/* Three levels: 256 code points to a page, of 16 blocks; a block is 16 cells from its position in unicode_cells, where blocks
 * overlap. The scripts below UNICODE_LINEAR have their pages in order, which saves a level. The cell of a code point from
 * UNICODE_LIMIT on is 0: other, starter, stable under NFC. */
#define UNICODE_PAGE_BITS 8
#define UNICODE_BLOCK_BITS 4
#define UNICODE_BLOCKS_PER_PAGE (1u << (UNICODE_PAGE_BITS - UNICODE_BLOCK_BITS))
#define UNICODE_LINEAR 0x3000u
#define UNICODE_LIMIT 0x32400u
#pragma GCC visibility push(hidden) /* addressed directly, not by way of a table of addresses */
extern const uint8_t unicode_pages[];
extern const uint16_t unicode_blocks[];
extern const uint8_t unicode_cells[];
extern const struct unicode_record unicode_records[];
extern const uint8_t unicode_ascii_class[128];

/* Canonical mappings, Hangul syllables excepted, ascending: first << 42 | second << 21 | c says that c is equivalent to
 * (first, second), or to first when second is 0. first may have a mapping itself, second has none. */
#define UNICODE_POINT_BITS 21
extern const uint32_t unicode_n_mappings;
extern const uint64_t unicode_mappings[];
extern const uint16_t unicode_mapping_order[]; /* the mappings' indices in ascending order of c */

/* First and last code points of words (\w of regular expressions), ascending. */
extern const uint32_t unicode_n_word_ranges;
extern const uint32_t unicode_word_ranges[][2];
#pragma GCC visibility pop

static inline uint8_t unicode_cell(uint32_t c)
{
    if (c >= UNICODE_LIMIT)
        return 0;
    unsigned block = c >> UNICODE_BLOCK_BITS;
    if (c >= UNICODE_LINEAR)
        block = unicode_pages[c >> UNICODE_PAGE_BITS] * UNICODE_BLOCKS_PER_PAGE + block % UNICODE_BLOCKS_PER_PAGE;
    return unicode_cells[unicode_blocks[block] + (c & ((1u << UNICODE_BLOCK_BITS) - 1))];
}

/* The class of a cell's code points, of which none is ASCII. */
static inline unsigned unicode_class(uint8_t cell)
{
    return cell < UNICODE_N_STARTER_CELLS ? cell & 3 : UNICODE_OTHER;
}

#endif
