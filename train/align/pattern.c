#define PCRE2_CODE_UNIT_WIDTH 8
#include "train/align/pattern.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct pattern {
    pcre2_code *code;
    pcre2_match_context *context; /* with the limit of steps */
    uint32_t groups;
};

int pattern_open(struct pattern **out, const char *text, struct plm_status *st)
{
    int error;
    PCRE2_SIZE at;
    struct pattern *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p)
        return status_no_memory(st, sizeof *p, "a regular expression");
    p->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
                            PCRE2_MULTILINE | PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF, &error, &at, NULL);
    if (!p->code) {
        PCRE2_UCHAR reason[128];
        pcre2_get_error_message(error, reason, sizeof reason);
        pattern_close(p);
        return status_set(st, PLM_EINVAL, "the regular expression '%.200s' cannot be compiled, at character %zu: %s",
                          text, (size_t)at + 1, (const char *)reason);
    }
    p->context = pcre2_match_context_create(NULL);
    if (!p->context) {
        pattern_close(p);
        return status_no_memory(st, 0, "a regular expression");
    }
    pcre2_set_match_limit(p->context, PATTERN_STEPS);
    pcre2_pattern_info(p->code, PCRE2_INFO_CAPTURECOUNT, &p->groups);
    *out = p;
    return PLM_OK;
}

void pattern_close(struct pattern *p)
{
    if (!p)
        return;
    pcre2_code_free(p->code);
    pcre2_match_context_free(p->context);
    free(p);
}

bool pattern_has_group(const struct pattern *p)
{
    return p->groups > 0;
}

static double thread_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Behind the character at `at`. */
static size_t next_character(const char *text, size_t n, size_t at)
{
    for (at++; at < n && ((unsigned char)text[at] & 0xC0) == 0x80;)
        at++;
    return at;
}

int pattern_last(const struct pattern *p, const char *text, size_t n, size_t *first, size_t *last, bool *found,
                 struct plm_status *st)
{
    const uint32_t group = p->groups > 0;
    const double deadline = thread_seconds() + PATTERN_SECONDS;
    pcre2_match_data *data = pcre2_match_data_create(2, NULL);
    int code = PLM_OK;
    *found = false;
    if (!data)
        return status_no_memory(st, 0, "a regular expression's matches");
    for (size_t at = 0; at <= n && !code;) {
        const int pairs = pcre2_match(p->code, (PCRE2_SPTR)text, n, at, 0, data, p->context);
        const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(data);
        if (pairs == PCRE2_ERROR_NOMATCH)
            break;
        if (pairs == PCRE2_ERROR_MATCHLIMIT || pairs == PCRE2_ERROR_DEPTHLIMIT || pairs == PCRE2_ERROR_HEAPLIMIT) {
            code = status_set(st, PLM_ELIMIT,
                              "the regular expression gave up after %d steps, at byte %zu: nested repetitions?",
                              PATTERN_STEPS, at);
        } else if (pairs < 0) {
            PCRE2_UCHAR reason[128];
            pcre2_get_error_message(pairs, reason, sizeof reason);
            code = status_set(st, PLM_EINVAL, "the regular expression cannot be matched: %s", (const char *)reason);
        } else {
            if ((pairs == 0 || (uint32_t)pairs > group) && ends[2 * group] != PCRE2_UNSET &&
                ends[2 * group] <= ends[2 * group + 1]) {
                *first = ends[2 * group];
                *last = ends[2 * group + 1];
                *found = true;
            }
            at = ends[1] > at ? ends[1] : next_character(text, n, at);
            if (thread_seconds() > deadline)
                code = status_set(st, PLM_ELIMIT,
                                  "the regular expression took more than %d s for its matches, at byte %zu",
                                  PATTERN_SECONDS, at);
        }
    }
    pcre2_match_data_free(data);
    return code;
}
