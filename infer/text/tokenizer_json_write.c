/* tokenizer.json as Hugging Face tokenizers reads it. */
#include <stdlib.h>

#include "infer/format/json.h"
#include "infer/text/splitter.h"
#include "infer/text/tokenizer_internal.h"

static bool has_id(const struct tokenizer *t, int32_t id, unsigned flag)
{
    return t->flags[id] & flag;
}

/* Hugging Face gives added tokens that are not in model.vocab the ids after it, in order. Where ours are not these,
 * they must be listed in model.vocab too. */
static bool added_follow_vocab(const struct tokenizer *t)
{
    int32_t n_ordinary = t->n_vocab - t->n_added;
    for (int32_t id = 0; id < t->n_vocab; id++)
        if (!t->flags[id] || has_id(t, id, FLAG_ADDED) != (id >= n_ordinary))
            return false;
    return true;
}

static void put_added(struct json_buffer *b, const struct tokenizer *t)
{
    static const struct {
        const char *key;
        unsigned trait;
    } traits[] = {{"single_word", ADDED_SINGLE_WORD},
                  {"lstrip", ADDED_LSTRIP},
                  {"rstrip", ADDED_RSTRIP},
                  {"normalized", ADDED_NORMALIZED}};
    const char *comma = "";
    json_printf(b, "  \"added_tokens\": [");
    for (int32_t id = 0; id < t->n_vocab; id++) {
        if (!has_id(t, id, FLAG_ADDED))
            continue;
        json_printf(b, "%s\n    {\"id\": %d, \"content\": ", comma, id);
        json_put_string(b, t->bytes + t->start[id], token_length(t, id));
        for (size_t i = 0; i < sizeof traits / sizeof *traits; i++)
            json_printf(b, ", \"%s\": %s", traits[i].key, tokenizer_traits(t, id) & traits[i].trait ? "true" : "false");
        json_printf(b, ", \"special\": %s}", has_id(t, id, FLAG_SPECIAL) ? "true" : "false");
        comma = ",";
    }
    json_printf(b, "\n  ],\n");
}

/* The GPT-2 form of a token as it stands between quotes; scratch has room for twice the longest token. */
static size_t printable(const struct tokenizer *t, int32_t id, char *scratch)
{
    size_t n = token_length(t, id);
    return tokenizer_printable(t->bytes + t->start[id], n, scratch, 2 * n);
}

static void put_model(struct json_buffer *b, const struct tokenizer *t, char *scratch)
{
    bool with_added = !added_follow_vocab(t);
    const char *comma = "";
    json_printf(
        b,
        "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
        "    \"continuing_subword_prefix\": \"\",\n    \"end_of_word_suffix\": \"\",\n    \"fuse_unk\": false,\n"
        "    \"byte_fallback\": false,\n    \"ignore_merges\": %s,\n    \"vocab\": {",
        t->pipeline.ignore_merges ? "true" : "false");
    for (int32_t id = 0; id < t->n_vocab; id++) {
        if (!t->flags[id] || (!has_id(t, id, FLAG_ORDINARY) && !with_added))
            continue;
        json_printf(b, "%s\n      ", comma);
        if (!has_id(t, id, FLAG_ORDINARY))
            json_put_string(b, t->bytes + t->start[id], token_length(t, id));
        else
            json_put_string(b, scratch, printable(t, id, scratch));
        json_printf(b, ": %d", id);
        comma = ",";
    }
    json_printf(b, "\n    },\n    \"merges\": [");
    for (int32_t rank = 0; rank < t->n_merges; rank++) {
        size_t n = printable(t, t->merges[rank][0], scratch);
        scratch[n++] = ' ';
        n += printable(t, t->merges[rank][1], scratch + n);
        json_printf(b, "%s\n      ", rank ? "," : "");
        json_put_string(b, scratch, n);
    }
    json_printf(b, "\n    ]\n  }\n}\n");
}

static void put_piece(struct json_buffer *b, const struct tokenizer *t, int32_t id)
{
    json_printf(b, "{\"SpecialToken\": {\"id\": ");
    json_put_string(b, t->bytes + t->start[id], token_length(t, id));
    json_printf(b, ", \"type_id\": 0}}");
}

static void put_special(struct json_buffer *b, const struct tokenizer *t, int32_t id, const char *comma)
{
    const char *text = t->bytes + t->start[id];
    json_printf(b, "%s", comma);
    json_put_string(b, text, token_length(t, id));
    json_printf(b, ": {\"id\": ");
    json_put_string(b, text, token_length(t, id));
    json_printf(b, ", \"ids\": [%d], \"tokens\": [", id);
    json_put_string(b, text, token_length(t, id));
    json_printf(b, "]}");
}

/* A template where tokens are put around every text. */
static void put_post_processor(struct json_buffer *b, const struct tokenizer *t, const char *byte_level)
{
    const struct tokenizer_marks *m = &t->marks;
    if (!m->add_bos && !m->add_eos) {
        json_printf(b, "  \"post_processor\": %s,\n", byte_level);
        return;
    }
    json_printf(b, "  \"post_processor\": {\n    \"type\": \"TemplateProcessing\",\n");
    for (int pair = 0; pair < 2; pair++) {
        json_printf(b, "    \"%s\": [", pair ? "pair" : "single");
        for (int k = 0; k <= pair; k++) {
            if (m->add_bos) {
                json_printf(b, k ? ", " : "");
                put_piece(b, t, m->bos);
            }
            json_printf(b, "%s{\"Sequence\": {\"id\": \"%c\", \"type_id\": %d}}", k || m->add_bos ? ", " : "", 'A' + k,
                        k);
            if (m->add_eos) {
                json_printf(b, ", ");
                put_piece(b, t, m->eos);
            }
        }
        json_printf(b, "],\n");
    }
    json_printf(b, "    \"special_tokens\": {");
    if (m->add_bos)
        put_special(b, t, m->bos, "");
    if (m->add_eos && !(m->add_bos && m->bos == m->eos))
        put_special(b, t, m->eos, m->add_bos ? ", " : "");
    json_printf(b, "}\n  },\n");
}

char *tokenizer_to_json(const struct tokenizer *t, size_t *length)
{
    struct json_buffer b = {0};
    size_t longest = 0;
    for (int32_t id = 0; id < t->n_vocab; id++)
        longest = token_length(t, id) > longest ? token_length(t, id) : longest;
    char *scratch = malloc(4 * longest + 2);
    if (!scratch)
        return NULL;
    json_printf(&b, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    put_added(&b, t);
    json_printf(&b,
                "  \"normalizer\": %s,\n  \"pre_tokenizer\": {\n    \"type\": \"Sequence\",\n"
                "    \"pretokenizers\": [\n      {\"type\": \"Split\", \"pattern\": {\"Regex\": ",
                t->pipeline.no_nfc ? "null" : "{\"type\": \"NFC\"}");
    json_put_string(&b, SPLITTER_PATTERN, strlen(SPLITTER_PATTERN));
    static const char byte_level[] = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false, "
                                     "\"use_regex\": false}";
    json_printf(&b, "}, \"behavior\": \"Isolated\", \"invert\": false},\n      %s\n    ]\n  },\n", byte_level);
    put_post_processor(&b, t, byte_level);
    json_printf(&b, "  \"decoder\": %s,\n", byte_level);
    put_model(&b, t, scratch);
    free(scratch);
    if (b.failed) {
        free(b.data);
        return NULL;
    }
    *length = b.length;
    return b.data;
}
