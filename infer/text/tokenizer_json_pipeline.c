#include "infer/text/tokenizer_json_pipeline.h"

#include <string.h>

#include "infer/base/log.h"
#include "infer/text/splitter.h"

bool json_is_absent(const struct json_value *v)
{
    return !v || json_typeof(v) == JSON_NULL;
}

bool json_is_text(const struct json_value *v, const char *expected)
{
    size_t n;
    const char *s = v ? json_as_string(v, &n) : NULL;
    return s && n == strlen(expected) && !memcmp(s, expected, n);
}

static bool has_type(const struct json_value *v, const char *type)
{
    return json_is_text(json_get(v, "type"), type);
}

/* `part` of the file is of another type, or has other settings, than what is implemented. */
static int unsupported(const char *where, const char *part, const struct json_value *v, const char *expected,
                       struct plm_status *st)
{
    size_t n;
    const char *type = json_as_string(json_get(v, "type"), &n);
    return status_set(st, PLM_EUNSUPPORTED, "%s: %s (%s%.40s) is not what this tokenizer implements (expected %s)",
                      where, part,
                      type                ? "type "
                      : json_is_absent(v) ? "absent"
                                          : "no type",
                      type ? type : "", expected);
}

/* A member that is `expected`, or absent. */
static bool is_bool_or_absent(const struct json_value *v, bool expected)
{
    bool value;
    return json_is_absent(v) || (json_as_bool(v, &value) && value == expected);
}

static bool is_empty_or_absent(const struct json_value *v)
{
    return json_is_absent(v) || json_is_text(v, "");
}

static int read_normalizer(const struct json_value *v, const char *where, struct tokenizer_pipeline *p,
                           struct plm_status *st)
{
    const struct json_value *list = has_type(v, "Sequence") ? json_get(v, "normalizers") : NULL;
    p->no_nfc = json_is_absent(v) || list;
    if (has_type(v, "NFC") || json_is_absent(v))
        return PLM_OK;
    if (json_typeof(list) != JSON_ARRAY)
        return unsupported(where, "normalizer", v, "NFC, a Sequence of it, or null", st);
    for (const struct json_value *part = json_first(list); part; part = json_next(part), p->no_nfc = false)
        if (!has_type(part, "NFC"))
            return unsupported(where, "a normalizer of the Sequence", part, "NFC", st);
    return PLM_OK;
}

static int check_pre_tokenizer(const struct json_value *v, const char *where, struct plm_status *st)
{
    const struct json_value *list = json_get(v, "pretokenizers");
    const struct json_value *split = list ? json_first(list) : NULL, *bytes = split ? json_next(split) : NULL;
    bool use_regex, prefix;
    if (!has_type(v, "Sequence") || !bytes || json_next(bytes))
        return unsupported(where, "pre_tokenizer", v, "a Sequence of Split and ByteLevel", st);
    if (!has_type(split, "Split") || !json_is_text(json_get(split, "behavior"), "Isolated") ||
        !is_bool_or_absent(json_get(split, "invert"), false) ||
        !json_is_text(json_get(json_get(split, "pattern"), "Regex"), SPLITTER_PATTERN))
        return unsupported(where, "pre_tokenizer.pretokenizers[0]", split, "an Isolated Split by the pattern of Qwen2",
                           st);
    if (!has_type(bytes, "ByteLevel") || !json_as_bool(json_get(bytes, "add_prefix_space"), &prefix) || prefix ||
        !json_as_bool(json_get(bytes, "use_regex"), &use_regex) || use_regex)
        return unsupported(where, "pre_tokenizer.pretokenizers[1]", bytes,
                           "ByteLevel with add_prefix_space false and use_regex false", st);
    return PLM_OK;
}

/* --- post-processors: what is put around a text --- */

static int set_mark(int32_t *mark, bool *add, int64_t id, const char *where, const char *side, struct plm_status *st)
{
    if (*add)
        return status_set(st, PLM_EUNSUPPORTED,
                          "%s: post_processor puts more than one token %s a text; one is supported", where, side);
    if (id < 0 || id > INT32_MAX)
        return status_set(st, PLM_EFORMAT, "%s: post_processor has a token with the id %lld", where, (long long)id);
    *mark = (int32_t)id;
    *add = true;
    return PLM_OK;
}

/* The id of special token `name`: of one token. */
static int template_id(const struct json_value *post, const struct json_value *name, const char *where, int64_t *id,
                       struct plm_status *st)
{
    size_t n;
    const char *text = json_as_string(name, &n);
    const struct json_value *ids = text ? json_get(json_get(json_get(post, "special_tokens"), text), "ids") : NULL;
    if (json_typeof(ids) == JSON_ARRAY && json_count(ids) == 1 && json_as_integer(json_first(ids), id))
        return PLM_OK;
    return status_set(st, PLM_EUNSUPPORTED, "%s: post_processor: special_tokens has no single id for '%.80s'", where,
                      text ? text : "");
}

/* TemplateProcessing: at most one token before the text, and one behind it. */
static int read_template(const struct json_value *post, const char *where, struct tokenizer_marks *m,
                         struct plm_status *st)
{
    const struct json_value *single = json_get(post, "single");
    bool seen = false;
    int code = json_typeof(single) == JSON_ARRAY
                   ? PLM_OK
                   : unsupported(where, "post_processor.single", single, "a list of pieces", st);
    for (const struct json_value *v = code ? NULL : json_first(single); v && !code; v = json_next(v)) {
        const struct json_value *special = json_get(v, "SpecialToken"), *text = json_get(v, "Sequence");
        int64_t id = -1;
        if (text && !seen && json_is_text(json_get(text, "id"), "A")) {
            seen = true;
        } else if (special) {
            code = template_id(post, json_get(special, "id"), where, &id, st);
            if (!code)
                code = seen ? set_mark(&m->eos, &m->add_eos, id, where, "behind", st)
                            : set_mark(&m->bos, &m->add_bos, id, where, "before", st);
        } else {
            code = unsupported(where, "post_processor.single", v, "the text A once, and special tokens around it", st);
        }
    }
    return !code && !seen ? unsupported(where, "post_processor.single", single, "the text A once", st) : code;
}

/* BertProcessing, RobertaProcessing: "cls" before, "sep" behind; each [text, id]. */
static int read_pair(const struct json_value *post, const char *where, struct tokenizer_marks *m, struct plm_status *st)
{
    const struct json_value *cls = json_get(post, "cls"), *sep = json_get(post, "sep");
    int64_t begin, end;
    if (json_typeof(cls) != JSON_ARRAY || json_count(cls) != 2 ||
        !json_as_integer(json_next(json_first(cls)), &begin) || json_typeof(sep) != JSON_ARRAY ||
        json_count(sep) != 2 || !json_as_integer(json_next(json_first(sep)), &end))
        return unsupported(where, "post_processor", post, "cls and sep, each a text and an id", st);
    int code = set_mark(&m->bos, &m->add_bos, begin, where, "before", st);
    return code ? code : set_mark(&m->eos, &m->add_eos, end, where, "behind", st);
}

static int read_post_processor(const struct json_value *post, const char *where, struct tokenizer_marks *m,
                               struct plm_status *st)
{
    if (json_is_absent(post) || has_type(post, "ByteLevel")) /* of ByteLevel only offsets depend on it */
        return PLM_OK;
    if (has_type(post, "TemplateProcessing"))
        return read_template(post, where, m, st);
    if (has_type(post, "BertProcessing") || has_type(post, "RobertaProcessing"))
        return read_pair(post, where, m, st);
    const struct json_value *list = has_type(post, "Sequence") ? json_get(post, "processors") : NULL;
    if (json_typeof(list) != JSON_ARRAY)
        return unsupported(where, "post_processor", post, "ByteLevel, TemplateProcessing, a Sequence of them, or null",
                           st);
    int code = PLM_OK;
    for (const struct json_value *v = json_first(list); v && !code; v = json_next(v))
        code = has_type(v, "Sequence")
                   ? unsupported(where, "a post_processor of the Sequence", v, "no Sequence in it", st)
                   : read_post_processor(v, where, m, st);
    return code;
}

/* --- the model --- */

static int read_model(const struct json_value *model, const char *where, struct tokenizer_pipeline *p,
                      struct plm_status *st)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const struct json_value *ignore = json_get(model, "ignore_merges");
    double dropout;
    if (json_typeof(model) != JSON_OBJECT || (!json_is_absent(json_get(model, "type")) && !has_type(model, "BPE")))
        return unsupported(where, "model", model, "type BPE", st);
    if (!json_is_absent(json_get(model, "dropout")) &&
        !(json_as_number(json_get(model, "dropout"), &dropout) && dropout == 0))
        return status_set(st, PLM_EUNSUPPORTED, "%s: model.dropout makes tokens random; expected null or 0", where);
    for (int i = 0; i < 2; i++)
        if (!is_empty_or_absent(json_get(model, affixes[i])))
            return status_set(st, PLM_EUNSUPPORTED, "%s: model.%s is not implemented; expected null or \"\"", where,
                              affixes[i]);
    if (!json_is_absent(ignore) && !json_as_bool(ignore, &p->ignore_merges))
        return status_set(st, PLM_EFORMAT, "%s: model.ignore_merges is neither true nor false", where);
    /* unk_token, fuse_unk and byte_fallback are about characters without a token: a byte-level vocabulary has none. */
    return PLM_OK;
}

static int check_decoder(const struct json_value *v, const char *where, struct plm_status *st)
{
    const struct json_value *list = has_type(v, "Sequence") ? json_get(v, "decoders") : NULL,
                            *first = list ? json_first(list) : NULL;
    if (json_is_absent(v))
        log_info("%s: no decoder; tokens become text as ByteLevel does it", where);
    if (json_is_absent(v) || has_type(v, "ByteLevel") || (has_type(first, "ByteLevel") && !json_next(first)))
        return PLM_OK;
    return unsupported(where, "decoder", v, "ByteLevel", st);
}

int tokenizer_json_pipeline(const struct json_value *root, const char *where, struct tokenizer_pipeline *pipeline,
                            struct tokenizer_marks *marks, struct plm_status *st)
{
    *pipeline = (struct tokenizer_pipeline){0};
    *marks = (struct tokenizer_marks){-1, -1, false, false};
    int code = read_normalizer(json_get(root, "normalizer"), where, pipeline, st);
    if (!code)
        code = check_pre_tokenizer(json_get(root, "pre_tokenizer"), where, st);
    if (!code)
        code = check_decoder(json_get(root, "decoder"), where, st);
    if (!code)
        code = read_post_processor(json_get(root, "post_processor"), where, marks, st);
    if (!code)
        code = read_model(json_get(root, "model"), where, pipeline, st);
    const bool truncates = !json_is_absent(json_get(root, "truncation")),
               pads = !json_is_absent(json_get(root, "padding"));
    if (!code && (truncates || pads))
        log_info("%s: %s%s%s of an earlier call, saved with the tokenizer, is not applied", where,
                 truncates ? "truncation" : "", truncates && pads ? " and " : "", pads ? "padding" : "");
    return code;
}
