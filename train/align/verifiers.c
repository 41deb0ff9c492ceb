#include "train/align/verifiers.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "train/align/formula.h"
#include "train/align/number.h"

#define GSM8K_CLIP 300 /* characters: what is further from the end is not the final answer */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_word(char c)
{
    return is_letter(c) || is_digit(c) || (unsigned char)c >= 0x80;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
}

struct span {
    const char *begin, *end;
};

static struct span trimmed(const char *begin, const char *end)
{
    while (begin < end && is_space(*begin))
        begin++;
    while (begin < end && is_space(end[-1]))
        end--;
    return (struct span){begin, end};
}

static int span_copy(struct span s, char **key, struct plm_status *st)
{
    const size_t n = (size_t)(s.end - s.begin);
    *key = malloc(n + 1);
    if (!*key)
        return status_no_memory(st, n + 1, "what an answer says");
    memcpy(*key, s.begin, n);
    (*key)[n] = 0;
    return PLM_OK;
}

/* ---- numbers ---- */

static int number_key(struct span s, bool (*read)(const char *, size_t, char *), char **key, struct plm_status *st)
{
    const size_t n = (size_t)(s.end - s.begin);
    char *out = malloc(n + DECIMAL_ROOM);
    if (!out)
        return status_no_memory(st, n + DECIMAL_ROOM, "a number");
    if (!read(s.begin, n, out)) {
        free(out);
        out = NULL;
    }
    *key = out;
    return PLM_OK;
}

/* The number that begins what follows "####": nothing that would go on a number stands behind it. */
static bool number_begins(const char *text, size_t n, char *out)
{
    const char *end = text + n, *after = number_scan_signed(text, end, true, out);
    return after > text && !(end - after > 1 && strchr(".,/", *after) && is_digit(after[1]));
}

static int gsm8k_key(struct span s, char **key, struct plm_status *st)
{
    for (ptrdiff_t at = s.end - s.begin - 4; at >= 0; at--)
        if (!memcmp(s.begin + at, "####", 4)) {
            int code = number_key((struct span){s.begin + at + 4, s.end}, number_begins, key, st);
            if (code || *key)
                return code;
        }
    return PLM_OK;
}

static struct span last_characters(const char *text, size_t n, size_t characters)
{
    const char *end = text + n, *p = end;
    for (size_t i = 0; i < characters && p > text; i++)
        for (p--; p > text && ((unsigned char)*p & 0xC0) == 0x80;)
            p--;
    return (struct span){p, end};
}

/* ---- \boxed{...} ---- */

static bool boxed_span(const char *text, struct span *s)
{
    bool found = false;
    for (const char *p = strchr(text, '\\'); p; p = strchr(p + 1, '\\')) {
        const char *q = !strncmp(p, "\\boxed", 6) ? p + 6 : !strncmp(p, "\\fbox", 5) ? p + 5 : NULL;
        if (!q)
            continue;
        while (is_space(*q))
            q++;
        if (*q != '{')
            continue;
        const char *first = ++q;
        for (int depth = 1; *q; q++) {
            if (*q == '\\' && q[1])
                q++; /* \{ and \} are characters of the text */
            else if (*q == '{')
                depth++;
            else if (*q == '}' && --depth == 0)
                break;
        }
        if (*q == '}') {
            *s = (struct span){first, q};
            found = true;
        }
    }
    return found;
}

/* ---- one letter ---- */

/* A letter that stands alone at p; `text` is where the text begins. "I'm" is no letter, and a small letter before a word ("a cat") neither. */
static bool lone_letter(const char *text, const char *p)
{
    if (!is_letter(*p) || (p > text && is_word(p[-1])) || is_word(p[1]) || p[1] == '\'')
        return false;
    return !(*p >= 'a' && p[1] == ' ' && is_word(p[2]));
}

/* Skip what may stand between "answer" and its letter: nothing else than these words and signs. *cue: there was "is" or a colon. */
static const char *skip_cue(const char *p, bool *cue)
{
    static const char *const words[] = {"is", "option", "choice", "the", "correct", "letter", "\\boxed", "\\text", "\\textbf", "\\mathrm", NULL};
    for (*cue = false;;) {
        while (*p && (is_space(*p) || strchr(":=*_($\"'`[{", *p)))
            *cue |= *p == ':' || *p == '=', p++;
        int i = 0;
        for (; words[i]; i++) {
            const size_t n = strlen(words[i]);
            if (!strncasecmp(p, words[i], n) && !is_word(p[n]))
                break;
        }
        if (!words[i])
            return p;
        *cue |= i == 0;
        p += strlen(words[i]);
    }
}

static char choice_letter(const char *text)
{
    const char *found = NULL;
    for (const char *p = strcasestr(text, "answer"); p; p = strcasestr(p + 6, "answer")) {
        bool cue;
        const char *letter = skip_cue(p + 6, &cue);
        if (cue && lone_letter(text, letter))
            found = letter;
    }
    struct span box;
    if (!found && boxed_span(text, &box)) {
        bool cue;
        const char *letter = skip_cue(box.begin, &cue);
        found = letter < box.end && lone_letter(text, letter) ? letter : NULL;
    }
    for (const char *p = found ? NULL : strchr(text, '('); p; p = strchr(p + 1, '('))
        if (is_letter(p[1]) && p[2] == ')')
            found = p + 1;
    if (!found) {
        bool cue;
        const char *first = skip_cue(text, &cue);
        if (lone_letter(text, first) && (!first[1] || strchr(".):,*\n", first[1])))
            found = first;
    }
    if (!found) {
        struct span s = trimmed(text, text + strlen(text));
        while (s.end > s.begin && strchr(".*)$", s.end[-1]))
            s.end--;
        const char *before = s.end > s.begin ? s.end - 1 : s.end; /* the letter, then what is in front of it on its line */
        if (before < s.end && is_letter(*before)) {
            const char *letter = before;
            while (before > s.begin && before[-1] != '\n' && (is_space(before[-1]) || strchr("*($", before[-1])))
                before--;
            if (before == s.begin || before[-1] == '\n')
                found = letter;
        }
    }
    return found ? (char)(lower(*found) - 'a' + 'A') : 0;
}

/* ---- the same text ---- */

static bool is_article(const char *word, size_t n)
{
    return (n == 1 && *word == 'a') || (n == 2 && !memcmp(word, "an", 2)) || (n == 3 && !memcmp(word, "the", 3));
}

static int exact_key(const struct verifier *v, const char *text, char **key, struct plm_status *st)
{
    const struct span s = trimmed(text, text + strlen(text));
    char *out;
    if (s.begin == s.end)
        return PLM_OK;
    int code = span_copy(s, &out, st);
    if (code)
        return code;
    if (v->ignore_case || v->normalise)
        for (char *p = out; *p; p++)
            *p = lower(*p);
    if (v->normalise) {
        char *to = out;
        for (char *p = out; *p; p++) /* punctuation goes first: "a.b" becomes the word "ab" */
            if (!(*p > ' ' && *p < 0x7F && !is_word(*p)))
                *to++ = *p;
        *to = 0;
        to = out;
        for (const char *p = out; *p;) {
            while (is_space(*p))
                p++;
            const char *word = p;
            while (*p && !is_space(*p))
                p++;
            const size_t n = (size_t)(p - word);
            if (n == 0 || is_article(word, n))
                continue;
            if (to > out)
                *to++ = ' ';
            memmove(to, word, n);
            to += n;
        }
        *to = 0;
    }
    if (!*out) {
        free(out);
        out = NULL;
    }
    *key = out;
    return PLM_OK;
}

/* ---- regular expressions ---- */

int verifier_regex(struct verifier *v, const char *pattern, struct plm_status *st)
{
    return pattern_open(&v->pattern, pattern, st);
}

void verifier_free(struct verifier *v)
{
    pattern_close(v->pattern);
    v->pattern = NULL;
}

static int regex_last(const struct verifier *v, const char *text, struct span *said, bool *found, struct plm_status *st)
{
    size_t first, last;
    const int code = pattern_last(v->pattern, text, strlen(text), &first, &last, found, st);
    if (!code && *found)
        *said = trimmed(text + first, text + last);
    return code;
}

/* ---- all of them ---- */

int verifier_extract(const struct verifier *v, const char *text, char **key, struct plm_status *st)
{
    const size_t n = strlen(text);
    struct span s = {text, text + n};
    bool found;
    int code;
    *key = NULL;
    switch (v->kind) {
    case VERIFY_GSM8K:
        s = last_characters(text, n, GSM8K_CLIP);
        code = gsm8k_key(s, key, st);
        return code || *key || !v->flexible ? code : number_key(s, number_last, key, st);
    case VERIFY_NUMBER: return number_key(s, number_last, key, st);
    case VERIFY_BOXED: return boxed_span(text, &s) ? formula_key(s.begin, s.end, key, st) : PLM_OK;
    case VERIFY_CHOICE: {
        const char letter = choice_letter(text);
        return letter ? span_copy((struct span){&letter, &letter + 1}, key, st) : PLM_OK;
    }
    case VERIFY_EXACT: return exact_key(v, text, key, st);
    case VERIFY_REGEX:
        code = regex_last(v, text, &s, &found, st);
        return code || !found ? code : span_copy(s, key, st);
    }
    return PLM_OK;
}

int verifier_reference(const struct verifier *v, const char *text, char **key, struct plm_status *st)
{
    const size_t n = strlen(text);
    struct span s = trimmed(text, text + n);
    int code;
    *key = NULL;
    switch (v->kind) {
    case VERIFY_GSM8K:
        code = gsm8k_key(s, key, st);
        return code || *key ? code : number_key(s, number_last, key, st);
    case VERIFY_BOXED:
        if (!boxed_span(text, &s))
            s = trimmed(text, text + n);
        return formula_key(s.begin, s.end, key, st);
    case VERIFY_REGEX: return s.begin < s.end ? span_copy(s, key, st) : PLM_OK;
    default: return verifier_extract(v, text, key, st);
    }
}

int verifier_check(const struct verifier *v, const char *reference, const char *text, bool *correct, struct plm_status *st)
{
    static const char *const wanted[] = {"number", "number", "formula", "letter", "text", "text"};
    const bool match_only = v->kind == VERIFY_REGEX && !pattern_has_group(v->pattern);
    char *said, *right = NULL;
    *correct = false;
    if (!match_only) {
        int code = reference ? verifier_reference(v, reference, &right, st) : PLM_OK;
        if (code)
            return code;
        if (!reference)
            return status_set(st, PLM_EINVAL, "the task has no \"answer\" to compare with");
        if (!right)
            return status_set(st, PLM_EINVAL, "the reference answer '%.80s' has no %s to compare with", reference, wanted[v->kind]);
    }
    int code = verifier_extract(v, text, &said, st);
    if (!code)
        *correct = said && (match_only || !strcmp(said, right));
    free(said);
    free(right);
    return code;
}
