/* The tokens that end a text of a model: what its files declare, whatever they are spelled.
 *
 * A directory declares them by eos_token_id of config.json and of generation_config.json (a number or a list), or else
 * by eos_token of tokenizer_config.json; a GGUF file by tokenizer.ggml.eos_token_id, eot_token_id and eom_token_id and,
 * as llama.cpp takes them, by special tokens with the spellings of well-known models. What a chat template of its own
 * ends a turn with is one of them. Where nothing is declared, those spellings decide. */
#ifndef INFER_MODEL_END_TOKENS_H
#define INFER_MODEL_END_TOKENS_H

#include "infer/format/gguf.h"
#include "infer/text/tokenizer.h"

/* Exactly this set, where a GGUF file has it: an array of ids. */
#define END_TOKENS_KEY "plm.end_token_ids"

struct end_tokens {
    int32_t *ids; /* (n), each once, in the order of their declaration; free(ids) */
    int n;
};

/* Read what `dir` (NULL: only what t knows), or an open GGUF file, declares. t (NULL: none) is told its marks
 * (tokenizer_set_marks) from the same files: what a tokenizer_config.json said already stays. PLM_EFORMAT: what is
 * declared is no id, or not below vocab_size. */
int end_tokens_read_directory(struct end_tokens *e, struct tokenizer *t, int vocab_size, const char *dir,
                              struct plm_status *st);
int end_tokens_read_gguf(struct end_tokens *e, struct tokenizer *t, int vocab_size, const struct gguf *g,
                         struct plm_status *st);

bool end_tokens_has(const struct end_tokens *e, int32_t id);
/* Add an id that is not there yet; a negative one is none. */
int end_tokens_add(struct end_tokens *e, int32_t id, struct plm_status *st);

/* A copy with one more: the end of a turn in the chat template that is used. */
int end_tokens_with(struct end_tokens *out, const struct end_tokens *e, int32_t turn_end, struct plm_status *st);

/* As generation_config.json: {"bos_token_id": ..., "eos_token_id": [...]}, malloc'ed; and what tokenizer_config.json
 * says about the same. NULL when out of memory. */
char *end_tokens_generation_config(const struct end_tokens *e, const struct tokenizer *t);
char *end_tokens_tokenizer_config(const struct tokenizer *t);

#endif
