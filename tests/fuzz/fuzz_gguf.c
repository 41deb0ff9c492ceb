/* The GGUF reader on any bytes, every tensor and some metadata read. Needs tests/format/{memory_file,touch}.c. */
#include "tests/format/memory_file.h"
#include "tests/format/touch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g;
    memory_file_set(data, size);
    if (gguf_open(&g, "fuzz", NULL) == PLM_OK) {
        touch_gguf(g);
        gguf_close(g);
    }
    return 0;
}
