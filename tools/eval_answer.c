#include "tools/eval_answer.h"

#include <stdlib.h>
#include <string.h>

static const char *const rule_names[] = {"last-number", "gsm8k", "line", "all"};

const char *answer_rule_name(enum answer_rule rule)
{
    return rule_names[rule];
}

int answer_rule_parse(enum answer_rule *rule, const char *name, struct plm_status *st)
{
    for (size_t i = 0; i < sizeof rule_names / sizeof *rule_names; i++)
        if (!strcmp(name, rule_names[i])) {
            *rule = (enum answer_rule)i;
            return PLM_OK;
        }
    return status_set(st, PLM_EINVAL, "the extraction rule is '%.40s', expected last-number, gsm8k, line or all", name);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The first number in [p, end), from its sign to its last digit; false when there is none. ".5" begins at its point. */
static bool find_number(const char *text, const char *p, const char *end, const char **first, const char **last)
{
    while (p < end && !is_digit(*p))
        p++;
    if (p == end)
        return false;
    const char *begin = p;
    bool point = false;
    if (begin > text && begin[-1] == '.' && (begin - 1 == text || !is_digit(begin[-2])))
        begin--, point = true;
    if (begin > text && begin[-1] == '$')
        begin--;
    if (begin > text && (begin[-1] == '-' || begin[-1] == '+') && (begin - 1 == text || !is_digit(begin[-2])))
        begin--;
    while (p < end && (is_digit(*p) || (p + 1 < end && is_digit(p[1]) && (*p == ',' || (*p == '.' && !point))))) {
        point = point || *p == '.';
        p++;
    }
    *first = begin;
    *last = p;
    return true;
}

/* Digits of a number found by find_number in its shortest form. `out` has room for one character more than the number. */
static size_t normalise_number(const char *p, const char *end, char *out)
{
    bool negative = false, point = false;
    size_t n = 0, start;
    for (; p < end && !is_digit(*p) && *p != '.'; p++)
        negative = negative || *p == '-';
    if (negative)
        out[n++] = '-';
    start = n;
    while (p + 1 < end && *p == '0' && (is_digit(p[1]) || p[1] == ','))
        p += p[1] == ',' ? 2 : 1;
    if (p < end && *p == '.')
        out[n++] = '0';
    for (; p < end; p++)
        if (*p != ',') {
            point = point || *p == '.';
            out[n++] = *p;
        }
    if (point) {
        while (out[n - 1] == '0')
            n--;
        n -= out[n - 1] == '.';
    }
    if (n == start + 1 && out[start] == '0' && negative) { /* -0 */
        out[0] = '0';
        n = 1;
    }
    return n;
}

static void trim(const char **begin, const char **end)
{
    while (*begin < *end && is_space(**begin))
        ++*begin;
    while (*begin < *end && is_space((*end)[-1]))
        --*end;
}

int answer_extract(enum answer_rule rule, const char *text, size_t length, char **answer, struct plm_status *st)
{
    const char *begin = text, *end = text + length, *first, *last;
    bool found = false;
    *answer = NULL;
    if (rule == ANSWER_GSM8K) {
        const char *mark = memmem(text, length, "####", 4);
        found = mark && find_number(text, mark + 4, end, &begin, &end);
    } else if (rule == ANSWER_LAST_NUMBER) {
        for (const char *p = text; find_number(text, p, text + length, &first, &last); p = last)
            begin = first, end = last, found = true;
    } else {
        trim(&begin, &end);
        if (rule == ANSWER_LINE && begin < end) {
            const char *newline = memchr(begin, '\n', (size_t)(end - begin));
            end = newline ? newline : end;
            trim(&begin, &end);
        }
        if (begin < end && end[-1] == '.')
            end--;
        trim(&begin, &end);
        found = begin < end;
    }
    if (!found)
        return PLM_OK;
    char *out = malloc((size_t)(end - begin) + 2);
    if (!out)
        return status_no_memory(st, (size_t)(end - begin) + 2, "an answer");
    size_t n;
    if (find_number(begin, begin, end, &first, &last) && first == begin && last == end) {
        n = normalise_number(begin, end, out);
    } else {
        n = (size_t)(end - begin);
        memcpy(out, begin, n);
    }
    out[n] = 0;
    *answer = out;
    return PLM_OK;
}
