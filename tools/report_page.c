#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/report.h"
#include "train/files.h"

/* The files of tools/report, made part of the program by tools/report/embed.c. */
extern const unsigned char embedded_page_html[], embedded_page_css[], embedded_chart_js[], embedded_page_js[], embedded_samples_js[];
extern const size_t embedded_page_html_size, embedded_page_css_size, embedded_chart_js_size, embedded_page_js_size, embedded_samples_js_size;

/* Text in HTML. */
static void put_html(FILE *f, const char *text)
{
    for (; *text; text++)
        switch (*text) {
        case '<': fputs("&lt;", f); break;
        case '>': fputs("&gt;", f); break;
        case '&': fputs("&amp;", f); break;
        case '"': fputs("&quot;", f); break;
        default: fputc(*text, f);
        }
}

/* JSON inside a script element, which ends at the first "</script" and changes its rules at "<!--": no "<" is left. It occurs in strings only. */
static int put_data(FILE *f, const json_t *data, struct plm_status *st)
{
    char *text = json_dumps(data, JSON_COMPACT | JSON_REAL_PRECISION(7));
    if (!text)
        return status_no_memory(st, 0, "the data of the page");
    for (const char *p = text; *p; p++) {
        if (*p == '<')
            fputs("\\u003c", f);
        else
            fputc(*p, f);
    }
    free(text);
    return PLM_OK;
}

/* The page with its slots {{title}}, {{style}}, {{data}} and {{script}} filled. */
static int put_page(FILE *f, const char *title, const json_t *data, struct plm_status *st)
{
    const char *p = (const char *)embedded_page_html, *end = p + embedded_page_html_size;
    int code = PLM_OK;
    while (p < end && !code) {
        if (!strncmp(p, "{{title}}", 9)) {
            put_html(f, title);
        } else if (!strncmp(p, "{{style}}", 9)) {
            fwrite(embedded_page_css, 1, embedded_page_css_size, f);
        } else if (!strncmp(p, "{{data}}", 8)) {
            code = put_data(f, data, st);
        } else if (!strncmp(p, "{{script}}", 10)) {
            fwrite(embedded_chart_js, 1, embedded_chart_js_size, f);
            fwrite(embedded_page_js, 1, embedded_page_js_size, f);
            fwrite(embedded_samples_js, 1, embedded_samples_js_size, f);
        } else {
            fputc(*p++, f);
            continue;
        }
        p = strstr(p, "}}") + 2;
    }
    return code;
}

int report_page_write(const char *path, const char *title, json_t *runs, size_t *bytes, struct plm_status *st)
{
    char *page = NULL, written[64];
    const time_t now = time(NULL);
    struct tm utc;
    strftime(written, sizeof written, "%Y-%m-%d %H:%M UTC", gmtime_r(&now, &utc));
    json_t *data = json_pack("{s:s, s:s, s:O}", "title", title, "written", written, "runs", runs);
    if (!data)
        return status_set(st, PLM_EINVAL, "the title of the page is not UTF-8");
    FILE *f = open_memstream(&page, bytes);
    int code = f ? put_page(f, title, data, st) : status_no_memory(st, 0, "the page");
    json_decref(data);
    const bool failed = f && ferror(f);
    if (f && (fclose(f) != 0 || failed) && !code)
        code = status_no_memory(st, *bytes, "the page");
    if (!code)
        code = file_replace(path, page, *bytes, st);
    free(page);
    return code;
}
