#include "tools/text_list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *text_unescape(char *text)
{
    char *to = text;
    for (const char *p = text; *p; p++) {
        const char c = *p == '\\' ? p[1] : 0;
        *to++ = c == 'n' ? '\n' : c == 't' ? '\t' : c == '\\' ? '\\' : *p;
        p += c == 'n' || c == 't' || c == '\\';
    }
    *to = 0;
    return text;
}

static char *add(struct text_list *l, const char *text, size_t length)
{
    char **items = realloc(l->items, ((size_t)l->n + 1) * sizeof *items), *copy = strndup(text, length);
    l->items = items ? items : l->items;
    if (!items || !copy) {
        free(copy);
        return NULL;
    }
    return l->items[l->n++] = copy;
}

void text_list_argument(struct text_list *l, const char *arg, const char *name, enum text_rule rule, struct argp_state *state)
{
    if (rule != TEXT_ANY && !*arg)
        argp_error(state, "--%s is empty, expected a text", name);
    char *text = add(l, arg, strlen(arg));
    if (!text)
        argp_failure(state, 1, ENOMEM, "--%s", name);
    if (rule == TEXT_ESCAPED)
        text_unescape(text);
}

static const char byte_order_mark[] = "\xEF\xBB\xBF";

/* Length without a newline, or CR and newline, at the end. */
static ssize_t without_end(const char *text, ssize_t n)
{
    if (n > 0 && text[n - 1] == '\n')
        n -= n > 1 && text[n - 2] == '\r' ? 2 : 1;
    return n;
}

int text_list_read_whole(struct text_list *l, const char *path, struct plm_status *st)
{
    const bool standard = !strcmp(path, "-");
    FILE *f = standard ? stdin : fopen(path, "r");
    char *text = NULL;
    size_t capacity = 0;
    errno = 0;
    const ssize_t got = f ? getdelim(&text, &capacity, 0, f) : -1;
    int code = PLM_OK;
    if (!f || ferror(f))
        code = status_set(st, PLM_EIO, "cannot read '%s': %s", path, strerror(errno));
    else if (got > 0 && text[got - 1] == 0)
        code = status_set(st, PLM_EFORMAT, "'%s' has a NUL at byte %zd: it is no text", path, got);
    ssize_t n = got > 0 ? got : 0;
    const bool mark = n >= 3 && !memcmp(text, byte_order_mark, 3);
    n -= mark ? 3 : 0;
    if (!code && !add(l, text ? text + (mark ? 3 : 0) : "", (size_t)without_end(text ? text + (mark ? 3 : 0) : "", n)))
        code = status_no_memory(st, (size_t)n, "a text");
    if (f && !standard)
        fclose(f);
    free(text);
    return code;
}

int text_list_read(struct text_list *l, const char *path, struct plm_status *st)
{
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t capacity = 0;
    const int before = l->n;
    bool first = true;
    int code = f ? PLM_OK : status_set(st, PLM_EIO, "cannot read '%s': %s", path, strerror(errno));
    for (ssize_t n; !code && (n = getline(&line, &capacity, f)) >= 0;) {
        const bool mark = first && n >= 3 && !memcmp(line, byte_order_mark, 3);
        const char *text = line + (mark ? 3 : 0);
        n = without_end(text, n - (mark ? 3 : 0));
        first = false;
        if (n > 0 && !add(l, text, (size_t)n))
            code = status_no_memory(st, (size_t)n, "a line");
    }
    if (!code && ferror(f))
        code = status_set(st, PLM_EIO, "cannot read '%s': %s", path, strerror(errno));
    if (!code && l->n == before)
        code = status_set(st, PLM_EINVAL, "'%s' is empty, expected one text per line", path);
    if (f)
        fclose(f);
    free(line);
    return code;
}

void text_list_free(struct text_list *l)
{
    for (int i = 0; i < l->n; i++)
        free(l->items[i]);
    free(l->items);
    *l = (struct text_list){0};
}
