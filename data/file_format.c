#include "data/file_format.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/byte_source.h"
#include "data/json_repair.h"

enum { PROBE = 1 << 16 }; /* bytes looked at */

bool file_is_named_json(const char *path)
{
    static const char *const suffixes[] = {".jsonl", ".ndjson", ".json"};
    const size_t n = byte_source_stem(path);
    for (int i = 0; i < 3; i++) {
        const size_t m = strlen(suffixes[i]);
        if (n > m && !strncasecmp(path + n - m, suffixes[i], m))
            return true;
    }
    return false;
}

/* Are the first bytes of the file a row with the field, and does another one follow, or nothing? */
static bool looks_like_rows(const char *text, size_t n, const char *field)
{
    if (n >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3))
        text += 3, n -= 3;
    const char *newline = n && *text == '{' ? memchr(text, '\n', n) : NULL;
    const size_t length = newline ? (size_t)(newline - text) : n;
    if (n == 0 || *text != '{' || (!newline && n > PROBE - 4))
        return false;
    struct json_repairs repairs = {0};
    char *repaired = malloc(3 * length + 8);
    json_t *row = repaired ? json_loadb(repaired, json_repair(text, length, repaired, &repairs), 0, NULL) : NULL;
    free(repaired);
    bool rows = json_is_string(json_object_get(row, field));
    json_decref(row);
    for (const char *p = newline; rows && p && p < text + n; p++)
        if (!memchr(" \t\r\n", *p, 4))
            return *p == '{';
    return rows;
}

int file_holds_json(bool *json, const char *path, const char *field, struct plm_status *st)
{
    struct byte_source *source;
    *json = file_is_named_json(path);
    if (*json)
        return PLM_OK;
    char *probe = malloc(PROBE);
    int code = probe ? byte_source_open(&source, path, st) : status_no_memory(st, PROBE, "the beginning of a file");
    if (!code) {
        size_t fill = 0, n = 1;
        while (!code && n > 0 && fill < PROBE) {
            code = byte_source_read(source, probe + fill, PROBE - fill, &n, st);
            fill += code ? 0 : n;
        }
        byte_source_close(source);
        *json = !code && looks_like_rows(probe, fill, field);
    }
    free(probe);
    return code;
}
