/* What a confined program sees of the file system. For the child between clone and exec: only system calls. */
#ifndef TRAIN_ALIGN_ROOT_H
#define TRAIN_ALIGN_ROOT_H

#include <stdbool.h>

/* In a mount namespace of its own: an empty root with /usr, /bin, /lib... read-only, a few files of /etc and /dev, its
 * own processes in /proc, the given directories (NULL-terminated, absolute, without links) read-only, and /tmp, empty
 * and of limited size (`tmp_options` of a tmpfs), which becomes the working directory. NULL, or the step that failed
 * (errno says why). */
const char *root_make(const char *const *paths, const char *tmp_options);

/* Without namespaces, by Landlock: the same directories may be read, `directory` written, nothing else opened; no
 * signal and no tracing beyond its own processes. Needs no_new_privs. False: this kernel has no Landlock. */
bool root_restrict(const char *const *paths, const char *directory);

#endif
