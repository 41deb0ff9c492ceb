/* Conversations as tokens: the ChatML template of PLM (plm.md 3.3), or another one given as a small JSON file.
 *
 *     { "system": "You are a helpful assistant",      default system message when a conversation begins without one; ""
 * for none "turn": "<|im_start|>{role}\n{content}<|im_end|>\n", "end": "<|im_end|>",                          what the
 * model writes when its turn is over: trained, and ends generation "generation": "<|im_start|>assistant\n" }     what
 * the model continues
 *
 * "system" and "generation" may be left out: no default system message, and what "turn" says.
 *
 * Or the Jinja text that a model brought (infer/text/jinja.h), with the texts of its special tokens where it has them:
 *
 *     { "jinja": "{% for message in messages %}...", "bos": "<s>", "eos": "</s>" }
 *
 * It is rendered as Hugging Face does, byte for byte; a file may also be Jinja itself. What is beyond the part of Jinja
 * that is known here is an error.
 *
 * Text of the template and of the messages are tokenised apart and their ids joined: the boundary between a prompt and
 * an answer is the same in training and in generation, and <|...|> in a message is plain text, never a special token.
 */
#ifndef INFER_TEXT_CHAT_TEMPLATE_H
#define INFER_TEXT_CHAT_TEMPLATE_H

#include "infer/text/tokenizer.h"

struct chat_template;

/* "system", "user", "assistant", "tool", or any other role. Texts need no NUL and belong to the caller. */
struct chat_message {
    const char *role;
    const char *content;
    size_t content_bytes;
    bool target;         /* the tokens of its content and the end of its turn are trained */
};

/* Whether messages begin a conversation. */
enum chat_begin {
    CHAT_CONTINUES,      /* what comes before has been rendered, and closed: chat_template_close */
    CHAT_BEGINS,         /* with the default system message, unless messages[0] is one */
    CHAT_BEGINS_WITHOUT, /* no default system message: of Jinja, an empty one in its place */
};

/* path NULL: ChatML. tokenizer (NULL: unknown) gives the special tokens of a Jinja file. Checks the slots {role} and
 * {content} (each once, in this order, in "turn"), that "end" follows {content}, and that "generation" is what "turn"
 * begins with for the role assistant: PLM_EINVAL names the file and the key. What is not JSON is PLM_EFORMAT. Free with
 * chat_template_free. */
int chat_template_open(struct chat_template **out, const char *path, const struct tokenizer *tokenizer,
                       struct plm_status *st);
int chat_template_from_json(struct chat_template **out, const char *text, size_t length, const char *where, struct plm_status *st);
/* The Jinja text that a model brought. PLM_EUNSUPPORTED, PLM_EINVAL and PLM_EFORMAT name `where`, the line and what is
 * wrong there. */
int chat_template_from_jinja(struct chat_template **out, const char *text, size_t length,
                             const struct tokenizer *tokenizer, const char *where, struct plm_status *st);
void chat_template_free(struct chat_template *t);

/* The template as JSON text, owned by it: stored in checkpoints, hashed into cache keys. Always with all four keys and
 * the same spaces, so that files that mean the same give the same text (of Jinja, "jinja" and its tokens);
 * chat_template_from_json reads it. */
const char *chat_template_json(const struct chat_template *t);

/* The Jinja text it was made from, NULL: none. */
const char *chat_template_jinja_text(const struct chat_template *t);

/* Id of the token that ends an assistant's turn. PLM_EUNSUPPORTED when the tokenizer does not have "end" as one token. */
int chat_template_end(const struct chat_template *t, const struct tokenizer *tokenizer, int32_t *id, struct plm_status *st);

/* Call f for every <|...|> that a Jinja template writes around messages and that is no token of the tokenizer: it is
 * written as plain text. */
void chat_template_missing(const struct chat_template *t, const struct tokenizer *tokenizer,
                           void (*f)(void *ctx, const char *text, size_t bytes), void *ctx);

/* Growable list of bytes beside a token_list; start with {0}, free(data). */
struct target_list {
    uint8_t *data;       /* (length) 1: this token is a target */
    size_t length, capacity;
};

/* Append n equal bytes. */
int target_list_add(struct target_list *targets, size_t n, bool target, struct plm_status *st);

/* Append the ids of n messages, then the generation prompt when wanted. A conversation that begins in an empty list
 * gets the tokenizer's beginning of a text (encoder_begin), once. A Jinja template may refuse a conversation
 * (PLM_EINVAL: its own words); that it leaves out a message is PLM_EUNSUPPORTED. targets (NULL allowed) receives one
 * byte per id appended: 1 for the content of target messages and their "end" (what follows "end" in "turn" is not).
 * Text of the template may have special tokens, roles and contents are plain text. After an error both lists are as
 * long as before. */
int chat_template_render(const struct chat_template *t, struct encoder *e, const struct chat_message *messages, int n,
                         enum chat_begin begin, bool generation, struct token_list *ids, struct target_list *targets,
                         struct plm_status *st);

/* Append an answer as it follows the generation prompt: its content, and "end" when it ended. All of it targets. */
int chat_template_answer(const struct chat_template *t, struct encoder *e, const char *text, size_t bytes, bool ended,
                         struct token_list *ids, struct target_list *targets, struct plm_status *st);

/* Append what is still missing of a turn whose answer is in the sequence already: "end" unless it ended, and what follows "end" in "turn". Together with
 * the generation prompt and the answer the ids are those of chat_template_render. */
int chat_template_close(const struct chat_template *t, struct encoder *e, bool ended, struct token_list *ids, struct plm_status *st);

#endif
