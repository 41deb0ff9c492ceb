#include <string.h>

#include "tools/report.h"

int report_lines_open(struct report_lines *l, const char *path, struct plm_status *st)
{
    *l = (struct report_lines){.path = path};
    return mapped_open(&l->file, path, st);
}

void report_lines_close(struct report_lines *l)
{
    mapped_close(&l->file);
    *l = (struct report_lines){0};
}

static bool is_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n", text[i]) || !text[i])
            return false;
    return true;
}

int report_lines_next(struct report_lines *l, json_t **row, struct plm_status *st)
{
    *row = NULL;
    while (l->at < l->file.size) {
        const char *text = (const char *)l->file.data + l->at, *end = memchr(text, '\n', l->file.size - l->at);
        const size_t n = end ? (size_t)(end - text) : l->file.size - l->at;
        l->begin = l->at;
        l->at += end ? n + 1 : n;
        l->line++;
        if (is_blank(text, n))
            continue;
        json_error_t e;
        *row = json_loadb(text, n, 0, &e);
        if (json_is_object(*row))
            return PLM_OK;
        const bool parsed = *row != NULL;
        json_decref(*row);
        *row = NULL;
        if (!end) {
            l->half = true;
            return PLM_OK;
        }
        return parsed ? status_set(st, PLM_EFORMAT, "%s:%lld: expected one JSON object on the line", l->path, (long long)l->line)
                      : status_set(st, PLM_EFORMAT, "%s:%lld: %s (column %d)", l->path, (long long)l->line, e.text, e.column);
    }
    return PLM_OK;
}
