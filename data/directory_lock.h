/* One writer at a time in a directory: a run, a build of shards. */
#ifndef DATA_DIRECTORY_LOCK_H
#define DATA_DIRECTORY_LOCK_H

#include "infer/base/status.h"

#define DIRECTORY_LOCK ".lock"          /* the file in the directory; it stays */
#define DIRECTORY_LOCK_SECONDS 15       /* how long another process may keep it, such as one that was just killed */

/* Take the lock of a directory that is there. It goes with the process, however it ends. While another one holds it, waits for up to
 * `seconds`, and says for whom; then PLM_EINVAL. *lock is to be given to directory_unlock; -1 after an error. */
int directory_lock(int *lock, const char *directory, double seconds, struct plm_status *st);
void directory_unlock(int lock);

#endif
