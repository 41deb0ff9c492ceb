/* tokenizer.json in the layout of Hugging Face tokenizers. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "infer/base/log.h"
#include "infer/base/mapped.h"
#include "infer/format/json.h"
#include "infer/text/splitter.h"
#include "infer/text/tokenizer_internal.h"
#include "infer/text/tokenizer_json_pipeline.h"
#include "infer/text/vocabulary.h"

/* What a file is read into before it becomes a tokenizer. */
struct pieces {
    const char *where;
    struct vocabulary vocab;
    struct special_token *added;  /* (n_added) */
    struct tokenizer_pipeline pipeline;
    struct tokenizer_marks marks;
    int n_added;
};

static struct special_token *find_added(const struct pieces *p, const char *text, size_t n, int32_t id)
{
    for (int i = 0; i < p->n_added; i++)
        if (p->added[i].id == id && strlen(p->added[i].text) == n && !memcmp(p->added[i].text, text, n))
            return &p->added[i];
    return NULL;
}

/* What is missing or null is false, but "normalized": that is true for a token that is not special, as where it is
 * made. */
static int read_traits(struct special_token *t, const struct json_value *v, const struct pieces *p,
                       struct plm_status *st)
{
    static const struct {
        const char *key;
        unsigned trait;
    } all[] = {{"special", ADDED_PLAIN},
               {"normalized", ADDED_NORMALIZED},
               {"lstrip", ADDED_LSTRIP},
               {"rstrip", ADDED_RSTRIP},
               {"single_word", ADDED_SINGLE_WORD}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const struct json_value *given = json_get(v, all[i].key);
        bool value = all[i].trait == ADDED_NORMALIZED && t->traits & ADDED_PLAIN;
        if (!json_is_absent(given) && !json_as_bool(given, &value))
            return status_set(st, PLM_EFORMAT, "%s: added_tokens[%d] ('%.80s'): %s is neither true nor false", p->where,
                              p->n_added, t->text, all[i].key);
        if (value != (all[i].trait == ADDED_PLAIN))
            t->traits |= all[i].trait;
    }
    return PLM_OK;
}

static int read_added(struct pieces *p, const struct json_value *list, struct plm_status *st)
{
    size_t n = json_is_absent(list) ? 0 : json_count(list);
    if (!json_is_absent(list) && json_typeof(list) != JSON_ARRAY)
        return status_set(st, PLM_EFORMAT, "%s: added_tokens is not an array", p->where);
    if (n > TOKENIZER_MAX_ADDED)
        return status_set(st, PLM_ELIMIT, "%s: %zu added_tokens, at most %d are supported", p->where, n, TOKENIZER_MAX_ADDED);
    p->added = calloc(n + 1, sizeof *p->added);
    if (!p->added)
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
        struct special_token *at = find_added(p, text, length, (int32_t)id);
        const bool again = at; /* the later traits count */
        at = again ? at : &p->added[p->n_added];
        *at = (struct special_token){text, (int32_t)id, 0};
        int code = read_traits(at, v, p, st);
        if (code)
            return code;
        p->n_added += !again;
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

/* A key of the vocabulary that is an added token too is a word as well where both mean the same bytes. */
static bool prints_as_itself(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (text[i] < 33 || text[i] > 126)
            return false;
    return true;
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
        if (code || (find_added(p, key, n, id) && !prints_as_itself(key, n)))
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
        code = tokenizer_json_pipeline(root, where, &p.pipeline, &p.marks, st);
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
        else if (p.added[i].id < p.vocab.n && p.vocab.token[p.added[i].id] &&
                 (p.vocab.length[p.added[i].id] != strlen(p.added[i].text) ||
                  memcmp(p.vocab.token[p.added[i].id], p.added[i].text, strlen(p.added[i].text)) != 0))
            code = status_set(st, PLM_EFORMAT, "%s: added token '%.80s' has the id %d of another token", where,
                              p.added[i].text, p.added[i].id);
    }
    const int32_t twice = code ? 0 : vocabulary_drop_merges(&p.vocab, true);
    if (twice < 0)
        code = status_no_memory(st, (size_t)p.vocab.n_merges * 16, "merges");
    else if (twice > 0)
        log_info("%s: %d merges are given twice; the later ones count, as Hugging Face has it", where, (int)twice);
    if (!code) {
        code = tokenizer_create(out, p.vocab.token, p.vocab.length, p.vocab.n, (const int32_t(*)[2])p.vocab.merges, p.vocab.n_merges, p.added,
                                p.n_added, st);
        if (code)
            status_prefix(st, "%s", where);
    }
    if (!code && (p.pipeline.no_nfc || p.pipeline.ignore_merges))
        code = tokenizer_set_pipeline(*out, &p.pipeline, st);
    if (!code)
        code = tokenizer_set_marks(*out, &p.marks, where, st);
    if (code) {
        tokenizer_free(*out);
        *out = NULL;
    }
    vocabulary_free(&p.vocab);
    free(p.added);
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
