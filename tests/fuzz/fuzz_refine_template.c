/* The refinement template on any bytes: what is accepted has its slots once each, and is filled without reading slots in the texts. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/refine_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char x[] = "{y_prev}", y[] = "{x} {y_prev} answer";
    struct refine_template *t;
    struct plm_status st = {0};
    size_t length = 0;
    if (refine_template_from_text(&t, (const char *)data, size, "fuzz", &st) != PLM_OK) {
        if (t || strncmp(st.message, "fuzz: ", 6) != 0)
            abort();
        return 0;
    }
    const char *text = refine_template_text(t);
    if (strlen(text) != size || memcmp(text, data, size) != 0)
        abort();
    char *filled = refine_template_fill(t, x, sizeof x - 1, y, sizeof y - 1, &length);
    if (!filled || length != size - strlen("{x}{y_prev}") + sizeof x - 1 + sizeof y - 1 || filled[length] != 0)
        abort();
    const size_t before = (size_t)(strstr(text, "{x}") - text), other = (size_t)(strstr(text, "{y_prev}") - text);
    const size_t at = other < before ? before - strlen("{y_prev}") + sizeof y - 1 : before;
    if (memcmp(filled + at, x, sizeof x - 1) != 0)
        abort();
    free(filled);
    refine_template_free(t);
    return 0;
}
