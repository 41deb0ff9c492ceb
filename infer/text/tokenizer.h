/* Byte-level BPE (plm.md 3, data.md 1.7): NFC, the Qwen2 split pattern, merges by rank, special tokens. */
#ifndef INFER_TEXT_TOKENIZER_H
#define INFER_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "infer/base/status.h"

struct tokenizer; /* read-only after construction, may be shared by threads */

/* Traits of a token that is found in the text itself, before anything is merged, as Hugging Face's AddedToken has them.
 * 0: special, found only where special tokens are parsed, left out of decoded text. */
enum {
    ADDED_PLAIN = 1,        /* part of the text: always found, and decoded */
    ADDED_NORMALIZED = 2,   /* found in normalised text, its own text normalised as well; otherwise in the text as it is
                               given, before that */
    ADDED_LSTRIP = 4,       /* white space before it goes into it, */
    ADDED_RSTRIP = 8,       /* and behind it */
    ADDED_SINGLE_WORD = 16, /* only where neither side is a character of a word */
};

struct special_token {
    const char *text;
    int32_t id;
    unsigned traits; /* ADDED_* */
};

/* Kinds of tokens, numbered as in GGUF files. */
enum tokenizer_kind {
    TOKEN_NONE,
    TOKEN_NORMAL,
    TOKEN_UNKNOWN,
    TOKEN_CONTROL,
    TOKEN_USER_DEFINED,
    TOKEN_UNUSED,
    TOKEN_BYTE
};

/* What else decides how text becomes tokens; all zero is the usual. */
struct tokenizer_pipeline {
    bool no_nfc;        /* text is not normalised */
    bool ignore_merges; /* a pre-token that is in the vocabulary is that token, whatever merges make of it */
};

/* From the pieces every file format has. token_bytes/token_length: the raw bytes of token i (not the GPT-2 printable
 * form), for i < n_tokens; a special token's bytes are its text. merges: n_merges pairs (left id, right id), by rank;
 * the merged token is the one whose bytes are the concatenation. Checks: 256 byte tokens present, merges refer to
 * existing tokens, unique bytes among ordinary tokens. An added token that token_bytes has too, with the same bytes, is
 * made by merges as well. Copies what it needs. */
int tokenizer_create(struct tokenizer **out, const char *const *token_bytes, const size_t *token_length, int32_t n_tokens,
                     const int32_t (*merges)[2], int32_t n_merges, const struct special_token *specials, int n_specials,
                     struct plm_status *st);
void tokenizer_free(struct tokenizer *t);

/* tokenizer.json in the Hugging Face layout (NFC normaliser, Qwen2 Split + ByteLevel, BPE model with merges as "a b" or
 * ["a","b"], added_tokens). A pipeline this splitter does not implement is PLM_EUNSUPPORTED and says which part. */
int tokenizer_from_json(struct tokenizer **out, const char *text, size_t length, const char *where, struct plm_status *st);
/* The same from a file, or from the tokenizer.json of a directory, with the tokenizer_config.json beside it. */
int tokenizer_open(struct tokenizer **out, const char *path, struct plm_status *st);
/* Loadable by Hugging Face tokenizers. malloc'ed; the caller frees. NULL when out of memory. */
char *tokenizer_to_json(const struct tokenizer *t, size_t *length);

int tokenizer_set_pipeline(struct tokenizer *t, const struct tokenizer_pipeline *pipeline, struct plm_status *st);
const struct tokenizer_pipeline *tokenizer_pipeline(const struct tokenizer *t);

/* TOKEN_NONE for an id that no token has. Set: a special token may be called UNKNOWN, an ordinary one BYTE; nothing
 * else depends on it, but files that are written say so. */
enum tokenizer_kind tokenizer_kind(const struct tokenizer *t, int32_t id);
void tokenizer_set_kind(struct tokenizer *t, int32_t id, enum tokenizer_kind kind);
/* ADDED_* of an added token, 0 for others. */
unsigned tokenizer_traits(const struct tokenizer *t, int32_t id);
/* An id without a token, but with a text that files keep beside it (TOKEN_UNUSED): set, in the order of ids, and get;
 * NULL: none. */
int tokenizer_set_unused(struct tokenizer *t, int32_t id, const char *text, size_t length, struct plm_status *st);
const char *tokenizer_unused(const struct tokenizer *t, int32_t id, size_t *length);

int32_t tokenizer_vocab_size(const struct tokenizer *t); /* highest id + 1 */
int32_t tokenizer_n_merges(const struct tokenizer *t);
void tokenizer_merge(const struct tokenizer *t, int32_t rank, int32_t *left, int32_t *right);
/* Raw bytes of a token; NULL and 0 for an id that no token has. *special may be NULL. */
const char *tokenizer_token(const struct tokenizer *t, int32_t id, size_t *length, bool *special);
int32_t tokenizer_special_id(const struct tokenizer *t, const char *text); /* -1 when there is none */
int32_t tokenizer_find(const struct tokenizer *t, const char *text,
                       size_t length); /* any token with these bytes; -1: none */

/* What a tokenizer's files say about the two ends of a text. */
struct tokenizer_marks {
    int32_t bos, eos;      /* -1: not said */
    bool add_bos, add_eos; /* every whole text begins with bos, ends with eos */
};

const struct tokenizer_marks *tokenizer_marks(const struct tokenizer *t);
/* `where` names their source in messages. PLM_EFORMAT: an id is outside the vocabulary, or a token is to be added that
 * is not known. */
int tokenizer_set_marks(struct tokenizer *t, const struct tokenizer_marks *marks, const char *where,
                        struct plm_status *st);

/* Take bos_token, eos_token, add_bos_token and add_eos_token from the tokenizer_config.json beside `path`, a
 * tokenizer.json; nothing when there is no such file. They go before what tokenizer.json says. */
int tokenizer_read_config(struct tokenizer *t, const char *path, struct plm_status *st);

/* The token that ends a text (a document, not a turn of a chat): the one that was declared, else an added token with
 * one of the usual spellings, "<|endoftext|>" first; -1: none. */
int32_t tokenizer_eos(const struct tokenizer *t);
/* The printable GPT-2 form of a token's raw bytes (byte <-> unicode table), as vocab files hold it. Returns the length;
 * writes at most capacity bytes, no NUL. And back: returns the number of raw bytes, or -1 for a character that is not in the
 * table. */
size_t tokenizer_printable(const char *bytes, size_t length, char *out, size_t capacity);
ptrdiff_t tokenizer_unprintable(const char *text, size_t length, char *out, size_t capacity);

/* Growable list of ids; start with {0}, free(ids.data). */
struct token_list {
    int32_t *data;
    size_t length, capacity;
};

/* Scratch memory of one encoding thread: word cache and buffers. */
struct encoder;
int encoder_create(struct encoder **out, const struct tokenizer *t, struct plm_status *st);
void encoder_free(struct encoder *e);

/* Append the ids of `text` to *ids. Linear time in `length` for any input. Added tokens are found as Hugging Face finds
 * them: at the leftmost place the longest, first those that are not normalised, then in the normalised pieces between
 * them the others. NFC is applied to valid UTF-8; bytes that are not UTF-8 pass through and are encoded byte by byte.
 */
int encoder_encode(struct encoder *e, const char *text, size_t length, bool parse_special, struct token_list *ids,
                   struct plm_status *st);

/* A whole text, as a prompt or a document: what encoder_encode gives, with the tokens around it that the tokenizer asks
 * for (tokenizer_marks). A beginning that is parsed from the text, or that is in the list already, is not doubled. */
int encoder_encode_whole(struct encoder *e, const char *text, size_t length, bool parse_special, struct token_list *ids,
                         struct plm_status *st);
/* The first half of it: append the beginning of a text, where there is one to be added and the list is empty. A
 * rendered chat begins so. */
int encoder_begin(struct encoder *e, struct token_list *ids, struct plm_status *st);

/* Ids back to bytes, appended to a malloc'ed, NUL-terminated buffer. An unknown id is PLM_EINVAL with its index. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool with_special, char **out, size_t *length,
                     struct plm_status *st);

#endif
