/* TensorBoard event files: TFRecord framing (masked CRC32C) of Event protobufs with scalar and text summaries. Written beside metrics.jsonl, from the same
 * numbers: DIR/events.out.tfevents.SECONDS.plm. A run that continues opens a new file; TensorBoard reads all of a directory. */
#ifndef TRAIN_TENSORBOARD_H
#define TRAIN_TENSORBOARD_H

#include <stdint.h>

#include "infer/base/status.h"

struct tensorboard;

/* A new event file in the directory, which must be there. The name holds the time in seconds, the first free one from now on, so that files sort in the
 * order of the sessions. */
int tensorboard_open(struct tensorboard **out, const char *dir, struct plm_status *st);

/* This session goes on at `step`: TensorBoard drops what earlier files of the directory hold for it and for later steps. Before the first value. */
int tensorboard_restart(struct tensorboard *t, int64_t step, struct plm_status *st);

/* One value of a curve, which TensorBoard keeps as a float32; NaN and infinities are shown as such. A "/" in the tag groups curves. */
int tensorboard_scalar(struct tensorboard *t, const char *tag, int64_t step, double value, struct plm_status *st);

/* A text in Markdown. Tag and text must be UTF-8 (protobuf strings are): PLM_EINVAL otherwise. */
int tensorboard_text(struct tensorboard *t, const char *tag, int64_t step, const char *text, struct plm_status *st);

int tensorboard_flush(struct tensorboard *t, struct plm_status *st);
void tensorboard_close(struct tensorboard *t); /* NULL allowed */

#endif
