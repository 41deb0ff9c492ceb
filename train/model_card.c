#include "train/model_card.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/model/templates.h"
#include "train/chat_jinja.h"

#define TOKENIZER_LIMIT ((size_t)256 << 20)
#define CONFIG_LIMIT ((size_t)16 << 20)

/* The template the model was trained on here, or the one it brought (verbatim, whether it can be used here or not), or ChatML. */
static int set_template(struct model_card *card, const struct plm_model *m, struct plm_status *st)
{
    struct chat_template *t = NULL;
    const bool brought = !m->chat_template && m->brought.text;
    int32_t end;
    int code = model_chat_template(&t, m, NULL, st);
    if (brought) {
        card->chat_template = strdup(m->brought.text);
        code = card->chat_template ? PLM_OK : status_no_memory(st, m->brought.bytes, "the chat template");
    } else if (!code) {
        code = chat_template_jinja(&card->chat_template, t, st);
    }
    if (!code && t && chat_template_end(t, m->tokenizer, &end, NULL) == PLM_OK)
        card->turn_end = end;
    chat_template_free(t);
    return code;
}

/* The id of a special token given by its text; an unknown one changes nothing. */
static void set_eos(struct model_card *card, const struct plm_model *m, const char *text)
{
    const int32_t id = text ? tokenizer_special_id(m->tokenizer, text) : -1;
    if (id >= 0)
        card->eos = id;
}

/* An optional file of a directory: *text stays NULL when it is not there. */
static int read_optional(char **text, size_t *length, const char *dir, const char *name, size_t limit, struct plm_status *st)
{
    char path[PATH_MAX];
    *text = NULL;
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return status_set(st, PLM_EINVAL, "path too long: '%s/%s'", dir, name);
    return access(path, F_OK) == 0 ? file_read_text(text, length, path, limit, st) : PLM_OK;
}

static int read_tokenizer_config(struct model_card *card, const struct plm_model *m, const char *dir, struct plm_status *st)
{
    char *text;
    size_t length;
    int code = read_optional(&text, &length, dir, "tokenizer_config.json", CONFIG_LIMIT, st);
    if (code || !text)
        return code;
    json_error_t error;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (!json_is_object(root)) {
        json_decref(root);
        return status_set(st, PLM_EFORMAT, "'%s/tokenizer_config.json': line %d: %s", dir, error.line, root ? "expected an object" : error.text);
    }
    const json_t *eos = json_object_get(root, "eos_token");
    set_eos(card, m, json_string_value(json_is_object(eos) ? json_object_get(eos, "content") : eos));
    json_decref(root);
    return code;
}

static int read_directory(struct model_card *card, const struct plm_model *m, const char *dir, struct plm_status *st)
{
    int code = read_optional(&card->tokenizer, &card->tokenizer_bytes, dir, "tokenizer.json", TOKENIZER_LIMIT, st);
    if (!code)
        code = read_tokenizer_config(card, m, dir, st);
    return code;
}

static int read_gguf(struct model_card *card, const struct plm_model *m, struct plm_status *st)
{
    static const char eos_key[] = "tokenizer.ggml.eos_token_id";
    uint64_t eos = 0;
    int code = PLM_OK;
    card->tokenizer = tokenizer_to_json(m->tokenizer, &card->tokenizer_bytes);
    if (!card->tokenizer)
        code = status_no_memory(st, 0, "tokenizer.json");
    if (!code && gguf_has(m->gguf, eos_key)) {
        code = gguf_get_u64(m->gguf, eos_key, &eos, st);
        if (!code && eos >= (uint64_t)m->config.vocab_size)
            code = status_set(st, PLM_EFORMAT, "%s is %llu, beyond the vocabulary of %d", eos_key, (unsigned long long)eos, m->config.vocab_size);
        card->eos = (int32_t)eos;
    }
    return code;
}

int model_card_read(struct model_card *card, const struct plm_model *m, const char *path, struct plm_status *st)
{
    *card = (struct model_card){.eos = -1, .turn_end = -1};
    if (!m->tokenizer)
        return PLM_OK;
    card->eos = tokenizer_eos(m->tokenizer);
    card->turn_end = tokenizer_special_id(m->tokenizer, "<|im_end|>");
    int code = m->gguf ? read_gguf(card, m, st) : read_directory(card, m, path, st);
    const bool chatml = card->turn_end >= 0 && tokenizer_special_id(m->tokenizer, "<|im_start|>") >= 0;
    if (!code && (m->chat_template || m->brought.text || (chatml && !m->brought.problem)))
        code = set_template(card, m, st);
    if (code)
        model_card_free(card);
    return code;
}

void model_card_free(struct model_card *card)
{
    free(card->tokenizer);
    free(card->chat_template);
    *card = (struct model_card){.eos = -1, .turn_end = -1};
}
