/* The GGUF reader on any bytes, every tensor and some metadata read. A second "GGUF" in them begins a second part, so that files
 * that say they are split are joined. Needs tests/format/{memory_file,touch}.c. */
#include <string.h>

#include "tests/format/memory_file.h"
#include "tests/format/touch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g;
    const uint8_t *second = size > 4 ? memmem(data + 4, size - 4, "GGUF", 4) : NULL;
    memory_file_set(data, second ? (size_t)(second - data) : size);
    memory_file_set_second(second, second ? size - (size_t)(second - data) : 0);
    if (gguf_open(&g, "fuzz-00001-of-00002.gguf", NULL) == PLM_OK) {
        touch_gguf(g);
        gguf_close(g);
    }
    return 0;
}
