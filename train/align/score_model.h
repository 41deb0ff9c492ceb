/* Scorers that are models: the reward of a reward model (plm reward), or the implicit reward beta (ln pi(y|x) - ln pi_ref(y|x)) of a preference-trained one (Rafailov et
 * al., arXiv 2305.18290). Answers are scored to the prompt x itself, also refinements; sampled tokens as they are. */
#ifndef TRAIN_ALIGN_SCORE_MODEL_H
#define TRAIN_ALIGN_SCORE_MODEL_H

#include "infer/base/threads.h"
#include "infer/text/chat_template.h"
#include "train/align/scorer.h"
#include "train/manifest.h"

struct score_model;

struct score_model_options {
    struct thread_pool *pool;         /* the caller's, until score_model_close */
    const char *tokenizer_sha256;     /* of the answers' tokens: a model of another tokenizer is refused (PLM_EINVAL). NULL: answers are texts */
    const struct chat_template *chat; /* the run's: it is said when the model was trained with another one, which is what it is asked with. NULL: unknown */
    bool report;                      /* say what was opened */
};

/* Open what a scorer of kind "reward" or "implicit" names: a model directory, or a run (its best model, else its newest checkpoint). Not collective: every rank
 * has its own buffers; the weights are mapped, and in memory once. */
int score_model_open(struct score_model **out, const struct scorer *scorer, const struct score_model_options *o, struct plm_status *st);
void score_model_close(struct score_model *s);

/* A hash of the models that the scorer names, by their manifests: another one after they were trained on. Empty for models without a manifest. */
int score_model_hash(const struct scorer *scorer, char hex[SHA256_HEX], struct plm_status *st);

/* Score answers [0, n), as scorer_score does: those that are too long for the model, or have tokens it does not know, are counted and left unscored. ctx: the
 * struct score_model. An answer's score does not depend on the answers beside it beyond the last bits. */
int score_model_score(void *ctx, const struct row_set *tasks, struct answer *answers, int64_t n, struct scorer_stats *stats, struct plm_status *st);

#endif
