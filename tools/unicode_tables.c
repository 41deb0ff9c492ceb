/* Writes the tables declared in infer/text/unicode_tables.h as C, from libutf8proc (Unicode 15). Runs at build time. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "infer/text/unicode_tables.h"

#define N_POINTS 0x110000u
#define PAGE_SIZE (1u << UNICODE_PAGE_BITS)
#define BLOCK_SIZE (1u << UNICODE_BLOCK_BITS)
#define MAX_DECOMPOSITION 4
#define MAX_MAPPINGS 4096
#define HANGUL_FIRST 0xAC00u
#define HANGUL_LAST 0xD7A3u

struct decomposition {
    int32_t points[MAX_DECOMPOSITION]; /* full: of these none decomposes */
    int length;                        /* 0: none */
};

static struct decomposition decompositions[N_POINTS];
static uint64_t mappings[MAX_MAPPINGS];
static size_t n_mappings;
static bool composes_backwards[N_POINTS], is_composite[N_POINTS];
static struct unicode_record records[256];
static size_t n_records = UNICODE_N_STARTER_CELLS;
static uint8_t cell_of[N_POINTS];

static void fail(uint32_t point, const char *what)
{
    fprintf(stderr, "unicode_tables: U+%04X: %s\n", point, what);
    exit(1);
}

static bool is_hangul_syllable(uint32_t c)
{
    return c >= HANGUL_FIRST && c <= HANGUL_LAST;
}

/* White_Space of PropList.txt, spelled out: regular expression engines disagree on U+180E. */
static bool is_white_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static enum unicode_class class_of(uint32_t c)
{
    if (c == '\r' || c == '\n')
        return UNICODE_NEWLINE;
    if (is_white_space(c))
        return UNICODE_SPACE;
    switch (utf8proc_category((int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return UNICODE_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return UNICODE_NUMBER;
    default:
        return UNICODE_OTHER;
    }
}

/* \w as regular expressions have it (UTS #18, annex C): alphabetic, marks, decimal digits, connectors, join controls.
 * Alphabetic beyond letters, letter numbers and marks are circled and squared letters only. */
static bool is_word(uint32_t c)
{
    switch (utf8proc_category((int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
               (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
    }
}

static void find_decompositions(void)
{
    for (uint32_t c = 0; c < N_POINTS; c++) {
        if ((c >= 0xD800 && c <= 0xDFFF) || is_hangul_syllable(c))
            continue;
        int32_t points[16];
        int boundary_class = 0;
        int n = (int)utf8proc_decompose_char((int32_t)c, points, 16, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &boundary_class);
        if (n < 1 || n > MAX_DECOMPOSITION)
            fail(c, "unexpected length of the canonical decomposition");
        if (n == 1 && points[0] == (int32_t)c)
            continue;
        decompositions[c].length = n;
        memcpy(decompositions[c].points, points, sizeof points[0] * (size_t)n);
    }
}

/* NFC of n code points when it is a single one, else -1. */
static int32_t compose(const int32_t *points, int n)
{
    int32_t composed[MAX_DECOMPOSITION + 1];
    memcpy(composed, points, sizeof points[0] * (size_t)n);
    return utf8proc_normalize_utf32(composed, n, UTF8PROC_COMPOSE | UTF8PROC_STABLE) == 1 ? composed[0] : -1;
}

/* A code point with this decomposition that NFC excludes from composition, -1 when there is none. */
static int32_t find_excluded(const int32_t *points, int n)
{
    for (uint32_t c = 0; c < N_POINTS; c++)
        if (decompositions[c].length == n && !memcmp(decompositions[c].points, points, sizeof points[0] * (size_t)n))
            return (int32_t)c;
    return -1;
}

/* A code point that NFC restores from its decomposition is a primary composite, of what all but the last of the decomposition
 * compose to and the last. One of which NFC makes another single code point is mapped to that. */
static void find_mappings(void)
{
    for (uint32_t c = 0; c < N_POINTS; c++) {
        const struct decomposition *d = &decompositions[c];
        if (!d->length)
            continue;
        if (n_mappings == MAX_MAPPINGS)
            fail(c, "too many mappings");
        int32_t first = compose(d->points, d->length), second = 0;
        is_composite[c] = first == (int32_t)c;
        if (is_composite[c] || first < 0) {
            second = d->points[d->length - 1];
            first = compose(d->points, d->length - 1);
            if (first < 0 && !is_composite[c])
                first = find_excluded(d->points, d->length - 1);
        }
        if (first < 0)
            fail(c, "no code point stands for all but the last of its decomposition");
        if (is_composite[c]) {
            if (compose((int32_t[]){first, second}, 2) != (int32_t)c)
                fail(c, "its pair does not compose to it");
            composes_backwards[second] = true;
        }
        mappings[n_mappings++] = ((uint64_t)first << UNICODE_POINT_BITS | (uint64_t)second) << UNICODE_POINT_BITS | c;
    }
    for (uint32_t c = 0x1161; c <= 0x1175; c++)
        composes_backwards[c] = true;
    for (uint32_t c = 0x11A8; c <= 0x11C2; c++)
        composes_backwards[c] = true;
}

static enum unicode_form form_of(uint32_t c)
{
    if (composes_backwards[c] && decompositions[c].length)
        fail(c, "composes with what precedes it and has a decomposition");
    if (composes_backwards[c])
        return UNICODE_MAYBE;
    return !decompositions[c].length ? UNICODE_YES : is_composite[c] ? UNICODE_COMPOSITE : UNICODE_NO;
}

static uint8_t mark_cell(uint32_t c, struct unicode_record mark)
{
    size_t i = UNICODE_N_STARTER_CELLS;
    while (i < n_records && memcmp(&records[i], &mark, sizeof mark))
        i++;
    if (i == sizeof records / sizeof records[0])
        fail(c, "too many different combining marks");
    if (i == n_records)
        records[n_records++] = mark;
    return (uint8_t)i;
}

static void fill_cells(void)
{
    for (int i = 0; i < UNICODE_N_STARTER_CELLS; i++)
        records[i].form = (uint8_t)(i >> 2);
    for (uint32_t c = 0; c < N_POINTS; c++) {
        enum unicode_class class = class_of(c);
        enum unicode_form form = form_of(c);
        int combining_class = utf8proc_get_property((int32_t)c)->combining_class;
        if (combining_class && class != UNICODE_OTHER)
            fail(c, "a combining mark that is a letter, a number or a space");
        if (combining_class)
            cell_of[c] = mark_cell(c, (struct unicode_record){(uint8_t)combining_class, (uint8_t)form});
        else
            cell_of[c] = (uint8_t)(form << 2 | (class == UNICODE_NEWLINE ? UNICODE_SPACE : class));
        if (cell_of[c] && c >= UNICODE_LIMIT)
            fail(c, "not other, starter and stable: UNICODE_LIMIT is to be raised");
    }
}

static void print_list(FILE *out, const char *declaration, const uint32_t *values, size_t n)
{
    fprintf(out, "const %s = {", declaration);
    for (size_t i = 0; i < n; i++)
        fprintf(out, "%s%u,", i % 24 ? "" : "\n", values[i]);
    fprintf(out, "\n};\n");
}

/* The first position in cells[0..*n) from which the block may be read, after appending what is missing at the end. */
static uint32_t place_block(uint8_t *cells, uint32_t *n, const uint8_t *block)
{
    uint32_t at = 0, known = BLOCK_SIZE;
    for (;; at++) {
        known = *n - at < BLOCK_SIZE ? *n - at : BLOCK_SIZE;
        if (!memcmp(cells + at, block, known))
            break;
    }
    memcpy(cells + at, block, BLOCK_SIZE);
    *n += BLOCK_SIZE - known;
    return at;
}

static void print_cells(FILE *out)
{
    static uint8_t cells[N_POINTS];
    static uint32_t pages[N_POINTS / PAGE_SIZE], blocks[256 * UNICODE_BLOCKS_PER_PAGE], printed[N_POINTS];
    uint32_t n_cells = 0, n_pages = 0;
    for (uint32_t p = 0; p < UNICODE_LIMIT / PAGE_SIZE; p++) {
        uint32_t page[UNICODE_BLOCKS_PER_PAGE], i = p < UNICODE_LINEAR / PAGE_SIZE ? p : 0;
        for (uint32_t b = 0; b < UNICODE_BLOCKS_PER_PAGE; b++)
            page[b] = place_block(cells, &n_cells, &cell_of[p * PAGE_SIZE + b * BLOCK_SIZE]);
        while (i < n_pages && memcmp(&blocks[i * UNICODE_BLOCKS_PER_PAGE], page, sizeof page))
            i++;
        if (i == 256)
            fail(p * PAGE_SIZE, "more than 256 different pages");
        if (i == n_pages)
            memcpy(&blocks[n_pages++ * UNICODE_BLOCKS_PER_PAGE], page, sizeof page);
        pages[p] = i;
    }
    if (n_cells > UINT16_MAX)
        fail(0, "the cells do not fit 16-bit positions");
    for (uint32_t i = 0; i < n_cells; i++)
        printed[i] = cells[i];
    print_list(out, "uint8_t unicode_pages[]", pages, UNICODE_LIMIT / PAGE_SIZE);
    print_list(out, "uint16_t unicode_blocks[]", blocks, n_pages * UNICODE_BLOCKS_PER_PAGE);
    print_list(out, "uint8_t unicode_cells[]", printed, n_cells);
}

static int compare_mappings(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int compare_order(const void *a, const void *b)
{
    const uint64_t mask = (UINT64_C(1) << UNICODE_POINT_BITS) - 1;
    const uint64_t x = mappings[*(const uint32_t *)a] & mask, y = mappings[*(const uint32_t *)b] & mask;
    return x < y ? -1 : x > y;
}

static void print_mappings(FILE *out)
{
    static uint32_t order[MAX_MAPPINGS];
    qsort(mappings, n_mappings, sizeof mappings[0], compare_mappings);
    for (size_t i = 0; i < n_mappings; i++)
        order[i] = (uint32_t)i;
    qsort(order, n_mappings, sizeof order[0], compare_order);
    fprintf(out, "const uint32_t unicode_n_mappings = %zu;\nconst uint64_t unicode_mappings[] = {\n", n_mappings);
    for (size_t i = 0; i < n_mappings; i++)
        fprintf(out, "%lluu,\n", (unsigned long long)mappings[i]);
    fprintf(out, "};\n");
    print_list(out, "uint16_t unicode_mapping_order[]", order, n_mappings);
}

static void print_word_ranges(FILE *out)
{
    uint32_t n = 0;
    fprintf(out, "const uint32_t unicode_word_ranges[][2] = {\n");
    for (uint32_t c = 0; c < N_POINTS; c++) {
        const uint32_t first = c;
        while (c < N_POINTS && is_word(c))
            c++;
        if (c > first) {
            fprintf(out, "{%u,%u},\n", first, c - 1);
            n++;
        }
    }
    fprintf(out, "};\nconst uint32_t unicode_n_word_ranges = %u;\n", n);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: unicode_tables FILE.c\n");
        return 2;
    }
    find_decompositions();
    find_mappings();
    fill_cells();
    uint32_t ascii_class[128];
    FILE *out = fopen(argv[1], "w");
    if (!out) {
        perror(argv[1]);
        return 1;
    }
    fprintf(out, "/* Written by unicode_tables from libutf8proc %s, Unicode %s. */\n#include \"infer/text/unicode_tables.h\"\n\n",
            utf8proc_version(), utf8proc_unicode_version());
    print_cells(out);
    fprintf(out, "const struct unicode_record unicode_records[] = {\n");
    for (size_t i = 0; i < n_records; i++)
        fprintf(out, "{%u, %u},\n", records[i].combining_class, records[i].form);
    fprintf(out, "};\n");
    for (uint32_t c = 0; c < 128; c++)
        ascii_class[c] = class_of(c);
    print_list(out, "uint8_t unicode_ascii_class[128]", ascii_class, 128);
    print_mappings(out);
    print_word_ranges(out);
    if (ferror(out) || fclose(out)) {
        fprintf(stderr, "unicode_tables: cannot write '%s'\n", argv[1]);
        return 1;
    }
    return 0;
}
