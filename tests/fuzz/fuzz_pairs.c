/* Bytes as a file of pairs: of a rollout (with tokens) and as an offline source, malformed rows refused or passed over. What is read becomes sequences, whose
 * tokens are of the vocabulary and whose answers are targets. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz_files.h"
#include "tests/model/support.h"
#include "train/align/pairs.h"

#define VOCAB 259

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char good[] = "{\"task\": 1, \"prompt\": [{\"role\": \"user\", \"content\": \"a\"}], \"chosen\": \"b\", \"chosen_tokens\": [98, 258], \"rejected\": \"c\","
                           " \"rejected_tokens\": [99, 258]}\n"
                           "{\"prompt\": \"a\", \"chosen\": \"d\", \"rejected\": \"e\"}\n"
                           "{\"prompt\": \"f\", \"completion\": \"g\", \"completion_tokens\": [103], \"label\": true}\n";

struct fixture {
    struct tokenizer *tokenizer;
    struct pair_context context;
};

static const struct fixture *fixture(void)
{
    static struct fixture f;
    struct chat_template *chat;
    struct refine_template *refine;
    if (f.tokenizer)
        return &f;
    byte_tokenizer(&f.tokenizer);
    if (chat_template_open(&chat, NULL, NULL, NULL) || refine_template_open(&refine, NULL, NULL))
        abort();
    f.context = (struct pair_context){.chat = chat, .refine = refine, .tokenizer = f.tokenizer, .max_len = 1200};
    return &f;
}

static void check(const struct pair_set *set, bool refined)
{
    struct pair_context context = fixture()->context;
    struct pair_sequences p;
    context.refined = refined, context.mismatched = !refined;
    if (set->rows.n > 50)
        return;
    if (pair_sequences_build(&p, set, &context, NULL) == PLM_OK) {
        if (p.e.n != p.n * p.per_pair || p.n + p.dropped_long != set->rows.n)
            abort();
        for (int64_t s = 0; s < p.e.n; s++) {
            if (p.lengths[s] < 1 || p.lengths[s] >= example_length(&p.e, s) || example_length(&p.e, s) > context.max_len)
                abort();
            for (int64_t t = p.e.begin[s]; t < p.e.begin[s + 1]; t++)
                if (p.e.tokens.data[t] < 0 || p.e.tokens.data[t] >= VOCAB || p.e.target.data[t] != (t >= p.e.begin[s + 1] - p.lengths[s]))
                    abort();
        }
    }
    pair_sequences_free(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum row_kind kinds[] = {ROW_PAIR, ROW_LABELLED, ROW_CONVERSATION};
    if (size < 2)
        return 0;
    const char *name = data[0] & 2 ? "pairs.json" : "pairs.jsonl";
    fuzz_write_text(name, good, data, size);
    for (int k = 0; k < 3; k++) {
        struct pair_set set;
        struct plm_status st = {0};
        if (pairs_read(&set, fuzz_path(name), kinds[k], VOCAB, &st) == PLM_OK)
            check(&set, k == 0);
        else if (!*st.message)
            abort();
        pair_set_free(&set);
        const struct example_source source = {.path = fuzz_path(name), .weight = 1.5};
        if (pairs_read_sources(&set, &source, 1, kinds[k], true, 1, &st) == PLM_OK)
            check(&set, k == 0);
        pair_set_free(&set);
    }
    return 0;
}
