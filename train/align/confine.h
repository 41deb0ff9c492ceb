/* The part of starting a child that runs in the child, between clone and exec: in the caller's memory (CLONE_VM), while the calling thread
 * waits. Only system calls: no allocation, no locks, no library functions with state. */
#ifndef TRAIN_ALIGN_CONFINE_H
#define TRAIN_ALIGN_CONFINE_H

#include "train/align/child.h"

struct confine_plan {
    const char *path;             /* of the program */
    char *const *argv, *const *envp;
    int fds[3 + CHILD_EXTRA];     /* become 0, 1, 2, ... */
    int n_fds;
    bool outlives;                /* does not die with the thread that starts it */
    bool confine, weak;           /* weak: what this machine does not give is left out, and said in `missing` */
    bool namespaces, user_namespace; /* what clone was asked for */
    uint32_t uid;                 /* user and group to become; 0: stay */
    const char *const *paths;     /* confined: what it may read beside the system's (root.h) */
    const char *directory;        /* confined, without namespaces: working directory */
    const char *directory_mount;  /* in namespaces: options of the tmpfs that is its working directory */
    int cgroup;                   /* descriptor of the cgroup.procs of a control group to join; -1: none */
    int keeper;                   /* a pipe to write its process number to; -1: none */
    uint32_t outer_uid, outer_gid;
    struct child_limits limits;
    int error;                    /* written by the child: errno of the step that failed, 0 when exec went well */
    const char *step;
    unsigned missing;             /* written by the child */
};

/* Never returns; the argument is a struct confine_plan. For clone(). */
int confine_and_exec(void *plan);

#endif
