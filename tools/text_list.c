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

void text_list_argument(struct text_list *l, const char *arg, const char *name, bool escaped, struct argp_state *state)
{
    if (escaped && !*arg)
        argp_error(state, "--%s is empty, expected a text", name);
    char *text = add(l, arg, strlen(arg));
    if (!text)
        argp_failure(state, 1, ENOMEM, "--%s", name);
    if (escaped)
        text_unescape(text);
}

int text_list_read(struct text_list *l, const char *path, struct plm_status *st)
{
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t capacity = 0;
    const int before = l->n;
    int code = f ? PLM_OK : status_set(st, PLM_EIO, "cannot read '%s': %s", path, strerror(errno));
    for (ssize_t n; !code && (n = getline(&line, &capacity, f)) >= 0;) {
        n -= n > 0 && line[n - 1] == '\n';
        if (n > 0 && !add(l, line, (size_t)n))
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
