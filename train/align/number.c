#include "train/align/number.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static const char *skip_spaces(const char *p, const char *end)
{
    while (p < end && is_space(*p))
        p++;
    return p;
}

/* What follows `word` at p; NULL when something else stands there. */
static const char *after_word(const char *p, const char *end, const char *word)
{
    const size_t n = strlen(word);
    return (size_t)(end - p) >= n && !memcmp(p, word, n) ? p + n : NULL;
}

/* What follows the first of the words that stands at p; NULL when none does. */
static const char *after_any(const char *p, const char *end, const char *const *words)
{
    const char *after = NULL;
    for (int i = 0; words[i] && !after; i++)
        after = after_word(p, end, words[i]);
    return after;
}

/* ---- fractions of 64 bits ---- */

struct ratio {
    int64_t num, den; /* den > 0 */
};

/* num / den in lowest terms; false when it is not to be had in 64 bits, or den is zero. */
static bool ratio_make(struct ratio *r, __int128 num, __int128 den)
{
    if (den == 0)
        return false;
    if (den < 0)
        num = -num, den = -den;
    __int128 a = num < 0 ? -num : num, b = den;
    while (b) {
        const __int128 rest = a % b;
        a = b, b = rest;
    }
    num /= a, den /= a;
    if (num > INT64_MAX || num < -INT64_MAX || den > INT64_MAX)
        return false;
    *r = (struct ratio){(int64_t)num, (int64_t)den};
    return true;
}

/* The value of a decimal's shortest form. */
static bool ratio_of_decimal(struct ratio *r, const char *text)
{
    const bool negative = *text == '-';
    int64_t num = 0, den = 1;
    bool point = false;
    for (text += negative; *text; text++) {
        if (*text == '.') {
            point = true;
            continue;
        }
        if (num > (INT64_MAX - 9) / 10 || (point && den > INT64_MAX / 10))
            return false;
        num = num * 10 + (*text - '0');
        den *= point ? 10 : 1;
    }
    return ratio_make(r, negative ? -num : num, den);
}

/* How often den, which becomes what is left, is divisible by a prime. */
static int take_factor(int64_t *den, int64_t prime)
{
    int times = 0;
    for (; *den % prime == 0; times++)
        *den /= prime;
    return times;
}

/* The shortest form of a decimal of up to 127 bytes that was put together here, which may be longer than what it was
 * read from. */
static bool write_decimal(const char *text, char *out)
{
    char shortest[128 + DECIMAL_ROOM];
    if (!decimal_normalise(text, strlen(text), shortest) || strlen(shortest) >= DECIMAL_ROOM)
        return false;
    strcpy(out, shortest);
    return true;
}

/* As a decimal where it has one of up to 18 digits, else as num/den. */
static void ratio_write(struct ratio r, char *out)
{
    int64_t rest = r.den;
    const int twos = take_factor(&rest, 2), fives = take_factor(&rest, 5), places = twos > fives ? twos : fives;
    __int128 mantissa = r.num < 0 ? -(__int128)r.num : r.num;
    for (int i = 0; i < places && places <= 18; i++)
        mantissa *= 10;
    char text[64];
    if (rest != 1 || places > 18 || mantissa / r.den > INT64_MAX) {
        sprintf(out, "%lld/%lld", (long long)r.num, (long long)r.den);
        return;
    }
    snprintf(text, sizeof text, "%s%llde-%d", r.num < 0 ? "-" : "", (long long)(mantissa / r.den), places);
    write_decimal(text, out);
}

static bool ratio_power(struct ratio *r, int exponent)
{
    struct ratio power = {1, 1}, base = *r;
    if (exponent < 0 && !ratio_make(&base, r->den, r->num))
        return false;
    for (int i = abs(exponent); i > 0; i--)
        if (!ratio_make(&power, (__int128)power.num * base.num, (__int128)power.den * base.den))
            return false;
    *r = power;
    return true;
}

/* ---- parts of a number ---- */

/* Longest text of a decimal that may be part of a fraction, and the room its shortest form takes. */
enum { PART_BYTES = 32, PART_ROOM = PART_BYTES + DECIMAL_ROOM };

/* The decimal at p as a fraction: its end, NULL when there is none of PART_BYTES and 64 bits. */
static const char *read_part(const char *p, const char *end, bool commas, struct ratio *r)
{
    char out[PART_ROOM];
    const char *limit = end - p > PART_BYTES ? p + PART_BYTES : end,
               *after = p < end ? decimal_scan(p, limit, commas, out) : p;
    return after > p && !(after < end && is_digit(*after)) && ratio_of_decimal(r, out) ? after : NULL;
}

/* An integer exponent after "^", in braces or not; NULL when there is none. */
static const char *read_power(const char *p, const char *end, int *exponent)
{
    const char *q = after_word(p, end, "^");
    if (!q)
        return NULL;
    const bool braces = q < end && *q == '{';
    q = braces ? skip_spaces(q + 1, end) : q;
    const char *minus = after_word(q, end, "-"), *unicode = after_word(q, end, "\xE2\x88\x92");
    q = minus ? minus : unicode ? unicode : q;
    const char *digits = q;
    int value = 0;
    for (; q < end && is_digit(*q) && q - digits < 3; q++)
        value = value * 10 + (*q - '0');
    if (q == digits || (q < end && is_digit(*q)))
        return NULL;
    if (braces) {
        q = skip_spaces(q, end);
        if (q == end || *q++ != '}')
            return NULL;
    }
    *exponent = minus || unicode ? -value : value;
    return q;
}

/* One argument of \frac: a decimal in braces, perhaps with a minus, or one digit. */
static const char *read_argument(const char *p, const char *end, struct ratio *r)
{
    p = skip_spaces(p, end);
    if (p == end)
        return NULL;
    if (is_digit(*p)) {
        *r = (struct ratio){*p - '0', 1};
        return p + 1;
    }
    if (*p != '{')
        return NULL;
    p = skip_spaces(p + 1, end);
    const bool negative = p < end && *p == '-';
    p += negative;
    p = read_part(p, end, true, r);
    if (!p)
        return NULL;
    r->num = negative ? -r->num : r->num;
    p = skip_spaces(p, end);
    return p < end && *p == '}' ? p + 1 : NULL;
}

/* \frac{3}{4} and its kin, or one of Unicode's fractions. NULL: none. */
static const char *read_fraction(const char *p, const char *end, struct ratio *r)
{
    static const char *const commands[] = {"\\frac", "\\dfrac", "\\tfrac", "\\cfrac", NULL};
    static const struct {
        const char *text;
        int num, den;
    } unicode[] = {
        {"\xC2\xBC", 1, 4},     {"\xC2\xBD", 1, 2},     {"\xC2\xBE", 3, 4},     {"\xE2\x85\x93", 1, 3},
        {"\xE2\x85\x94", 2, 3}, {"\xE2\x85\x95", 1, 5}, {"\xE2\x85\x96", 2, 5}, {"\xE2\x85\x97", 3, 5},
        {"\xE2\x85\x98", 4, 5}, {"\xE2\x85\x99", 1, 6}, {"\xE2\x85\x9A", 5, 6}, {"\xE2\x85\x9B", 1, 8},
        {"\xE2\x85\x9C", 3, 8}, {"\xE2\x85\x9D", 5, 8}, {"\xE2\x85\x9E", 7, 8},
    };
    for (size_t i = 0; i < sizeof unicode / sizeof *unicode; i++) {
        const char *after = after_word(p, end, unicode[i].text);
        if (after) {
            *r = (struct ratio){unicode[i].num, unicode[i].den};
            return after;
        }
    }
    struct ratio num, den;
    p = after_any(p, end, commands);
    p = p && p < end && !is_letter(*p) ? read_argument(p, end, &num) : NULL;
    p = p ? read_argument(p, end, &den) : NULL;
    return p && ratio_make(r, (__int128)num.num * den.den, (__int128)num.den * den.num) ? p : NULL;
}

/* r divided by what follows in "/3": the end of it, NULL when that is no fraction ("1/2/2020", "5/0"). */
static const char *read_slash(const char *p, const char *end, struct ratio *r)
{
    struct ratio den;
    const char *after = p < end && *p == '/' ? read_part(p + 1, end, true, &den) : NULL;
    if (!after || (after < end && *after == '/'))
        return NULL;
    return ratio_make(r, (__int128)r->num * den.den, (__int128)r->den * den.num) ? after : NULL;
}

/* What makes a mixed number of the whole number r before p: a proper fraction behind white space, \frac or a Unicode
 * fraction. */
static const char *read_mixed(const char *p, const char *end, struct ratio *r)
{
    struct ratio part;
    const char *q = skip_spaces(p, end), *after = read_fraction(q, end, &part);
    if (!after && q > p) {
        const char *slash = read_part(q, end, false, &part);
        after = slash && part.den == 1 ? read_slash(slash, end, &part) : NULL;
    }
    if (!after || r->den != 1 || part.num <= 0 || part.num >= part.den)
        return NULL;
    return ratio_make(r, (__int128)r->num * part.den + part.num, part.den) ? after : NULL;
}

/* "\times 10^{n}" after a decimal's shortest form in out, which becomes their product's. NULL: something else, and out
 * is as it was. */
static const char *read_scientific(const char *p, const char *end, char *out)
{
    static const char *const times[] = {"\\times", "\\cdot", "\xC3\x97", "\xC2\xB7", "*", "x", NULL};
    int exponent;
    const char *q = after_any(skip_spaces(p, end), end, times);
    q = q ? after_word(skip_spaces(q, end), end, "10") : NULL;
    q = q ? read_power(q, end, &exponent) : NULL;
    if (!q || abs(exponent) > 200 || strlen(out) > 100)
        return NULL;
    char text[128];
    snprintf(text, sizeof text, "%se%d", out, exponent);
    return write_decimal(text, out) ? q : NULL;
}

/* A power of the decimal in out. */
static const char *read_power_of(const char *p, const char *end, char *out)
{
    int exponent;
    struct ratio r;
    const char *after = read_power(p, end, &exponent);
    if (!after)
        return NULL;
    if (!strcmp(out, "10") && abs(exponent) <= 300) {
        char text[16];
        snprintf(text, sizeof text, "1e%d", exponent);
        return write_decimal(text, out) ? after : NULL;
    }
    if (abs(exponent) > 63 || !ratio_of_decimal(&r, out) || !ratio_power(&r, exponent))
        return NULL;
    ratio_write(r, out);
    return after;
}

/* ---- whole numbers ---- */

const char *number_scan(const char *text, const char *p, const char *end, bool commas, char *out)
{
    struct ratio r;
    if (p == end)
        return p;
    const char *after = read_fraction(p, end, &r);
    if (after) {
        ratio_write(r, out);
        return after;
    }
    const char *last = decimal_scan(p, end, commas, out);
    if (last == p || (after = read_scientific(last, end, out)) || (after = read_power_of(last, end, out)))
        return last == p ? p : after;
    if (!ratio_of_decimal(&r, out)) /* too long for a fraction */
        return last;
    const bool in_date = p > text && p[-1] == '/';
    after = in_date ? NULL : read_slash(last, end, &r);
    if (!after)
        after = read_mixed(last, end, &r);
    if (!after)
        return last;
    ratio_write(r, out);
    return after;
}

/* The number becomes what a minus makes of it: -2/3 of 2/3, 2/3 of -2/3. */
static void negate(char *out)
{
    if (*out == '-')
        memmove(out, out + 1, strlen(out));
    else
        decimal_negate(out);
}

const char *number_scan_signed(const char *text, const char *end, bool commas, char *out)
{
    static const char *const currencies[] = {"$", "\\$", "\xE2\x82\xAC", "\xC2\xA3", "\xC2\xA5", NULL};
    static const char *const signs[] = {"-", "\xE2\x88\x92", "+", NULL};
    const char *p = skip_spaces(text, end), *q;
    bool sign = false, currency = false, negative = false;
    for (;; p = skip_spaces(q, end)) {
        if (!currency && (q = after_any(p, end, currencies))) {
            currency = true;
        } else if (!sign && (q = after_any(p, end, signs))) {
            sign = true;
            negative = *p != '+';
        } else {
            break;
        }
    }
    const char *after = number_scan(text, p, end, commas, out);
    if (after == p)
        return text;
    if (negative)
        negate(out);
    return after;
}

bool number_whole(const char *text, size_t n, char *out)
{
    const char *end = text + n, *p = number_scan_signed(text, end, true, out);
    if (p == text)
        return false;
    p = skip_spaces(p, end);
    const char *percent = after_word(p, end, "\\%");
    p = percent ? percent : p < end && *p == '%' ? p + 1 : p;
    while (p < end && (is_space(*p) || strchr(".,$", *p)))
        p++;
    return p == end;
}

/* p begins the exponent or an index of something: "cm^2", "10^{-3}", "x_1". */
static bool is_attached(const char *text, const char *p)
{
    p -= p > text && p[-1] == '-';
    p -= p > text && p[-1] == '{';
    if (p == text)
        return false;
    return p[-1] == '^' || (p[-1] == '_' && p - text > 1 && (is_letter(p[-2]) || p[-2] == '}'));
}

/* Does a minus belong to the number at p, before which a currency may stand? */
static bool is_negative(const char *text, const char *p)
{
    p -= p > text && p[-1] == '$';
    p -= p > text && p[-1] == '\\';
    const size_t before = (size_t)(p - text);
    if (before > 0 && p[-1] == '-')
        p--;
    else if (before >= 3 && !memcmp(p - 3, "\xE2\x88\x92", 3))
        p -= 3;
    else
        return false;
    const char c = p > text ? p[-1] : ' ';
    return !is_digit(c) && !is_letter(c) && c != ')' && c != ']' && c != '}' && c != '-';
}

bool number_last(const char *text, size_t n, char *out)
{
    const char *end = text + n;
    bool found = false;
    char *number = malloc(n + DECIMAL_ROOM);
    for (const char *p = text; number && p < end;) {
        const bool fraction = *p == '.' && end - p > 1 && is_digit(p[1]);
        const char *after =
            is_digit(*p) || fraction || *p == '\\' || (*p & 0x80) ? number_scan(text, p, end, true, number) : p;
        if (after == p) {
            p++;
            continue;
        }
        if (!is_attached(text, p)) {
            strcpy(out, number);
            found = true;
            if (is_negative(text, p))
                negate(out);
        }
        p = after;
    }
    free(number);
    return found;
}
