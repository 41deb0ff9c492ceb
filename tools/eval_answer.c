#include "tools/eval_answer.h"

#include <stdlib.h>
#include <string.h>

#include "train/align/number.h"

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

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The number behind the first "####" that has one, in its shortest form. */
static bool number_marked(const char *text, size_t n, char *out)
{
    const char *end = text + n;
    for (const char *p = text; (p = memmem(p, (size_t)(end - p), "####", 4));) {
        p += 4;
        if (number_scan_signed(p, end, true, out) > p)
            return true;
    }
    return false;
}

static void trim(const char **begin, const char **end)
{
    while (*begin < *end && is_space(**begin))
        ++*begin;
    while (*begin < *end && is_space((*end)[-1]))
        --*end;
}

/* The text, or its first line that is not blank, without white space and a period at its end. */
static void take_text(enum answer_rule rule, const char **begin, const char **end)
{
    trim(begin, end);
    const char *newline = rule == ANSWER_LINE && *begin < *end ? memchr(*begin, '\n', (size_t)(*end - *begin)) : NULL;
    *end = newline ? newline : *end;
    trim(begin, end);
    if (*begin < *end && (*end)[-1] == '.')
        --*end;
    trim(begin, end);
}

int answer_extract(enum answer_rule rule, const char *text, size_t length, char **answer, struct plm_status *st)
{
    const char *begin = text, *end = text + length;
    *answer = NULL;
    if (rule == ANSWER_LINE || rule == ANSWER_ALL)
        take_text(rule, &begin, &end);
    if (begin == end)
        return PLM_OK;
    const size_t n = (size_t)(end - begin);
    char *out = malloc(n + DECIMAL_ROOM);
    if (!out)
        return status_no_memory(st, n + DECIMAL_ROOM, "an answer");
    bool found = true;
    if (rule == ANSWER_GSM8K) {
        found = number_marked(begin, n, out);
    } else if (rule == ANSWER_LAST_NUMBER) {
        found = number_last(begin, n, out);
    } else if (!number_whole(begin, n, out)) {
        memcpy(out, begin, n);
        out[n] = 0;
    }
    if (found)
        *answer = out;
    else
        free(out);
    return PLM_OK;
}
