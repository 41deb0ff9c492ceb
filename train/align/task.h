/* Tasks and answers: what rollouts produce, scorers judge and selection pairs. */
#ifndef TRAIN_ALIGN_TASK_H
#define TRAIN_ALIGN_TASK_H

#include "data/conversation.h"

/* A task is a row of kind ROW_TASK (or any row with a prompt); its number in the set is its id in every artefact. Answers to one task,
 * chain c and turn k: y[0] answers the prompt, y[k] refines y[k - 1]. */
struct answer {
    int64_t task;       /* index in the row set */
    int chain, turn;
    char *text;         /* decoded, NUL-terminated, without special tokens; owned */
    int32_t *tokens;    /* (n) as sampled, the ending token included; owned */
    float *log_probs;   /* (n) of the model itself (temperature 1), as recorded while sampling; owned */
    int n;
    bool ended;         /* by the end of the turn (or end-of-text), not by a limit */
    bool scored;        /* false: the scorer failed on it (counted); it takes part in nothing */
    double score;
};

struct answer_set {
    struct answer *answers; /* (n), ordered by task, chain, turn */
    int64_t n, capacity;
};

/* Append (takes over text, tokens, log_probs). */
int answer_set_add(struct answer_set *set, const struct answer *a, struct plm_status *st);
void answer_set_free(struct answer_set *set);

/* One JSON object per line: {"task", "chain", "turn", "text", "tokens", "log_probs", "ended"[, "score"]}. Written whole and synced
 * (file_replace); reading checks every field (PLM_EFORMAT with FILE:LINE) and appends. task must be below n_tasks. */
int answer_set_write(const struct answer_set *set, int64_t first, int64_t n, const char *path, struct plm_status *st);
int answer_set_read(struct answer_set *set, const char *path, int64_t n_tasks, struct plm_status *st);

#endif
