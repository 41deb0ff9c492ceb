/* The JSON reader on any bytes, its document walked; what it accepts must be written back and read again alike. */
#include <stdlib.h>
#include <string.h>

#include "infer/format/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Write v as text, without recursion: levels[] are the open containers, at most as many as the reader allows. */
static void write_value(struct json_buffer *b, const struct json_value *v)
{
    const struct json_value *levels[65];
    int depth = 0;
    while (v) {
        size_t length;
        const char *text = json_key(v, &length);
        double number;
        int64_t integer;
        if (text) {
            json_put_string(b, text, length);
            json_put(b, ":", 1);
        }
        enum json_type type = json_typeof(v);
        if (type == JSON_ARRAY || type == JSON_OBJECT) {
            json_put(b, type == JSON_ARRAY ? "[" : "{", 1);
            if (json_count(v)) {
                levels[depth++] = v;
                v = json_first(v);
                continue;
            }
            json_put(b, type == JSON_ARRAY ? "]" : "}", 1);
        } else if ((text = json_as_string(v, &length))) {
            json_put_string(b, text, length);
        } else if (json_as_integer(v, &integer)) {
            json_printf(b, "%lld", (long long)integer);
        } else if (json_as_number(v, &number)) {
            json_printf(b, "%.17g", number + 0.0); /* "-0" is read as the integer 0: the sign is not kept */
        } else {
            static const char *const words[] = {"null", "false", "true"};
            json_put(b, words[type], strlen(words[type]));
        }
        while (depth > 0 && !json_next(v)) {
            v = levels[--depth];
            json_put(b, json_typeof(v) == JSON_ARRAY ? "]" : "}", 1);
        }
        v = depth > 0 ? json_next(v) : NULL;
        if (v)
            json_put(b, ",", 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_doc *doc, *again;
    struct json_buffer first = {0}, second = {0};
    struct plm_status st = {0};
    if (json_parse(&doc, (const char *)data, size, "fuzz", &st) != PLM_OK) {
        if (doc || !strstr(st.message, "fuzz: line "))
            abort();
        return 0;
    }
    write_value(&first, json_root(doc));
    if (json_parse(&again, first.data, first.length, "again", &st) != PLM_OK)
        abort();
    write_value(&second, json_root(again));
    if (first.length != second.length || memcmp(first.data, second.data, first.length) != 0)
        abort();
    free(first.data);
    free(second.data);
    json_free(doc);
    json_free(again);
    return 0;
}
