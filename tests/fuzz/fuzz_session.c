/* Session files with a right checksum and wrong contents: refused, or loaded and continued. The first byte picks one of the good files
 * that the rest edits. */
#include <string.h>

#include "infer/model/engine.h"
#include "tests/fuzz/fuzz_files.h"
#include "tests/model/support.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PROMPT = 24, CHECKSUM_AT = 16, HEADER = 56 };

static const struct {
    enum cache_policy policy;
    enum dtype type;
} kinds[] = {{POLICY_FULL, DTYPE_F32}, {POLICY_FULL, DTYPE_F16}, {POLICY_D2O, DTYPE_F32}, {POLICY_H2O, DTYPE_F16}, {POLICY_D2O_COUNT, DTYPE_F32}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static struct plm_model *model;
static struct engine *engine;
static struct sequence *sequences[KINDS];
static unsigned char *files[KINDS];
static size_t sizes[KINDS];

static void must(int code, const struct plm_status *st)
{
    if (code) {
        fprintf(stderr, "%s\n", st->message);
        abort();
    }
}

static void append(struct sequence *s, const int32_t *tokens, int64_t n, struct plm_status *st)
{
    const struct engine_item item = {.sequence = s, .tokens = tokens, .n = n};
    must(engine_step(engine, &item, 1, st), st);
}

static void start(void)
{
    struct plm_status st = {0};
    struct model_config c = small_config();
    char dir[64];
    int32_t prompt[PROMPT];
    c.max_position_embeddings = 64;
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = (i * 7 + 3) % c.vocab_size;
    write_random_model(&c, DTYPE_F32, dir, sizeof dir);
    must(plm_model_open(&model, dir, &st), &st);
    remove_model(dir); /* it is mapped */
    must(engine_create(&engine, model, &(struct engine_options){.n_threads = 1, .policies = true}, &st), &st);
    for (int k = 0; k < KINDS; k++) {
        const struct sequence_options o = {.type = kinds[k].type, .policy = policy_options_default(kinds[k].policy),
            .budget = kinds[k].policy == POLICY_FULL ? 0 : 12};
        must(sequence_create(&sequences[k], engine, &o, &st), &st);
        append(sequences[k], prompt, PROMPT, &st);
        must(sequence_save(sequences[k], fuzz_path("session"), &st), &st);
        FILE *f = fopen(fuzz_path("session"), "rb");
        if (!f || fseek(f, 0, SEEK_END))
            abort();
        sizes[k] = (size_t)ftell(f);
        rewind(f);
        files[k] = malloc(sizes[k]);
        if (!files[k] || fread(files[k], sizes[k], 1, f) != 1)
            abort();
        fclose(f);
    }
}

/* FNV-1a of everything after the header, as the file format has it. */
static void correct_checksum(unsigned char *file, size_t size)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = HEADER; i < size; i++)
        h = (h ^ file[i]) * 0x100000001B3u;
    if (size >= HEADER)
        memcpy(file + CHECKSUM_AT, &h, sizeof h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!model)
        start();
    if (size < 2)
        return 0;
    const int k = data[0] % KINDS;
    struct plm_status st = {0};
    unsigned char *file = malloc(sizes[k]);
    if (!file)
        abort();
    memcpy(file, files[k], sizes[k]);
    const size_t kept = data[1] ? sizes[k] : sizes[k] * data[0] / 256;
    fuzz_edit(file, kept, data + 2, size - 2);
    correct_checksum(file, kept);
    fuzz_write("session", file, kept);
    free(file);
    const int code = sequence_load(sequences[k], fuzz_path("session"), &st);
    if (size == 2 && data[1] && code)
        abort(); /* without edits it is a good file: the checksum above is the format's */
    if (!code) {
        const struct engine_item item = {.sequence = sequences[k], .tokens = (const int32_t[]){1, 2, 3}, .n = 3};
        for (int i = 0; i < 3 && engine_step(engine, &item, 1, &st) == PLM_OK; i++)
            ;
    }
    must(sequence_truncate(sequences[k], 0, &st), &st);
    return 0;
}
