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

/* "-": standard input. NULL with a message in st. */
static FILE *open_text(const char *path, struct plm_status *st)
{
    FILE *f = !strcmp(path, "-") ? stdin : fopen(path, "r");
    if (!f)
        status_set(st, PLM_EIO, "cannot open '%s': %s", path, strerror(errno));
    return f;
}

static int close_text(FILE *f, const char *path, int code, struct plm_status *st)
{
    if (!code && ferror(f))
        code = status_set(st, PLM_EIO, "cannot read '%s': %s", path, strerror(errno));
    if (f != stdin)
        fclose(f);
    return code;
}

static size_t mark_of(const char *text, ssize_t n)
{
    return n >= 3 && !memcmp(text, byte_order_mark, 3) ? 3 : 0;
}

int text_list_read_whole(struct text_list *l, const char *path, struct plm_status *st)
{
    FILE *f = open_text(path, st);
    char *text = NULL;
    size_t capacity = 0;
    if (!f)
        return st->code;
    errno = 0;
    const ssize_t got = getdelim(&text, &capacity, 0, f), n = got > 0 ? got : 0;
    const size_t mark = mark_of(text, n);
    int code = PLM_OK;
    if (n > 0 && text[n - 1] == 0)
        code = status_set(st, PLM_EFORMAT, "'%s' has a NUL at byte %zd, expected text in UTF-8", path, n);
    if (!code && !add(l, n ? text + mark : "", (size_t)without_end(n ? text + mark : "", n - (ssize_t)mark)))
        code = status_no_memory(st, (size_t)n, "a text");
    free(text);
    return close_text(f, path, code, st);
}

int text_list_read(struct text_list *l, const char *path, struct plm_status *st)
{
    FILE *f = open_text(path, st);
    char *line = NULL;
    size_t capacity = 0;
    const int before = l->n;
    int code = PLM_OK;
    if (!f)
        return st->code;
    errno = 0;
    long long number = 1;
    for (ssize_t n; !code && (n = getline(&line, &capacity, f)) >= 0; number++) {
        const size_t mark = number == 1 ? mark_of(line, n) : 0;
        n = without_end(line + mark, n - (ssize_t)mark);
        if (memchr(line + mark, 0, (size_t)n))
            code = status_set(st, PLM_EFORMAT, "'%s':%lld has a NUL, expected one text in UTF-8 per line", path,
                              number);
        else if (n > 0 && !add(l, line + mark, (size_t)n))
            code = status_no_memory(st, (size_t)n, "a line");
    }
    free(line);
    code = close_text(f, path, code, st);
    if (!code && l->n == before)
        code = status_set(st, PLM_EINVAL, "'%s' is empty, expected one text per line", path);
    return code;
}

void text_list_free(struct text_list *l)
{
    for (int i = 0; i < l->n; i++)
        free(l->items[i]);
    free(l->items);
    *l = (struct text_list){0};
}
