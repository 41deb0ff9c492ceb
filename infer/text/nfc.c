#include "infer/text/nfc.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/unicode_tables.h"
#include "infer/text/utf8.h"

enum { HANGUL_S = 0xAC00, HANGUL_L = 0x1100, HANGUL_V = 0x1161, HANGUL_T = 0x11A7 };
enum { HANGUL_N_L = 19, HANGUL_N_V = 21, HANGUL_N_T = 28, HANGUL_N_S = HANGUL_N_L * HANGUL_N_V * HANGUL_N_T };

#define MAX_DECOMPOSITION 4 /* code points, Unicode 15 */
#define POINT_MASK ((1u << UNICODE_POINT_BITS) - 1)
#define FIRST_MARK 0x300    /* all code points below are starters and compose with nothing before them */
#define INSERTION_SORT 16   /* marks in a row up to which sorting by insertion is faster */

static int reserve_text(struct nfc *n, size_t more, struct plm_status *st)
{
    if (n->capacity - n->length >= more)
        return PLM_OK;
    size_t capacity = n->capacity * 2 > n->length + more ? n->capacity * 2 : n->length + more + 64;
    char *text = realloc(n->text, capacity);
    if (!text)
        return status_no_memory(st, capacity, "normalised text");
    n->text = text;
    n->capacity = capacity;
    return PLM_OK;
}

static int reserve_points(struct nfc *n, size_t count, struct plm_status *st)
{
    if (count <= n->points_capacity)
        return PLM_OK;
    if (count > SIZE_MAX / 16)
        return status_no_memory(st, SIZE_MAX, "normalisation");
    size_t capacity = count + count / 2 + 64;
    uint32_t *points = realloc(n->points, capacity * 2 * sizeof *points);
    if (!points)
        return status_no_memory(st, capacity * 2 * sizeof *points, "normalisation");
    n->points = points;
    n->points_capacity = capacity;
    return PLM_OK;
}

static unsigned combining_class(uint32_t c)
{
    return c < FIRST_MARK ? 0 : unicode_records[unicode_cell(c)].combining_class;
}

static bool has_mapping(uint32_t c)
{
    unsigned form = unicode_records[unicode_cell(c)].form;
    return form == UNICODE_COMPOSITE || form == UNICODE_NO;
}

/* The entry of unicode_mappings of a code point that has one. */
static uint64_t find_mapping(uint32_t c)
{
    const uint16_t *low = unicode_mapping_order;
    for (size_t n = unicode_n_mappings; n > 1; n -= n / 2)
        low = (unicode_mappings[low[n / 2]] & POINT_MASK) <= c ? low + n / 2 : low;
    return unicode_mappings[*low];
}

/* Append the full canonical decomposition of c; returns the number of code points. */
static size_t decompose(uint32_t c, uint32_t *out)
{
    if (c >= HANGUL_S && c < HANGUL_S + HANGUL_N_S) {
        uint32_t s = c - HANGUL_S, t = s % HANGUL_N_T;
        out[0] = HANGUL_L + s / (HANGUL_N_V * HANGUL_N_T);
        out[1] = HANGUL_V + s % (HANGUL_N_V * HANGUL_N_T) / HANGUL_N_T;
        out[2] = HANGUL_T + t;
        return t ? 3 : 2;
    }
    uint32_t seconds[MAX_DECOMPOSITION];
    size_t n_seconds = 0, n = 1;
    while (has_mapping(c)) {
        uint64_t mapping = find_mapping(c);
        uint32_t second = mapping >> UNICODE_POINT_BITS & POINT_MASK;
        if (second)
            seconds[n_seconds++] = second;
        c = (uint32_t)(mapping >> 2 * UNICODE_POINT_BITS);
    }
    out[0] = c;
    while (n_seconds)
        out[n++] = seconds[--n_seconds];
    return n;
}

/* The primary composite of (a, b), 0 when there is none. */
static uint32_t compose_pair(uint32_t a, uint32_t b)
{
    if (a >= HANGUL_L && a < HANGUL_L + HANGUL_N_L && b >= HANGUL_V && b < HANGUL_V + HANGUL_N_V)
        return HANGUL_S + ((a - HANGUL_L) * HANGUL_N_V + (b - HANGUL_V)) * HANGUL_N_T;
    if (a >= HANGUL_S && a < HANGUL_S + HANGUL_N_S && (a - HANGUL_S) % HANGUL_N_T == 0 && b > HANGUL_T &&
        b < HANGUL_T + HANGUL_N_T)
        return a + (b - HANGUL_T);
    const uint64_t pair = (uint64_t)a << UNICODE_POINT_BITS | b;
    size_t low = 0, high = unicode_n_mappings;
    while (low < high) {
        size_t middle = (low + high) / 2;
        uint64_t mapping = unicode_mappings[middle];
        if (mapping >> UNICODE_POINT_BITS == pair) {
            uint32_t c = mapping & POINT_MASK;
            return unicode_records[unicode_cell(c)].form == UNICODE_COMPOSITE ? c : 0;
        }
        if (mapping >> UNICODE_POINT_BITS < pair)
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

/* Stable sort of a run of marks by combining class: counting sort, because a hostile run may be as long as the text. */
static void sort_marks(uint32_t *marks, size_t n, uint32_t *scratch)
{
    if (n <= INSERTION_SORT) {
        for (size_t i = 1; i < n; i++) {
            uint32_t c = marks[i];
            unsigned class = combining_class(c);
            size_t j = i;
            for (; j > 0 && combining_class(marks[j - 1]) > class; j--)
                marks[j] = marks[j - 1];
            marks[j] = c;
        }
        return;
    }
    size_t start[257] = {0};
    for (size_t i = 0; i < n; i++)
        start[combining_class(marks[i]) + 1]++;
    for (int k = 1; k < 257; k++)
        start[k] += start[k - 1];
    for (size_t i = 0; i < n; i++)
        scratch[start[combining_class(marks[i])]++] = marks[i];
    memcpy(marks, scratch, n * sizeof *marks);
}

static void order_marks(uint32_t *points, size_t n, uint32_t *scratch)
{
    for (size_t i = 0; i < n; i++) {
        if (!combining_class(points[i]))
            continue;
        size_t begin = i;
        while (i < n && combining_class(points[i]))
            i++;
        if (i - begin > 1)
            sort_marks(points + begin, i - begin, scratch);
    }
}

/* Canonical composition in place; returns the new number of code points. */
static size_t compose(uint32_t *points, size_t n)
{
    size_t out = 0, starter = 0;
    bool have_starter = false;
    unsigned last_class = 0; /* of the code point kept last; 0: it is the starter itself */
    for (size_t i = 0; i < n; i++) {
        uint32_t c = points[i];
        unsigned class = combining_class(c);
        if (have_starter && (last_class == 0 || last_class < class)) {
            uint32_t composite = compose_pair(points[starter], c);
            if (composite) {
                points[starter] = composite;
                continue;
            }
        }
        if (class == 0) {
            starter = out;
            have_starter = true;
        }
        last_class = class;
        points[out++] = c;
    }
    return out;
}

/* Append the NFC of text[0..length), which begins and ends at boundaries of normalisation. */
static int append_segment(struct nfc *n, const unsigned char *text, size_t length, struct plm_status *st)
{
    size_t count = 0;
    for (size_t i = 0; i < length;) {
        int code = reserve_points(n, count + MAX_DECOMPOSITION, st);
        if (code)
            return code;
        uint32_t c;
        i += utf8_decode(text + i, length - i, &c);
        count += decompose(c, n->points + count);
    }
    order_marks(n->points, count, n->points + n->points_capacity);
    count = compose(n->points, count);
    int code = reserve_text(n, count * 4, st);
    if (code)
        return code;
    for (size_t i = 0; i < count; i++)
        n->length += utf8_encode(n->points[i], (unsigned char *)n->text + n->length);
    return PLM_OK;
}

static int append_text(struct nfc *n, const unsigned char *text, size_t length, struct plm_status *st)
{
    int code = length ? reserve_text(n, length, st) : PLM_OK;
    if (code || !length)
        return code;
    memcpy(n->text + n->length, text, length);
    n->length += length;
    return PLM_OK;
}

/* Bytes of ASCII at the start of s. */
static size_t skip_ascii(const unsigned char *s, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, s + i, 8);
        if (word & 0x8080808080808080u)
            break;
    }
    while (i < n && s[i] < 0x80)
        i++;
    return i;
}

/* A starter that does not compose with what precedes it, or a byte that is not UTF-8, whose cell is 0. */
static bool is_boundary(uint8_t cell)
{
    return cell < UNICODE_MAYBE << 2;
}

int nfc_normalize(struct nfc *n, const char *text, size_t length, const char **out, size_t *out_length,
                  struct plm_status *st)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t copied = 0;   /* text[0..copied) is in n->text */
    size_t boundary = 0; /* the last code point before which nothing can change what follows */
    unsigned last_class = 0;
    n->length = 0;
    for (size_t i = 0; i < length;) {
        if (s[i] < 0x80) {
            i += skip_ascii(s + i, length - i);
            boundary = i - 1;
            last_class = 0;
            continue;
        }
        uint32_t c;
        size_t step = utf8_decode(s + i, length - i, &c);
        uint8_t cell = unicode_cell(c);
        if (is_boundary(cell)) {
            boundary = c & UTF8_INVALID ? i + 1 : i;
            last_class = 0;
            i += step;
            continue;
        }
        const struct unicode_record *r = &unicode_records[cell];
        bool in_order = r->combining_class == 0 || r->combining_class >= last_class;
        last_class = r->combining_class;
        i += step;
        if (r->form <= UNICODE_COMPOSITE && in_order)
            continue;
        while (i < length) {
            step = utf8_decode(s + i, length - i, &c);
            if (is_boundary(unicode_cell(c)))
                break;
            i += step;
        }
        int code = append_text(n, s + copied, boundary - copied, st);
        if (!code)
            code = append_segment(n, s + boundary, i - boundary, st);
        if (code)
            return code;
        copied = boundary = i;
        last_class = 0;
    }
    if (copied == 0) {
        *out = text;
        *out_length = length;
        return PLM_OK;
    }
    int code = append_text(n, s + copied, length - copied, st);
    *out = n->text;
    *out_length = n->length;
    return code;
}

void nfc_free(struct nfc *n)
{
    free(n->text);
    free(n->points);
    *n = (struct nfc){0};
}
