/* A control group for one child and its descendants: memory and processes of all of them together. Version 2, else 1,
 * where this process may make groups below its own (or, in version 2, beside it). */
#ifndef TRAIN_ALIGN_CGROUP_H
#define TRAIN_ALIGN_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

struct cgroup {
    char path[512];  /* "": none */
    int procs;       /* its cgroup.procs, to write to; -1: none */
    int version;
};

/* False: this machine does not let us; the group is none then, and nothing is left behind. */
bool cgroup_make(struct cgroup *g, int64_t memory_bytes, int processes);

/* Has the kernel killed for want of memory in it? */
bool cgroup_was_full(const struct cgroup *g);

/* Remove it, when its processes have ended. Nothing happens for none. */
void cgroup_drop(struct cgroup *g);

#endif
