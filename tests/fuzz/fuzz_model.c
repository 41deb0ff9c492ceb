/* A GGUF file of a whole model with edits anywhere (header, metadata, tokenizer, tensors; the first byte also cuts it off): refused, or a
 * model that takes text and computes. */
#include <string.h>

#include "infer/plm.h"
#include "tests/fuzz/fuzz_files.h"
#include "tests/model/support.h"
#include "train/export.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned char *good;
static size_t good_size;

static void must(int code, const struct plm_status *st)
{
    if (code) {
        fprintf(stderr, "%s\n", st->message);
        abort();
    }
}

/* The 256 bytes, two merged tokens and the three special ones. */
static struct tokenizer *small_tokenizer(void)
{
    static const struct special_token specials[] = {{"<|endoftext|>", 258}, {"<|im_start|>", 259}, {"<|im_end|>", 260}};
    static const int32_t merges[][2] = {{'t', 'h'}, {256, 'e'}};
    static char bytes[256];
    const char *text[261] = {[256] = "th", [257] = "the", [258] = specials[0].text, [259] = specials[1].text, [260] = specials[2].text};
    size_t length[261];
    struct plm_status st = {0};
    struct tokenizer *t;
    for (int i = 0; i < 261; i++) {
        if (i < 256) {
            bytes[i] = (char)i;
            text[i] = &bytes[i];
        }
        length[i] = i < 256 ? 1 : strlen(text[i]);
    }
    must(tokenizer_create(&t, text, length, 261, merges, 2, specials, 3, &st), &st);
    return t;
}

static void make_good(void)
{
    struct plm_status st = {0};
    struct model_config c = small_config();
    struct plm_model *m;
    struct model_card card;
    struct export_summary summary;
    struct export_type type;
    char dir[64];
    c.num_hidden_layers = 1, c.hidden_size = 32, c.kv_lora_rank = 32, c.v_head_dim = 32, c.num_attention_heads = 1;
    c.intermediate_size = 32, c.vocab_size = 270;
    write_random_model(&c, DTYPE_F32, dir, sizeof dir);
    must(plm_model_open(&m, dir, &st), &st);
    remove_model(dir); /* it is mapped */
    m->tokenizer = small_tokenizer();
    must(model_card_read(&card, m, fuzz_directory(), &st), &st);
    export_type_by_name(&type, "q8_0");
    must(export_gguf(m, &card, &type, "fuzz", fuzz_path("model.gguf"), &summary, &st), &st);
    export_summary_free(&summary);
    model_card_free(&card);
    plm_model_close(m);
    FILE *f = fopen(fuzz_path("model.gguf"), "rb");
    if (!f || fseek(f, 0, SEEK_END))
        abort();
    good_size = (size_t)ftell(f);
    rewind(f);
    good = malloc(good_size);
    if (!good || fread(good, good_size, 1, f) != 1)
        abort();
    fclose(f);
}

/* One text through the model. Errors are fine. */
static void use(const struct plm_model *m)
{
    static const char text[] = "the <|im_end|> other";
    const struct plm_session_options o = {.context = 16, .n_threads = 1};
    struct plm_session *s;
    int32_t tokens[16];
    size_t n;
    if (plm_model_context_length(m) < 16 || plm_tokenize(m, text, sizeof text - 1, true, tokens, 15, &n, NULL) || plm_session_open(&s, m, &o, NULL))
        return;
    const struct plm_sampling sampling = plm_sampling_default();
    const char *bytes;
    if (plm_session_append(s, tokens, n, NULL) == PLM_OK && plm_session_sample(s, &sampling, &tokens[0], NULL) == PLM_OK) {
        plm_token_bytes(m, tokens[0], true, &bytes);
        plm_session_append(s, tokens, 1, NULL);
    }
    plm_session_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plm_status st = {0};
    struct plm_model *m;
    if (!good)
        make_good();
    if (size == 0)
        return 0;
    unsigned char *file = malloc(good_size);
    if (!file)
        abort();
    memcpy(file, good, good_size);
    const size_t kept = data[0] ? good_size : size > 2 ? (size_t)(data[1] | data[2] << 8) % good_size : 0;
    fuzz_edit(file, kept, data + 1, size - 1);
    fuzz_write("model.gguf", file, kept);
    free(file);
    const int code = plm_model_open(&m, fuzz_path("model.gguf"), &st);
    if (code == PLM_OK) {
        use(m);
        plm_model_close(m);
    } else if (!st.message[0] || (size == 1 && data[0])) {
        abort();
    }
    return 0;
}
