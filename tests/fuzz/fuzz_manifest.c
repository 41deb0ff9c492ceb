/* manifest.json beside one file: any text, or (first byte odd) edits of a right one. */
#include "tests/fuzz/fuzz_files.h"
#include "train/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char good[1024];
    struct plm_status st = {0};
    if (!good[0]) {
        fuzz_write("file", "data", 4);
        if (manifest_write(fuzz_directory(), (const char *const[]){"file"}, 1, &st))
            abort();
        FILE *f = fopen(fuzz_path("manifest.json"), "rb");
        if (!f || fread(good, 1, sizeof good - 1, f) == 0 || fclose(f) || manifest_verify(fuzz_directory(), &st))
            abort();
    }
    fuzz_write_text("manifest.json", good, data, size);
    if (manifest_verify(fuzz_directory(), &st) && !st.message[0])
        abort();
    return 0;
}
