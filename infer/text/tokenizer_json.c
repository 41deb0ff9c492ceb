/* tokenizer.json in the layout of Hugging Face tokenizers. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "infer/base/mapped.h"
#include "infer/format/json.h"
#include "infer/text/splitter.h"
#include "infer/text/tokenizer_internal.h"
#include "infer/text/vocabulary.h"

/* What a file is read into before it becomes a tokenizer. */
struct pieces {
    const char *where;
    struct vocabulary vocab;
    struct special_token *added;  /* (n_added) */
    bool *special;                /* (n_added) */
    int n_added;
};

static int unsupported(const struct pieces *p, const char *part, const char *expected, struct plm_status *st)
{
    return status_set(st, PLM_EUNSUPPORTED, "%s: %s is not what this tokenizer implements (expected %s)", p->where, part,
                      expected);
}

static bool is_absent(const struct json_value *v)
{
    return !v || json_typeof(v) == JSON_NULL;
}

static bool is_string(const struct json_value *v, const char *expected)
{
    size_t n;
    const char *s = v ? json_as_string(v, &n) : NULL;
    return s && n == strlen(expected) && !memcmp(s, expected, n);
}

/* A member that is `expected`, or absent. */
static bool is_bool_or_absent(const struct json_value *v, bool expected)
{
    bool value;
    return is_absent(v) || (json_as_bool(v, &value) && value == expected);
}

static bool is_empty_or_absent(const struct json_value *v)
{
    return is_absent(v) || is_string(v, "");
}

static bool is_split(const struct json_value *v)
{
    return is_string(json_get(v, "type"), "Split") && is_string(json_get(v, "behavior"), "Isolated") &&
           is_bool_or_absent(json_get(v, "invert"), false) &&
           is_string(json_get(json_get(v, "pattern"), "Regex"), SPLITTER_PATTERN);
}

static int check_pipeline(const struct pieces *p, const struct json_value *root, struct plm_status *st)
{
    if (!is_string(json_get(json_get(root, "normalizer"), "type"), "NFC"))
        return unsupported(p, "normalizer", "{\"type\": \"NFC\"}", st);
    const struct json_value *pre = json_get(root, "pre_tokenizer"), *list = json_get(pre, "pretokenizers");
    const struct json_value *split = list ? json_first(list) : NULL, *bytes = split ? json_next(split) : NULL;
    if (!is_string(json_get(pre, "type"), "Sequence") || !bytes || json_next(bytes))
        return unsupported(p, "pre_tokenizer", "a Sequence of Split and ByteLevel", st);
    if (!is_split(split))
        return unsupported(p, "pre_tokenizer.pretokenizers[0]", "an Isolated Split by the pattern of Qwen2", st);
    bool use_regex;
    if (!is_string(json_get(bytes, "type"), "ByteLevel") || !is_bool_or_absent(json_get(bytes, "add_prefix_space"), false) ||
        is_absent(json_get(bytes, "add_prefix_space")) || !json_as_bool(json_get(bytes, "use_regex"), &use_regex) || use_regex)
        return unsupported(p, "pre_tokenizer.pretokenizers[1]",
                           "ByteLevel with add_prefix_space false and use_regex false", st);
    if (!is_string(json_get(json_get(root, "decoder"), "type"), "ByteLevel"))
        return unsupported(p, "decoder", "ByteLevel", st);
    const struct json_value *post = json_get(root, "post_processor");
    if (!is_absent(post) && !is_string(json_get(post, "type"), "ByteLevel"))
        return unsupported(p, "post_processor", "ByteLevel or null", st);
    if (!is_absent(json_get(root, "truncation")))
        return unsupported(p, "truncation", "null", st);
    if (!is_absent(json_get(root, "padding")))
        return unsupported(p, "padding", "null", st);
    return PLM_OK;
}

static int check_model(const struct pieces *p, const struct json_value *model, struct plm_status *st)
{
    const struct json_value *type = json_get(model, "type");
    if (json_typeof(model) != JSON_OBJECT || (!is_absent(type) && !is_string(type, "BPE")))
        return unsupported(p, "model", "type BPE", st);
    if (!is_absent(json_get(model, "dropout")))
        return unsupported(p, "model.dropout", "null", st);
    if (!is_absent(json_get(model, "unk_token")))
        return unsupported(p, "model.unk_token", "null", st);
    if (!is_empty_or_absent(json_get(model, "continuing_subword_prefix")))
        return unsupported(p, "model.continuing_subword_prefix", "null or \"\"", st);
    if (!is_empty_or_absent(json_get(model, "end_of_word_suffix")))
        return unsupported(p, "model.end_of_word_suffix", "null or \"\"", st);
    if (!is_bool_or_absent(json_get(model, "byte_fallback"), false))
        return unsupported(p, "model.byte_fallback", "false", st);
    if (!is_bool_or_absent(json_get(model, "ignore_merges"), false))
        return unsupported(p, "model.ignore_merges", "false", st);
    return PLM_OK;
}

static bool is_ascii(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] >= 0x80)
            return false;
    return true;
}

static int read_added(struct pieces *p, const struct json_value *list, struct plm_status *st)
{
    size_t n = is_absent(list) ? 0 : json_count(list);
    if (!is_absent(list) && json_typeof(list) != JSON_ARRAY)
        return status_set(st, PLM_EFORMAT, "%s: added_tokens is not an array", p->where);
    if (n > TOKENIZER_MAX_ADDED)
        return status_set(st, PLM_ELIMIT, "%s: %zu added_tokens, at most %d are supported", p->where, n, TOKENIZER_MAX_ADDED);
    p->added = calloc(n + 1, sizeof *p->added);
    p->special = calloc(n + 1, sizeof *p->special);
    if (!p->added || !p->special)
        return status_no_memory(st, (n + 1) * sizeof *p->added, "added tokens");
    for (const struct json_value *v = n ? json_first(list) : NULL; v; v = json_next(v)) {
        int64_t id;
        size_t length;
        const char *text = json_as_string(json_get(v, "content"), &length);
        if (!text || length == 0 || strlen(text) != length)
            return status_set(st, PLM_EFORMAT, "%s: added_tokens[%d].content is not a text", p->where, p->n_added);
        if (!json_as_integer(json_get(v, "id"), &id) || id < 0 || id >= TOKENIZER_MAX_VOCAB)
            return status_set(st, PLM_EFORMAT, "%s: added_tokens[%d] ('%.80s'): id is not an integer from 0 to %d", p->where,
                              p->n_added, text, TOKENIZER_MAX_VOCAB - 1);
        if (!is_bool_or_absent(json_get(v, "lstrip"), false) || !is_bool_or_absent(json_get(v, "rstrip"), false) ||
            !is_bool_or_absent(json_get(v, "single_word"), false) ||
            (!is_bool_or_absent(json_get(v, "normalized"), false) && !is_ascii(text, length)))
            return status_set(st, PLM_EUNSUPPORTED,
                              "%s: added_tokens[%d] ('%.80s'): lstrip, rstrip, single_word or normalized is not false",
                              p->where, p->n_added, text);
        bool special = false;
        json_as_bool(json_get(v, "special"), &special);
        p->added[p->n_added] = (struct special_token){text, (int32_t)id};
        p->special[p->n_added++] = special;
    }
    return PLM_OK;
}

static int vocab_id(const struct pieces *p, const struct json_value *v, int32_t *id, struct plm_status *st)
{
    int64_t value;
    size_t n;
    if (!json_as_integer(v, &value) || value < 0 || value >= TOKENIZER_MAX_VOCAB)
        return status_set(st, PLM_EFORMAT, "%s: model.vocab: id of '%.80s' is not an integer from 0 to %d", p->where,
                          json_key(v, &n), TOKENIZER_MAX_VOCAB - 1);
    *id = (int32_t)value;
    return PLM_OK;
}

static bool is_added(const struct pieces *p, const char *text, size_t n, int32_t id)
{
    for (int i = 0; i < p->n_added; i++)
        if (p->added[i].id == id && strlen(p->added[i].text) == n && !memcmp(p->added[i].text, text, n))
            return true;
    return false;
}

static int check_merges(const struct pieces *p, const struct json_value *merges, struct plm_status *st)
{
    if (json_typeof(merges) == JSON_ARRAY && json_count(merges) <= TOKENIZER_MAX_VOCAB)
        return PLM_OK;
    return status_set(st, PLM_EFORMAT, "%s: model.merges is missing or not an array of at most %d merges", p->where, TOKENIZER_MAX_VOCAB);
}

static int read_vocab(struct pieces *p, const struct json_value *vocab, int32_t n_merges, struct plm_status *st)
{
    int32_t id = 0, n_ids = 0;
    size_t n, bytes = 0, count = json_count(vocab);
    if (json_typeof(vocab) != JSON_OBJECT)
        return status_set(st, PLM_EFORMAT, "%s: model.vocab is missing or not an object", p->where);
    for (const struct json_value *v = json_first(vocab); v; v = json_next(v)) {
        int code = vocab_id(p, v, &id, st);
        if (code)
            return code;
        json_key(v, &n);
        bytes += n;
        n_ids = id >= n_ids ? id + 1 : n_ids;
    }
    /* Ids may have gaps, but memory must follow from the size of the file, not from one large number in it. */
    if ((size_t)n_ids > count * 2 + 65536)
        return status_set(st, PLM_EFORMAT, "%s: model.vocab has %zu tokens but ids up to %d", p->where, count, n_ids - 1);
    int code = vocabulary_create(&p->vocab, n_ids, count, bytes, n_merges, st);
    for (const struct json_value *v = json_first(vocab); v && !code; v = json_next(v)) {
        const char *key = json_key(v, &n);
        code = vocab_id(p, v, &id, st);
        if (code || is_added(p, key, n, id))
            continue;
        if (p->vocab.token[id])
            return status_set(st, PLM_EFORMAT, "%s: model.vocab: two tokens have the id %d, one is '%.80s'", p->where, id, key);
        code = vocabulary_put(&p->vocab, id, key, n, st);
        if (code)
            status_prefix(st, "%s: model.vocab", p->where);
    }
    return code;
}

static int read_merges(struct pieces *p, const struct json_value *merges, struct plm_status *st)
{
    int code = PLM_OK;
    for (const struct json_value *v = json_first(merges); v && !code; v = json_next(v)) {
        size_t n_left = 0, n_right = 0;
        const char *left = json_as_string(v, &n_left), *right = NULL;
        if (left) {
            code = vocabulary_merge_text(&p->vocab, left, n_left, st);
        } else if (json_typeof(v) == JSON_ARRAY && json_count(v) == 2 && (left = json_as_string(json_first(v), &n_left)) &&
                   (right = json_as_string(json_next(json_first(v)), &n_right))) {
            code = vocabulary_merge(&p->vocab, left, n_left, right, n_right, st);
        } else {
            code = status_set(st, PLM_EFORMAT, "neither \"a b\" nor [\"a\", \"b\"]");
        }
        if (code)
            status_prefix(st, "%s: model.merges[%d]", p->where, (int)p->vocab.n_merges);
    }
    return code;
}

int tokenizer_from_json(struct tokenizer **out, const char *text, size_t length, const char *where, struct plm_status *st)
{
    struct pieces p = {.where = where};
    struct json_doc *doc;
    *out = NULL;
    int code = json_parse(&doc, text, length, where, st);
    if (code)
        return code;
    const struct json_value *root = json_root(doc), *model = json_get(root, "model");
    if (json_typeof(model) != JSON_OBJECT)
        code = status_set(st, PLM_EFORMAT, "%s: no object 'model': not a tokenizer.json", where);
    if (!code)
        code = check_pipeline(&p, root, st);
    if (!code)
        code = check_model(&p, model, st);
    if (!code)
        code = read_added(&p, json_get(root, "added_tokens"), st);
    const struct json_value *merges = json_get(model, "merges");
    if (!code)
        code = check_merges(&p, merges, st);
    if (!code)
        code = read_vocab(&p, json_get(model, "vocab"), (int32_t)json_count(merges), st);
    if (!code)
        code = read_merges(&p, merges, st);
    for (int i = 0; i < p.n_added && !code; i++) {
        if ((size_t)p.added[i].id > (size_t)p.vocab.n + 65536)
            code = status_set(st, PLM_EFORMAT, "%s: added token '%.80s' has id %d, far above the vocabulary of %d", where,
                              p.added[i].text, p.added[i].id, p.vocab.n);
        else if (p.added[i].id < p.vocab.n && p.vocab.token[p.added[i].id])
            code = status_set(st, PLM_EFORMAT, "%s: added token '%.80s' has the id %d of another token", where,
                              p.added[i].text, p.added[i].id);
    }
    if (!code) {
        code = tokenizer_create(out, p.vocab.token, p.vocab.length, p.vocab.n, (const int32_t(*)[2])p.vocab.merges, p.vocab.n_merges, p.added,
                                p.n_added, st);
        if (code)
            status_prefix(st, "%s", where);
    }
    for (int i = 0; i < p.n_added && !code; i++)
        if (!p.special[i])
            (*out)->flags[p.added[i].id] &= (unsigned char)~TOKEN_SPECIAL;
    vocabulary_free(&p.vocab);
    free(p.added);
    free(p.special);
    json_free(doc);
    return code;
}

int tokenizer_open(struct tokenizer **out, const char *path, struct plm_status *st)
{
    struct stat info;
    struct mapped_file file;
    char *full;
    *out = NULL;
    if (asprintf(&full, "%s%s", path, stat(path, &info) == 0 && S_ISDIR(info.st_mode) ? "/tokenizer.json" : "") < 0)
        return status_no_memory(st, strlen(path) + 32, "a path");
    int code = mapped_open(&file, full, st);
    if (!code) {
        code = tokenizer_from_json(out, (const char *)file.data, file.size, full, st);
        mapped_close(&file);
    }
    if (!code && (code = tokenizer_read_config(*out, full, st))) {
        tokenizer_free(*out);
        *out = NULL;
    }
    free(full);
    return code;
}

static bool has_id(const struct tokenizer *t, int32_t id, unsigned flag)
{
    return t->flags[id] & flag;
}

/* Hugging Face gives added tokens that are not in model.vocab the ids after it, in order. Where ours are not these, they
 * must be listed in model.vocab too. */
static bool added_follow_vocab(const struct tokenizer *t)
{
    int32_t n_ordinary = t->n_vocab - t->n_added;
    for (int32_t id = 0; id < t->n_vocab; id++)
        if (!t->flags[id] || has_id(t, id, TOKEN_ADDED) != (id >= n_ordinary))
            return false;
    return true;
}

static void put_added(struct json_buffer *b, const struct tokenizer *t)
{
    const char *comma = "";
    json_printf(b, "  \"added_tokens\": [");
    for (int32_t id = 0; id < t->n_vocab; id++) {
        if (!has_id(t, id, TOKEN_ADDED))
            continue;
        json_printf(b, "%s\n    {\"id\": %d, \"content\": ", comma, id);
        json_put_string(b, t->bytes + t->start[id], token_length(t, id));
        json_printf(b, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": %s}",
                    has_id(t, id, TOKEN_SPECIAL) ? "true" : "false");
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
    json_printf(b, "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
                   "    \"continuing_subword_prefix\": \"\",\n    \"end_of_word_suffix\": \"\",\n    \"fuse_unk\": false,\n"
                   "    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n    \"vocab\": {");
    for (int32_t id = 0; id < t->n_vocab; id++) {
        if (!t->flags[id] || (has_id(t, id, TOKEN_ADDED) && !with_added))
            continue;
        json_printf(b, "%s\n      ", comma);
        if (has_id(t, id, TOKEN_ADDED))
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
    json_printf(&b, "  \"normalizer\": {\"type\": \"NFC\"},\n  \"pre_tokenizer\": {\n    \"type\": \"Sequence\",\n"
                    "    \"pretokenizers\": [\n      {\"type\": \"Split\", \"pattern\": {\"Regex\": ");
    json_put_string(&b, SPLITTER_PATTERN, strlen(SPLITTER_PATTERN));
    static const char byte_level[] = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false, "
                                     "\"use_regex\": false}";
    json_printf(&b, "}, \"behavior\": \"Isolated\", \"invert\": false},\n      %s\n    ]\n  },\n", byte_level);
    json_printf(&b, "  \"post_processor\": %s,\n  \"decoder\": %s,\n", byte_level, byte_level);
    put_model(&b, t, scratch);
    free(scratch);
    if (b.failed) {
        free(b.data);
        return NULL;
    }
    *length = b.length;
    return b.data;
}
