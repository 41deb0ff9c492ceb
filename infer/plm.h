/* plm.h: run a Peripheral Language Model from C. The only header an embedding application includes.
 *
 *     struct plm_status st = {0};
 *     struct plm_model *model;
 *     if (plm_model_open(&model, "model.gguf", &st))
 *         return fprintf(stderr, "%s\n", st.message), 1;
 *
 * Every function that can fail returns PLM_OK (0) or a code of enum plm_code and writes a message into *st, which may be
 * NULL. Nothing here ends the process, keeps global state or prints. A model may be shared by threads; a session may not. */
#ifndef PLM_H
#define PLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum plm_code {
    PLM_OK = 0,
    PLM_EINVAL,       /* an argument or a setting is wrong */
    PLM_EIO,          /* the operating system refused to read or write */
    PLM_ENOMEM,       /* an allocation failed */
    PLM_EFORMAT,      /* a file is truncated, corrupt or not what it says it is */
    PLM_EUNSUPPORTED, /* well-formed, but this build cannot do it */
    PLM_ELIMIT,       /* a stated limit (context length, vocabulary) would be exceeded */
    PLM_ESTOPPED,     /* stopped on request (signal, callback) */
    PLM_ECOMM,        /* another process of the job failed */
    PLM_EINTERNAL,    /* a bug in plm.c */
};

struct plm_status {
    enum plm_code code;
    char message[1024]; /* one line, no newline: what, where, what was expected, what to do */
};

/* A short name for a code, e.g. "malformed file". */
const char *plm_code_name(int code);

struct plm_model;   /* weights and tokenizer, read-only after opening */
struct plm_session; /* one sequence: its latent cache, its buffers, its threads */

/* Open a GGUF file, or a directory with config.json, model.safetensors and (optionally) tokenizer.json: a Hugging Face
 * directory or a plm.c checkpoint. Weights are mapped, not copied. Free with plm_model_close. */
int plm_model_open(struct plm_model **out, const char *path, struct plm_status *st);
void plm_model_close(struct plm_model *model);

int plm_model_vocab_size(const struct plm_model *model);     /* rows of the embedding, V */
int plm_model_context_length(const struct plm_model *model); /* positions the model was trained for */

/* A whole text, such as a prompt, to token ids: with the tokens that the model's files put around every text
 * (add_bos_token, add_eos_token), once. At most `capacity` ids are written to `tokens`; *n_tokens receives how many there are (more than
 * capacity: PLM_ELIMIT, call again with room). parse_special: text such as "<|im_end|>" becomes the special token.
 * Text that is not UTF-8 is tokenised byte by byte. Fails with PLM_EUNSUPPORTED when the model came without a tokenizer. */
int plm_tokenize(const struct plm_model *model, const char *text, size_t text_bytes, bool parse_special,
                 int32_t *tokens, size_t capacity, size_t *n_tokens, struct plm_status *st);

/* The same for a part of a text: nothing is put around it. */
int plm_tokenize_piece(const struct plm_model *model, const char *text, size_t text_bytes, bool parse_special,
                       int32_t *tokens, size_t capacity, size_t *n_tokens, struct plm_status *st);

/* One token's bytes, which may be part of a UTF-8 sequence. Returns their number (0 for a special token unless
 * `special`), and points *bytes at memory owned by the model. A token outside the vocabulary gives 0 bytes. */
size_t plm_token_bytes(const struct plm_model *model, int32_t token, bool special, const char **bytes);

/* Whether generation ends with this token; all such tokens (*n, owned by the model). They are what the model's files
 * declare: eos_token_id of config.json and generation_config.json, eos, eot and eom of a GGUF file, the end of a turn of
 * the model's chat template. */
bool plm_token_ends(const struct plm_model *model, int32_t token);
const int32_t *plm_end_tokens(const struct plm_model *model, size_t *n);

/* The token that ends a document, and the one that begins every text; -1: none. */
int32_t plm_token_eos(const struct plm_model *model);
int32_t plm_token_bos(const struct plm_model *model);

struct plm_session_options {
    int context;              /* positions the cache can hold; 0: plm_model_context_length. With a cache policy only the prompt is bound by it */
    int n_threads;            /* 0: one per processor */
    const char *cache_type;   /* "f32" (NULL: this), "f16" or "q8_0" */
    const char *cache_policy; /* "full" (NULL: this), or one that keeps a budget of slots per layer and drops or merges the rest: "streaming"
                               * (first and recent tokens), "h2o" (and those most attended to), "d2o" (evicted ones are merged into
                               * their neighbours, arXiv 2406.13035), "d2o+count" (merged slots count as many tokens as they stand for) */
    int cache_budget;         /* slots per layer, on average; 0: */
    double cache_share;       /* this share of the first tokens appended, in (0, 1] */
    int cache_batch;          /* compress only when so many slots are beyond the budget; 0: 1. More is cheaper and takes more slots */
    bool dense;               /* do without a copy of ffn_down stored by neurons: about a quarter less memory, but every token reads
                               * all neurons, also those that are zero */
    int lookup;               /* longest draft, up to 64 tokens, see plm_session_append_drafted; 0: no drafts. Not with a cache policy */
};

/* options NULL: defaults. Free with plm_session_close before the model is closed. */
int plm_session_open(struct plm_session **out, const struct plm_model *model, const struct plm_session_options *options,
                     struct plm_status *st);
void plm_session_close(struct plm_session *session);

/* Append n tokens to the sequence. n = 1 decodes (absorbed attention over the latent cache, plm.md 1.4); n > 1 prefills
 * (expanded attention, 1.3). On success plm_session_logits holds the logits that follow the last of them. On an error
 * the sequence is as it was. */
int plm_session_append(struct plm_session *session, const int32_t *tokens, size_t n, struct plm_status *st);

struct plm_sampling;

/* plm_session_append of one token, and with it of as many of those that plm_session_sample would pick next as a draft foretells:
 * what followed the last tokens where they occurred before (prompt lookup), verified in batches of up to 4. The text is that of append
 * and sample in turn, sooner where text repeats. next (capacity) receives the *n drafted tokens that are in the sequence now. */
int plm_session_append_drafted(struct plm_session *session, int32_t token, const struct plm_sampling *sampling, int32_t *next, size_t capacity,
                               size_t *n, struct plm_status *st);

/* Tokens drafted so far, and those of them that were right. */
void plm_session_drafts(const struct plm_session *session, int64_t *drafted, int64_t *accepted);

/* The last *n tokens of the sequence, owned by the session: all of them, until a session with a cache policy has gone beyond its context. */
const int32_t *plm_session_tokens(const struct plm_session *session, size_t *n);

/* The sequence and its cache in a file, and back. A file of another model, cache type or policy is refused with PLM_EINVAL, a damaged
 * one with PLM_EFORMAT, and the session is as it was. Loading drops the logits: append a token, or cut one off and append it again. */
int plm_session_save(const struct plm_session *session, const char *path, struct plm_status *st);
int plm_session_load(struct plm_session *session, const char *path, struct plm_status *st);

/* Logits (V) of the next token, owned by the session, valid until the next append; NULL before the first. */
const float *plm_session_logits(const struct plm_session *session);

/* Tokens in the sequence; cut it back to its first n tokens (n = 0: start anew). Cutting drops the logits. With a cache policy only
 * n = 0 is possible: PLM_EUNSUPPORTED otherwise. */
size_t plm_session_length(const struct plm_session *session);
int plm_session_truncate(struct plm_session *session, size_t n, struct plm_status *st);

struct plm_sampling {
    float temperature;        /* 0: greedy */
    int top_k;                /* keep the k likeliest; 0: all */
    float top_p;              /* keep the smallest set with this probability; 1: all */
    float min_p;              /* drop tokens below min_p times the likeliest's probability; 0: none */
    float repetition_penalty; /* divide (positive) or multiply (negative) logits of recent tokens; 1: off */
    int repetition_window;    /* how many recent tokens that looks back on; 0: all */
    uint64_t seed;            /* same seed, same model, same prompt: same text */
};

/* temperature 0.8, top_p 0.95, nothing else. */
struct plm_sampling plm_sampling_default(void);

/* Pick a token from the session's logits. Order: repetition penalty, temperature, top-k, top-p, min-p, draw; the draw is
 * a pure function of (seed, position in the sequence). */
int plm_session_sample(struct plm_session *session, const struct plm_sampling *sampling, int32_t *token,
                       struct plm_status *st);

/* A message of a conversation; role: "system", "user" or "assistant". */
struct plm_message {
    const char *role, *content;
};

struct plm_answer_options {
    int refinements;             /* K: the answer is refined so many times, each time from the one before, by the model itself (ARIES) */
    int parallel;                /* so many answers side by side, each refined; 0: 1. The one most agree with is given: the same last number or, without
                                  * numbers, the same text; where votes are equal, the likeliest */
    int max_tokens;              /* of each answer; 0: 512 */
    int context, n_threads;      /* as of a session */
    const char *chat_template;   /* a file (Jinja or JSON); NULL: the one the model came with, or else ChatML. One that it
                                  * came with and that is beyond the Jinja known here is PLM_EUNSUPPORTED, never replaced */
    const char *refine_template; /* a file; NULL: the one the model was trained with, or else the built-in one */
    const struct plm_sampling *sampling; /* NULL: plm_sampling_default() */
    /* NULL allowed: sees every piece of text as it is made, in turn 0 .. refinements of each chain, with 0 bytes when an answer is over. Pieces of
     * chains come interleaved; characters may be cut. False stops: PLM_ESTOPPED. */
    bool (*text)(void *ctx, int chain, int turn, const char *bytes, size_t n);
    void *ctx;
};

/* Answer a conversation whose last message is the user's. *answer is malloc'ed, NUL-terminated; the caller frees it. options NULL: defaults.
 * PLM_ELIMIT when the conversation leaves no room for max_tokens; a refinement that would not fit is left out. */
int plm_answer(const struct plm_model *model, const struct plm_message *messages, int n, const struct plm_answer_options *options, char **answer,
               struct plm_status *st);

#ifdef __cplusplus
}
#endif
#endif
