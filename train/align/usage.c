#include "train/align/usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Call with each process of the session. */
static void each_process(pid_t session, void (*fn)(pid_t pid, void *ctx), void *ctx)
{
    DIR *proc = opendir("/proc");
    for (struct dirent *e; proc && (e = readdir(proc));) {
        const pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        char path[64], line[512];
        snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
        FILE *f = pid > 0 ? fopen(path, "re") : NULL;
        if (!f)
            continue;
        const char *end =
            fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL; /* the name before it may hold anything */
        long of = 0;
        if (end && sscanf(end, ") %*c %*d %*d %ld", &of) == 1 && of == session)
            fn(pid, ctx);
        fclose(f);
    }
    if (proc)
        closedir(proc);
}

static void add_memory(pid_t pid, void *ctx)
{
    int64_t *sum = ctx;
    char path[64], line[256];
    long long kib = 0, pages = 0;
    snprintf(path, sizeof path, "/proc/%ld/smaps_rollup", (long)pid);
    FILE *f = fopen(path, "re");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = sscanf(line, "Pss: %lld", &kib) == 1;
    if (f)
        fclose(f);
    if (!found) {
        snprintf(path, sizeof path, "/proc/%ld/statm", (long)pid);
        f = fopen(path, "re");
        if (f && fscanf(f, "%*d %lld", &pages) == 1)
            kib = pages * (sysconf(_SC_PAGESIZE) / 1024);
        if (f)
            fclose(f);
    }
    *sum += kib * 1024;
}

int64_t usage_memory(pid_t session)
{
    int64_t sum = 0;
    each_process(session, add_memory, &sum);
    return sum;
}

struct files {
    const char *directory;
    int64_t bytes;
};

/* Without following links; what cannot be opened (its owner can make that so) is not seen: its size is still bounded by
 * the limit of each file. */
static void add_directory(int fd, struct files *s, int depth)
{
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d && fd >= 0)
        close(fd);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW))
            continue;
        s->bytes += (int64_t)st.st_blocks * 512;
        if (S_ISDIR(st.st_mode) && depth < 64)
            add_directory(openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), s, depth + 1);
    }
    if (d)
        closedir(d);
}

static void add_deleted(pid_t pid, void *ctx)
{
    struct files *s = ctx;
    char path[64], target[512];
    snprintf(path, sizeof path, "/proc/%ld/fd", (long)pid);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        const ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof target - 1);
        target[n > 0 ? n : 0] = 0;
        if (n > 0 && !strncmp(target, s->directory, strlen(s->directory)) &&
            fstatat(dirfd(d), e->d_name, &st, 0) == 0 && st.st_nlink == 0)
            s->bytes += (int64_t)st.st_blocks * 512;
    }
    if (d)
        closedir(d);
}

int64_t usage_files(const char *directory, pid_t session)
{
    struct files s = {directory, 0};
    add_directory(open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), &s, 0);
    each_process(session, add_deleted, &s);
    return s.bytes;
}
