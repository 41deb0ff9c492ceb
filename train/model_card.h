/* What a model's files say besides hyper-parameters and weights: kept when a model is exported or imported. */
#ifndef TRAIN_MODEL_CARD_H
#define TRAIN_MODEL_CARD_H

#include "infer/model/model.h"

struct model_card {
    char *tokenizer; /* text of tokenizer.json; NULL without a tokenizer */
    size_t tokenizer_bytes;
    char *chat_template; /* Jinja, as other programs read it: of the template the model was trained on
                          * (infer/model/templates.h); else what its files have, as it is; else PLM's own (plm.md 3.3)
                          * when the tokenizer has its special tokens; NULL: none */
    int32_t eos;         /* the token that ends a text; -1: none */
    int32_t turn_end;    /* ends a turn of a chat: what the model's own template says, or "<|im_end|>"; -1: none */
};

/* `path`: what m was opened from. A directory's tokenizer.json is taken as it is, and tokenizer_config.json
 * (chat_template) where it exists; of a GGUF file tokenizer.chat_template and eot_token_id. */
int model_card_read(struct model_card *card, const struct plm_model *m, const char *path, struct plm_status *st);
/* The tokens that end a text of the model, the end of a turn first: free(ids). */
int model_card_ends(struct end_tokens *out, const struct model_card *card, const struct plm_model *m,
                    struct plm_status *st);
void model_card_free(struct model_card *card);

#endif
