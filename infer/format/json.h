/* A small JSON reader (and a smaller writer) for what an edge application must read: config.json, tokenizer.json, a
 * safetensors header. (The trainer's own files go through jansson; the core has no dependencies.) Strict RFC 8259, depth
 * limit 64, duplicate keys are errors, no recursion over untrusted depth, time and memory proportional to the text. A byte
 * order mark, half a surrogate pair and a number beyond the range of a double are errors too. */
#ifndef INFER_FORMAT_JSON_H
#define INFER_FORMAT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "infer/base/status.h"

enum json_type { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json_doc;   /* owns everything */
struct json_value; /* owned by its document */

/* Parse `length` bytes (under 4 GiB; they need no NUL and are not kept); `where` names them in messages ("config.json:
 * line 3, column 7: ..."). PLM_EFORMAT; PLM_EUNSUPPORTED for too much nesting or text. Free with json_free. */
int json_parse(struct json_doc **out, const char *text, size_t length, const char *where, struct plm_status *st);
void json_free(struct json_doc *doc);

const struct json_value *json_root(const struct json_doc *doc);
enum json_type json_typeof(const struct json_value *v); /* NULL: JSON_NULL */

/* Member of an object by key; NULL when v is not an object or has no such member. Linear time. */
const struct json_value *json_get(const struct json_value *v, const char *key);

/* Walk children of an array or object in file order: first child, next sibling (NULL at the end). */
const struct json_value *json_first(const struct json_value *v);
const struct json_value *json_next(const struct json_value *v);
size_t json_count(const struct json_value *v); /* children */
const char *json_key(const struct json_value *v, size_t *length); /* of an object's member, NUL-terminated; NULL otherwise */

/* Unescaped UTF-8, NUL-terminated (may also contain NULs); NULL when not a string. */
const char *json_as_string(const struct json_value *v, size_t *length);
bool json_as_number(const struct json_value *v, double *out);
bool json_as_integer(const struct json_value *v, int64_t *out); /* 64-bit and written without fraction or exponent */
bool json_as_bool(const struct json_value *v, bool *out);

/* A growing text. Initialise with {0}; free(buf->data). `failed` is set when memory ran out (checked once, at the end). */
struct json_buffer {
    char *data; /* NUL-terminated once anything was written */
    size_t length, capacity;
    bool failed;
};
void json_put(struct json_buffer *b, const char *raw, size_t length);

/* `text` quoted and escaped. Bytes that are not UTF-8 become U+FFFD, so that the result is always JSON. */
void json_put_string(struct json_buffer *b, const char *text, size_t length);

/* Formatted, not escaped; numbers have a decimal point whatever the locale. */
void json_printf(struct json_buffer *b, const char *fmt, ...) PLM_PRINTF(2, 3);

/* A short decimal that reads back as f, with a point or an exponent so that every reader takes it for a real number; null
 * when f is not finite. */
void json_put_float(struct json_buffer *b, float f);

#endif
