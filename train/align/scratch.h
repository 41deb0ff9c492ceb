/* Empty directories for programs that run where no namespace gives them one. One whose owner has died is removed by the
 * next. */
#ifndef TRAIN_ALIGN_SCRATCH_H
#define TRAIN_ALIGN_SCRATCH_H

#include <stdint.h>

#include "infer/base/status.h"

#define SCRATCH_FIRST_UID                                                                                              \
    UINT32_C(0x40000000) /* users of children of root: this and the number of the thread that starts them */

struct scratch {
    char path[256]; /* "": none */
    int lock;       /* held as long as the owner lives */
};

/* Make one below $TMPDIR (/tmp), for user and group *uid (0: ourselves); one that this machine has no place for becomes
 * 65534, then 0. */
int scratch_make(struct scratch *s, uint32_t *uid, struct plm_status *st);

/* Remove it with all that is in it. Nothing happens for none. */
void scratch_drop(struct scratch *s);

#endif
