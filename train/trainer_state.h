/* trainer.json: where a run is. */
#ifndef TRAIN_TRAINER_STATE_H
#define TRAIN_TRAINER_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "train/manifest.h"

#define RECENT_LOSSES 64

/* Everything beyond weights and moments that decides what happens next. */
struct trainer_state {
    int64_t step;                     /* optimizer steps done, skipped ones included */
    int64_t updates;                  /* updates applied: t of AdamW */
    int64_t learned;                  /* updates of the whole run whose gradient was not zero */
    int64_t skipped_in_row;           /* steps since the last update that was applied */
    int phase;                        /* of the next step */
    int64_t step_in_phase;
    int64_t tokens;                   /* input positions consumed */
    int64_t samples;                  /* rows consumed, over all phases */
    uint64_t seed;
    char config_sha256[SHA256_HEX];   /* run_config_hash */
    int world_size;                   /* informational: any number of ranks may continue */
    struct json_t *data;              /* a description of each source (texts), the state's own; NULL: not known */
    int n_recent;                     /* losses of the last steps, oldest first, exactly as computed */
    double recent_loss[RECENT_LOSSES];
};

/* Free what the state owns. A zeroed one is fine. */
void trainer_state_free(struct trainer_state *s);

/* Append a loss, dropping the oldest when full. A loss that is not finite is not recorded. */
void trainer_state_add_loss(struct trainer_state *s, double loss);

/* As JSON text (malloc'ed, the caller frees; NULL when out of memory), and back. Reading checks that every field is there,
 * has the right type and is possible; `where` names the text in messages. */
char *trainer_state_to_json(const struct trainer_state *s);
int trainer_state_from_json(struct trainer_state *s, const char *text, size_t length, const char *where,
                            struct plm_status *st);

#endif
