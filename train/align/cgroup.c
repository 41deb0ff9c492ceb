#include "train/align/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "plm-child-" /* and the owner's process, and a number */

/* The directory of this process's own group in a hierarchy (version 2, or the memory controller's of version 1). */
static bool own_group(int version, char path[400])
{
    char line[2048], group[300] = "", root[300], mount[300];
    bool found = false;
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof line, f)) {
        const char *names = strchr(line, ':'), *at = names ? strchr(names + 1, ':') : NULL;
        if (!at)
            continue;
        char controllers[200];
        snprintf(controllers, sizeof controllers, ",%.*s,", (int)(at - names - 1), names + 1);
        if (version == 2 ? !strcmp(controllers, ",,") : strstr(controllers, ",memory,") != NULL) {
            snprintf(group, sizeof group, "%.*s", (int)strcspn(at + 1, "\n"), at + 1);
            found = true;
        }
    }
    if (f)
        fclose(f);
    f = found ? fopen("/proc/self/mountinfo", "re") : NULL;
    found = false;
    while (f && !found && fgets(line, sizeof line, f)) {
        const char *tail = strstr(line, " - ");
        char type[32], options[1024];
        if (!tail || sscanf(tail, " - %31s %*s %1023s", type, options) != 2 ||
            sscanf(line, "%*d %*d %*s %299s %299s", root, mount) != 2)
            continue;
        char listed[1030];
        snprintf(listed, sizeof listed, ",%s,", options);
        if (strcmp(type, version == 2 ? "cgroup2" : "cgroup") != 0 || (version == 1 && !strstr(listed, ",memory,")))
            continue;
        const size_t n = strcmp(root, "/") == 0 ? 0 : strlen(root); /* in a container the mount begins at a group */
        const char *below = strncmp(group, root, n) == 0 ? group + n : "";
        found = snprintf(path, 400, "%s%s", mount, strcmp(below, "/") == 0 ? "" : below) < 400;
    }
    if (f)
        fclose(f);
    return found;
}

static bool put(const struct cgroup *g, const char *file, long long value)
{
    char path[600], text[32];
    snprintf(path, sizeof path, "%s/%s", g->path, file);
    const int n = snprintf(text, sizeof text, "%lld", value), fd = open(path, O_WRONLY | O_CLOEXEC);
    const bool ok = fd >= 0 && write(fd, text, (size_t)n) == n;
    if (fd >= 0)
        close(fd);
    return ok;
}

/* Groups of owners that were killed: empty ones, which is all that can be removed. */
static void remove_stale(const char *parent)
{
    DIR *d = opendir(parent);
    for (struct dirent *e; d && (e = readdir(d));) {
        long owner;
        char end;
        if (sscanf(e->d_name, PREFIX "%ld-%*u%c", &owner, &end) == 1 && owner > 0 && kill((pid_t)owner, 0) && errno == ESRCH)
            unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
    }
    if (d)
        closedir(d);
}

static bool make_below(struct cgroup *g, int version, const char *parent, int64_t memory_bytes, int processes)
{
    static atomic_uint serial;
    static atomic_bool cleaned[3]; /* per version */
    if (!atomic_exchange(&cleaned[version], true))
        remove_stale(parent);
    char procs[600];
    const int n =
        snprintf(g->path, sizeof g->path, "%s/" PREFIX "%ld-%u", parent, (long)getpid(), atomic_fetch_add(&serial, 1));
    if (n >= (int)sizeof g->path || mkdir(g->path, 0755)) {
        *g = (struct cgroup){.procs = -1};
        return false;
    }
    g->version = version;
    snprintf(procs, sizeof procs, "%s/cgroup.procs", g->path);
    if (version == 2 ? put(g, "memory.max", memory_bytes) : put(g, "memory.limit_in_bytes", memory_bytes))
        g->procs = open(procs, O_WRONLY | O_CLOEXEC);
    if (g->procs < 0) {
        cgroup_drop(g);
        return false;
    }
    if (version == 2) { /* where there is no swap these files are missing, and are not needed */
        put(g, "memory.swap.max", 0);
        put(g, "memory.oom.group", 1);
        put(g, "pids.max", processes);
    } else {
        put(g, "memory.memsw.limit_in_bytes", memory_bytes);
    }
    return true;
}

bool cgroup_make(struct cgroup *g, int64_t memory_bytes, int processes)
{
    char own[400];
    *g = (struct cgroup){.procs = -1};
    for (int version = 2; version > 0; version--) {
        if (!own_group(version, own))
            continue;
        if (make_below(g, version, own, memory_bytes, processes))
            return true;
        char *slash =
            version == 2 ? strrchr(own, '/') : NULL; /* a group with processes has no controllers for groups below it */
        if (slash && (*slash = 0, make_below(g, version, own, memory_bytes, processes)))
            return true;
    }
    return false;
}

bool cgroup_was_full(const struct cgroup *g)
{
    char path[600], line[128];
    long long killed = 0;
    if (!*g->path)
        return false;
    snprintf(path, sizeof path, "%s/%s", g->path, g->version == 2 ? "memory.events" : "memory.oom_control");
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "oom_kill ", 9))
            killed = strtoll(line + 9, NULL, 10);
    if (f)
        fclose(f);
    return killed > 0;
}

void cgroup_drop(struct cgroup *g)
{
    if (g->procs >= 0)
        close(g->procs);
    /* its last processes may take a moment to die */
    for (int i = 0; *g->path && rmdir(g->path) && errno == EBUSY && i < 500; i++)
        usleep(2000);
    *g = (struct cgroup){.procs = -1};
}
