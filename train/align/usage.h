/* What a child and its descendants use, all of them together, where no control group counts it. */
#ifndef TRAIN_ALIGN_USAGE_H
#define TRAIN_ALIGN_USAGE_H

#include <stdint.h>
#include <sys/types.h>

/* Memory of the processes of a session, pages that several share counted once (PSS). A confined child leads a session
 * that its descendants cannot leave. 0 when nothing can be seen of them. */
int64_t usage_memory(pid_t session);

/* Bytes on disk below a directory, and of files that were opened there and deleted since, but are held by processes of
 * the session. */
int64_t usage_files(const char *directory, pid_t session);

#endif
