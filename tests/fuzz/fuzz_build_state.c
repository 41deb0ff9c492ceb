/* build.json of a data directory: any text, or (first byte odd) edits of a finished one. */
#include "data/build_state.h"
#include "tests/fuzz/fuzz_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char good[] = "{\"format\":\"plm-data-build\",\"settings\":{\"name\":\"x\",\"seed\":1},\"complete\":true,\"result\":{\"train.tokens\":5,"
                           "\"seconds\":1.5},\"shards\":[{\"path\":\"a.h5\",\"bytes\":4}]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct build_report report = {0};
    struct plm_status st = {0};
    enum build_status status;
    fuzz_write("a.h5", "data", 4);
    fuzz_write_text("build.json", good, data, size);
    json_t *settings = json_pack("{s:s, s:i}", "name", "x", "seed", 1);
    for (int force = 0; force < 2; force++)
        if (build_inspect(&status, fuzz_directory(), settings, force, &report, &st) && (force || !st.message[0]))
            abort();
    if (size == 1 && data[0] % 2 && status != BUILD_FINISHED)
        abort();
    json_decref(settings);
    return 0;
}
