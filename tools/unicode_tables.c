/* Writes the tables declared in infer/text/unicode_tables.h as C, from libutf8proc (Unicode 15). Runs at build time. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "infer/text/unicode_tables.h"

#define N_POINTS 0x110000u
#define BLOCK_SIZE (1u << UNICODE_BLOCK_BITS)
#define MAX_DECOMPOSITION 4
#define HANGUL_FIRST 0xAC00u
#define HANGUL_LAST 0xD7A3u

struct decomposition {
    int32_t points[MAX_DECOMPOSITION];
    int length; /* 0: none */
};

static struct decomposition decompositions[N_POINTS];
static struct unicode_composition compositions[4096];
static size_t n_compositions;
static bool composes_backwards[N_POINTS];
static struct unicode_record records[256];
static size_t n_records = 1; /* record 0: other, starter, stable */
static uint8_t record_of[N_POINTS];

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

/* NFC of n code points, in place; returns the new number. */
static int compose(int32_t *points, int n)
{
    return (int)utf8proc_normalize_utf32(points, n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
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

/* A code point that NFC restores from its decomposition is a primary composite; the pair that makes it is (composition of
 * all but the last, last). */
static void find_compositions(void)
{
    for (uint32_t c = 0; c < N_POINTS; c++) {
        const struct decomposition *d = &decompositions[c];
        int32_t points[MAX_DECOMPOSITION + 1];
        if (d->length < 2)
            continue;
        memcpy(points, d->points, sizeof points[0] * (size_t)d->length);
        if (compose(points, d->length) != 1 || points[0] != (int32_t)c)
            continue;
        memcpy(points, d->points, sizeof points[0] * (size_t)d->length);
        int32_t second = points[d->length - 1];
        if (compose(points, d->length - 1) != 1)
            fail(c, "the first half of a composition is more than one code point");
        int32_t first = points[0], pair[3] = {first, second};
        if (compose(pair, 2) != 1 || pair[0] != (int32_t)c)
            fail(c, "its pair does not compose to it");
        if (n_compositions == sizeof compositions / sizeof compositions[0])
            fail(c, "too many compositions");
        compositions[n_compositions++] = (struct unicode_composition){(uint32_t)first, (uint32_t)second, c};
        composes_backwards[second] = true;
    }
    for (uint32_t c = 0x1161; c <= 0x1175; c++)
        composes_backwards[c] = true;
    for (uint32_t c = 0x11A8; c <= 0x11C2; c++)
        composes_backwards[c] = true;
}

static enum unicode_quick_check quick_check(uint32_t c)
{
    const struct decomposition *d = &decompositions[c];
    if (d->length) {
        int32_t points[MAX_DECOMPOSITION + 1];
        memcpy(points, d->points, sizeof points[0] * (size_t)d->length);
        if (compose(points, d->length) != 1 || points[0] != (int32_t)c)
            return UNICODE_NFC_NO;
    }
    return composes_backwards[c] ? UNICODE_NFC_MAYBE : UNICODE_NFC_YES;
}

static uint32_t fill_records(void)
{
    uint32_t limit = 0;
    for (uint32_t c = 0; c < N_POINTS; c++) {
        struct unicode_record r = {(uint8_t)class_of(c), (uint8_t)utf8proc_get_property((int32_t)c)->combining_class,
                                   (uint8_t)quick_check(c), decompositions[c].length > 0};
        size_t i = 0;
        while (i < n_records && memcmp(&records[i], &r, sizeof r))
            i++;
        if (i == 256)
            fail(c, "more than 256 different records");
        if (i == n_records)
            records[n_records++] = r;
        record_of[c] = (uint8_t)i;
        if (i)
            limit = c + 1;
    }
    return (limit + BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE;
}

static void print_list(FILE *out, const char *declaration, const uint32_t *values, size_t n)
{
    fprintf(out, "const %s = {", declaration);
    for (size_t i = 0; i < n; i++)
        fprintf(out, "%s%u,", i % 24 ? "" : "\n", values[i]);
    fprintf(out, "\n};\n");
}

static void print_cells(FILE *out, uint32_t limit)
{
    static uint32_t blocks[N_POINTS / BLOCK_SIZE], cells[256 * BLOCK_SIZE];
    static uint32_t first_point[256];
    uint32_t n_blocks = 0;
    for (uint32_t b = 0; b < limit / BLOCK_SIZE; b++) {
        uint32_t i = 0;
        while (i < n_blocks && memcmp(&record_of[first_point[i]], &record_of[b * BLOCK_SIZE], BLOCK_SIZE))
            i++;
        if (i == 256)
            fail(b * BLOCK_SIZE, "more than 256 different blocks");
        if (i == n_blocks)
            first_point[n_blocks++] = b * BLOCK_SIZE;
        blocks[b] = i;
    }
    for (uint32_t i = 0; i < n_blocks * BLOCK_SIZE; i++)
        cells[i] = record_of[first_point[i / BLOCK_SIZE] + i % BLOCK_SIZE];
    print_list(out, "uint8_t unicode_blocks[]", blocks, limit / BLOCK_SIZE);
    print_list(out, "uint8_t unicode_cells[]", cells, n_blocks * BLOCK_SIZE);
}

static void print_decompositions(FILE *out)
{
    static uint32_t decomposed[N_POINTS], start[N_POINTS + 1], points[N_POINTS];
    size_t n = 0, used = 0;
    for (uint32_t c = 0; c < N_POINTS; c++)
        if (decompositions[c].length) {
            decomposed[n] = c;
            start[n++] = (uint32_t)used;
            for (int i = 0; i < decompositions[c].length; i++)
                points[used++] = (uint32_t)decompositions[c].points[i];
        }
    start[n] = (uint32_t)used;
    if (used > UINT16_MAX)
        fail(0, "decompositions do not fit 16-bit offsets");
    fprintf(out, "const size_t unicode_n_decomposed = %zu;\n", n);
    print_list(out, "uint32_t unicode_decomposed[]", decomposed, n);
    print_list(out, "uint16_t unicode_decomposition_start[]", start, n + 1);
    print_list(out, "uint32_t unicode_decomposition[]", points, used);
}

static int compare_compositions(const void *a, const void *b)
{
    const struct unicode_composition *x = a, *y = b;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x->second < y->second ? -1 : x->second > y->second;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: unicode_tables FILE.c\n");
        return 2;
    }
    find_decompositions();
    find_compositions();
    uint32_t limit = fill_records();
    FILE *out = fopen(argv[1], "w");
    if (!out) {
        perror(argv[1]);
        return 1;
    }
    fprintf(out, "/* Written by unicode_tables from libutf8proc %s, Unicode %s. */\n#include \"infer/text/unicode_tables.h\"\n\n",
            utf8proc_version(), utf8proc_unicode_version());
    fprintf(out, "const uint32_t unicode_limit = %u;\n", limit);
    print_cells(out, limit);
    fprintf(out, "const struct unicode_record unicode_records[] = {\n");
    for (size_t i = 0; i < n_records; i++)
        fprintf(out, "{%u, %u, %u, %u},\n", records[i].class, records[i].combining_class, records[i].quick_check,
                records[i].decomposes);
    fprintf(out, "};\nconst uint8_t unicode_ascii_class[128] = {\n");
    for (uint32_t c = 0; c < 128; c++)
        fprintf(out, "%u,", records[record_of[c]].class);
    fprintf(out, "\n};\n");
    print_decompositions(out);
    qsort(compositions, n_compositions, sizeof compositions[0], compare_compositions);
    fprintf(out, "const size_t unicode_n_compositions = %zu;\nconst struct unicode_composition unicode_compositions[] = {\n",
            n_compositions);
    for (size_t i = 0; i < n_compositions; i++)
        fprintf(out, "{%u, %u, %u},\n", compositions[i].first, compositions[i].second, compositions[i].composite);
    fprintf(out, "};\n");
    if (ferror(out) || fclose(out)) {
        fprintf(stderr, "unicode_tables: cannot write '%s'\n", argv[1]);
        return 1;
    }
    return 0;
}
