#include "infer/text/refine_template.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/mapped.h"
#include "infer/text/utf8.h"

enum { QUESTION, DRAFT, SLOTS, LIMIT = 1 << 20 };

static const char *const slots[SLOTS] = {"{x}", "{y_prev}"};

static const char built_in[] =
    "You are given a QUESTION and a DRAFT ANSWER. Write a better ANSWER.\n"
    "\n"
    "QUESTION:\n"
    "{x}\n"
    "\n"
    "DRAFT ANSWER:\n"
    "{y_prev}\n"
    "\n"
    "If the draft is mostly right, keep what works and make it clearer, more accurate and more concise.\n"
    "If the draft is wrong or off-topic, ignore it and answer from scratch.\n"
    "Reply with the improved ANSWER only.\n"
    "\n"
    "ANSWER:";

struct refine_template {
    size_t length, at[SLOTS]; /* bytes of the text, and where each slot begins in it */
    char text[];              /* NUL-terminated */
};

/* A checkpoint stores the text as JSON: it has to be UTF-8, and without NUL. */
static int check_text(const char *text, size_t length, const char *where, struct plm_status *st)
{
    if (length > LIMIT)
        return status_set(st, PLM_ELIMIT, "%s: the refinement template has %zu bytes, expected %d at most", where, length, LIMIT);
    for (size_t i = 0; i < length;) {
        uint32_t point;
        const size_t n = utf8_decode((const unsigned char *)text + i, length - i, &point);
        if (point == 0 || point & UTF8_INVALID)
            return status_set(st, PLM_EINVAL, "%s: byte %zu of the refinement template is 0x%02x: expected UTF-8 text without NUL", where, i,
                              (unsigned)(unsigned char)text[i]);
        i += n;
    }
    return PLM_OK;
}

int refine_template_from_text(struct refine_template **out, const char *text, size_t length, const char *where, struct plm_status *st)
{
    *out = NULL;
    int code = check_text(text, length, where, st);
    if (code)
        return code;
    struct refine_template *t = malloc(sizeof *t + length + 1);
    if (!t)
        return status_no_memory(st, sizeof *t + length + 1, "a refinement template");
    t->length = length;
    if (length)
        memcpy(t->text, text, length);
    t->text[length] = 0;
    for (int k = 0; k < SLOTS && !code; k++) {
        const char *first = strstr(t->text, slots[k]);
        if (!first || strstr(first + 1, slots[k]))
            code = status_set(st, PLM_EINVAL, "%s: the refinement template has the slot %s %s, expected %s (the question) and %s (the draft) once each",
                              where, slots[k], first ? "more than once" : "not at all", slots[QUESTION], slots[DRAFT]);
        else
            t->at[k] = (size_t)(first - t->text);
    }
    if (code) {
        free(t);
        return code;
    }
    *out = t;
    return PLM_OK;
}

int refine_template_open(struct refine_template **out, const char *path, struct plm_status *st)
{
    struct mapped_file m;
    *out = NULL;
    if (!path)
        return refine_template_from_text(out, built_in, sizeof built_in - 1, "built-in", st);
    int code = mapped_open(&m, path, st);
    if (code)
        return code;
    code = refine_template_from_text(out, (const char *)m.data, m.size, path, st);
    mapped_close(&m);
    return code;
}

void refine_template_free(struct refine_template *t) { free(t); }

const char *refine_template_text(const struct refine_template *t) { return t->text; }

static char *put(char *to, const char *from, size_t n)
{
    if (n)
        memcpy(to, from, n);
    return to + n;
}

char *refine_template_fill(const struct refine_template *t, const char *x, size_t x_bytes, const char *y, size_t y_bytes, size_t *length)
{
    const struct {
        const char *text;
        size_t bytes;
    } values[SLOTS] = {{x, x_bytes}, {y, y_bytes}};
    if (x_bytes > SIZE_MAX / 4 || y_bytes > SIZE_MAX / 4)
        return NULL;
    char *message = malloc(t->length + x_bytes + y_bytes + 1), *end = message;
    if (!message)
        return NULL;
    size_t from = 0;
    for (int i = 0; i < SLOTS; i++) {
        const int k = t->at[DRAFT] < t->at[QUESTION] ? 1 - i : i; /* the slots in the order of the text */
        end = put(end, t->text + from, t->at[k] - from);
        end = put(end, values[k].text, values[k].bytes);
        from = t->at[k] + strlen(slots[k]);
    }
    end = put(end, t->text + from, t->length - from);
    *end = 0;
    if (length)
        *length = (size_t)(end - message);
    return message;
}
