/* generation_config.json and tokenizer_config.json beside a tokenizer: any text, or (first byte odd) edits of good
 * ones. */
#include "infer/model/end_tokens.h"
#include "tests/fuzz/fuzz_files.h"
#include "tests/model/support.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char generation[] = "{\"bos_token_id\": 257, \"eos_token_id\": [258, 256], \"pad_token_id\": 256}";
static const char config[] =
    "{\"bos_token\": \"<|im_start|>\", \"eos_token\": {\"content\": \"<|im_end|>\"}, \"add_bos_token\": true, "
    "\"add_eos_token\": false, \"plm_token_kinds\": {\"256\": 2, \"65\": 6}, \"plm_unused_tokens\": {\"300\": "
    "\"<x>\"}}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plm_status st = {0};
    struct tokenizer *t;
    struct encoder *e;
    struct end_tokens ends = {0};
    struct token_list ids = {0};
    const size_t half = size / 2;
    fuzz_write_text("generation_config.json", generation, data, half);
    fuzz_write_text("tokenizer_config.json", config, data + half, size - half);
    byte_tokenizer(&t);
    int code = tokenizer_read_config(t, fuzz_path("tokenizer.json"), &st);
    if (!code)
        code = end_tokens_read_directory(&ends, t, 320, fuzz_directory(), &st);
    if (code && !st.message[0])
        abort();
    for (int i = 0; i < ends.n && !code; i++)
        if (ends.ids[i] < 0 || ends.ids[i] >= 320)
            abort();
    if (!code && encoder_create(&e, t, NULL) == PLM_OK) {
        if (encoder_encode_whole(e, "a <|im_end|>", 12, true, &ids, NULL) || ids.length < 3)
            abort();
        free(end_tokens_generation_config(&ends, t));
        free(end_tokens_tokenizer_config(t));
        encoder_free(e);
    }
    free(ids.data);
    free(ends.ids);
    tokenizer_free(t);
    return 0;
}
