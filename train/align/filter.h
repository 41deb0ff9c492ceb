/* The system calls that a confined program may make: a list of what is allowed, everything else is refused with EPERM
 * (or ENOSYS, where a library has another way). For the child between clone and exec: no allocation, no state. */
#ifndef TRAIN_ALIGN_FILTER_H
#define TRAIN_ALIGN_FILTER_H

#include <stdbool.h>

/* own_processes: the program has a process namespace of its own, so that its signals reach nobody else; without it no
 * call that names a process is allowed but for itself. Needs no_new_privs. 0, or -1 where this processor or kernel has
 * no filter. */
int filter_install(bool own_processes);

#endif
