#include "train/model_card.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/model/templates.h"
#include "train/chat_jinja.h"

#define TOKENIZER_LIMIT ((size_t)256 << 20)

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

/* An optional file of a directory: *text stays NULL when it is not there. */
static int read_optional(char **text, size_t *length, const char *dir, const char *name, size_t limit, struct plm_status *st)
{
    char path[PATH_MAX];
    *text = NULL;
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return status_set(st, PLM_EINVAL, "path too long: '%s/%s'", dir, name);
    return access(path, F_OK) == 0 ? file_read_text(text, length, path, limit, st) : PLM_OK;
}

static int read_gguf(struct model_card *card, const struct plm_model *m, struct plm_status *st)
{
    static const char eot_key[] = "tokenizer.ggml.eot_token_id";
    uint64_t eot = 0;
    card->tokenizer = tokenizer_to_json(m->tokenizer, &card->tokenizer_bytes);
    int code = card->tokenizer ? PLM_OK : status_no_memory(st, 0, "tokenizer.json");
    if (!code && gguf_has(m->gguf, eot_key)) {
        code = gguf_get_u64(m->gguf, eot_key, &eot, st); /* below vocab_size, or the model had not opened */
        card->turn_end = (int32_t)eot;
    }
    return code;
}

int model_card_read(struct model_card *card, const struct plm_model *m, const char *path, struct plm_status *st)
{
    *card = (struct model_card){.eos = -1, .turn_end = -1};
    if (!m->tokenizer)
        return PLM_OK;
    card->eos = plm_token_eos(m);
    card->turn_end = tokenizer_special_id(m->tokenizer, "<|im_end|>");
    int code = m->gguf ? read_gguf(card, m, st)
                       : read_optional(&card->tokenizer, &card->tokenizer_bytes, path, "tokenizer.json", TOKENIZER_LIMIT, st);
    const bool chatml = card->turn_end >= 0 && tokenizer_special_id(m->tokenizer, "<|im_start|>") >= 0;
    if (!code && (m->chat_template || m->brought.text || (chatml && !m->brought.problem)))
        code = set_template(card, m, st);
    if (code)
        model_card_free(card);
    return code;
}

int model_card_ends(struct end_tokens *out, const struct model_card *card, const struct plm_model *m, struct plm_status *st)
{
    return end_tokens_with(out, &m->ends, end_tokens_has(&m->ends, card->turn_end) ? card->turn_end : -1, st);
}

void model_card_free(struct model_card *card)
{
    free(card->tokenizer);
    free(card->chat_template);
    *card = (struct model_card){.eos = -1, .turn_end = -1};
}
