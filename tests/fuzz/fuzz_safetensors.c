/* The safetensors reader on any bytes, every tensor read. Needs tests/format/{memory_file,touch}.c. */
#include "tests/format/memory_file.h"
#include "tests/format/touch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors s;
    memory_file_set(data, size);
    if (safetensors_open(&s, "fuzz", NULL) == PLM_OK) {
        touch_safetensors(&s);
        safetensors_close(&s);
    }
    return 0;
}
