/* What the JSON reader and writer share: UTF-8 and number text. */
#ifndef INFER_FORMAT_JSON_TEXT_H
#define INFER_FORMAT_JSON_TEXT_H

#include <locale.h>
#include <stddef.h>

/* Bytes of the well-formed UTF-8 sequence at text < end (Unicode 15, table 3-7); 0 when there is none. */
size_t json_utf8_length(const char *text, const char *end);

/* Make strtod and printf use a decimal point in this thread, whatever the locale of the embedding application, and back.
 * enter returns 0 when out of memory; leave then does nothing. */
locale_t json_locale_enter(locale_t *old);
void json_locale_leave(locale_t c, locale_t old);

#endif
