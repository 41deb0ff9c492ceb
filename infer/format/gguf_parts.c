/* Names of the parts of a split GGUF file, as llama.cpp's gguf-split gives them. */
#include "infer/format/gguf.h"

#include <stdio.h>
#include <string.h>

int gguf_part_path(char *out, size_t size, const char *path, uint64_t no, uint64_t other, uint64_t count,
                   struct plm_status *st)
{
    char suffix[64];
    snprintf(suffix, sizeof suffix, "-%05llu-of-%05llu.gguf", (unsigned long long)no + 1, (unsigned long long)count);
    const size_t length = strlen(path), end = strlen(suffix);
    if (length < end || strcmp(path + length - end, suffix) != 0)
        return status_set(
            st, PLM_EFORMAT,
            "'%s' is part %llu of %llu of a split model, and the others are looked for by name: it must end in "
            "'%s'; rename it, or merge the parts with llama-gguf-split --merge",
            path, (unsigned long long)no + 1, (unsigned long long)count, suffix);
    const int n = snprintf(out, size, "%.*s-%05llu-of-%05llu.gguf", (int)(length - end), path,
                           (unsigned long long)other + 1, (unsigned long long)count);
    return n >= 0 && (size_t)n < size ? PLM_OK : status_set(st, PLM_EINVAL, "path too long: '%s'", path);
}
