/* Training a byte-level BPE vocabulary (data.md 1.7).
 *
 * Count the distinct pre-tokens of the text, then join the most frequent pair of neighbouring tokens again and again.
 * Ties go to the lower pair (left id, then right id). The result is a function of the documents and their order alone: not
 * of the number of threads, the machine or the hash tables. Without a bound on memory being reached it is the vocabulary of
 * Hugging Face's BpeTrainer.
 *
 * Ids: the 256 bytes in the order of their GPT-2 printable characters (Hugging Face's sorted initial alphabet: '!' is 0),
 * then the merged tokens in the order they were made, then the special tokens. */
#ifndef DATA_TOKENIZER_TRAIN_H
#define DATA_TOKENIZER_TRAIN_H

#include <stddef.h>
#include <stdint.h>

#include "infer/base/threads.h"
#include "infer/text/tokenizer.h"

struct tokenizer_train_options {
    int32_t vocab_size;          /* 256 bytes, merged and special tokens together */
    int32_t max_token_length;    /* bytes of a merged token; 0: no limit */
    int64_t min_count;           /* stop when the most frequent pair occurs less often; 0: 2 */
    size_t word_memory;          /* bytes for the table of distinct pre-tokens; 0: 256 MiB. Merging takes up to five times
                                  * as much. When the table outgrows it, the rarest words go until half is free. */
    const char *const *specials; /* (n_specials); NULL: <|endoftext|>, <|im_start|>, <|im_end|> */
    int n_specials;
    struct thread_pool *pool;    /* NULL: the calling thread */
};

struct tokenizer_train_statistics {
    int64_t documents, bytes;  /* fed */
    int64_t words;             /* pre-tokens counted */
    int64_t distinct_words;    /* in the table at the end */
    int64_t long_words;        /* pre-tokens above TOKENIZER_TRAIN_MAX_WORD bytes, which are not counted */
    int64_t dropped_words;     /* distinct words dropped to stay within word_memory (one word may count twice) */
    int64_t dropped_count;     /* how often they had occurred */
    int32_t merges;            /* can exceed the merged tokens: two pairs may make the same token */
    int32_t vocab_size;        /* reached */
};

#define TOKENIZER_TRAIN_MAX_WORD 1024 /* bytes: longer pre-tokens are data, not words */

struct tokenizer_trainer;

int tokenizer_trainer_create(struct tokenizer_trainer **out, const struct tokenizer_train_options *options,
                             struct plm_status *st);
void tokenizer_trainer_free(struct tokenizer_trainer *trainer);

/* Count one document; any bytes, copied when needed. PLM_ENOMEM. */
int tokenizer_trainer_feed(struct tokenizer_trainer *trainer, const char *text, size_t length, struct plm_status *st);

/* Merge and make the tokenizer, once. With too little text for vocab_size merges the vocabulary is smaller, and a warning is
 * logged. PLM_EINVAL when nothing was fed. */
int tokenizer_trainer_finish(struct tokenizer_trainer *trainer, struct tokenizer **out, struct plm_status *st);

/* Valid until tokenizer_trainer_free; complete after tokenizer_trainer_finish. */
const struct tokenizer_train_statistics *tokenizer_trainer_statistics(const struct tokenizer_trainer *trainer);

#endif
