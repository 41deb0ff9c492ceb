#include "train/align/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "infer/base/log.h"

#define PREFIX "plm-child-"

static const char *base_directory(void)
{
    const char *base = getenv("TMPDIR");
    return base && *base == '/' && strlen(base) <= 200 ? base : "/tmp";
}

static int remove_entry(const char *path, const struct stat *s, int type, struct FTW *ftw)
{
    (void)s, (void)ftw;
    return type == FTW_DP || type == FTW_D ? rmdir(path) : unlink(path);
}

static int open_entry(const char *path, const struct stat *s, int type, struct FTW *ftw)
{
    (void)s, (void)ftw;
    return type == FTW_D || type == FTW_DNR ? chmod(path, 0700), 0 : 0;
}

static bool remove_tree(const char *path)
{
    if (rmdir(path) == 0)
        return true;
    nftw(path, open_entry, 16, FTW_PHYS);
    return nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0;
}

/* The lock of a directory, which is still at its path; -1: somebody else's, or gone. */
static int take(const char *path)
{
    struct stat now, held;
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &held) == 0 && lstat(path, &now) == 0 &&
        now.st_ino == held.st_ino && now.st_dev == held.st_dev)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool is_ours(uid_t owner)
{
    return owner == geteuid() || (geteuid() == 0 && (owner == 65534 || owner >= SCRATCH_FIRST_UID));
}

/* Nobody holds the directories of owners that were killed. Only our own, or what we have given to users of children. */
static void remove_stale(const char *base)
{
    DIR *d = opendir(base);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[512];
        struct stat s;
        if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) != 0 ||
            snprintf(path, sizeof path, "%s/%s", base, e->d_name) >= (int)sizeof path || lstat(path, &s) ||
            !S_ISDIR(s.st_mode) || !is_ours(s.st_uid))
            continue;
        const int lock = take(path);
        if (lock >= 0) {
            remove_tree(path);
            close(lock);
        }
    }
    if (d)
        closedir(d);
}

int scratch_make(struct scratch *s, uint32_t *uid, struct plm_status *st)
{
    const char *base = base_directory();
    *s = (struct scratch){.lock = -1};
    remove_stale(base);
    for (int i = 0; i < 100 && s->lock < 0;
         i++) { /* between making and locking somebody may have taken it for a stale one */
        snprintf(s->path, sizeof s->path, "%s/" PREFIX "XXXXXX", base);
        if (!mkdtemp(s->path))
            break;
        s->lock = take(s->path);
    }
    if (s->lock < 0) {
        *s->path = 0;
        return status_set(st, PLM_EIO,
                          "cannot make a directory for a program under '%s': %s; set TMPDIR to one that can be written",
                          base, strerror(errno));
    }
    if (*uid && chown(s->path, *uid, *uid)) {
        *uid = 65534;
        if (chown(s->path, *uid, *uid))
            *uid = 0;
    }
    return PLM_OK;
}

void scratch_drop(struct scratch *s)
{
    if (*s->path && !remove_tree(s->path))
        log_warn("cannot remove '%s', the directory of a program that has ended: %s", s->path, strerror(errno));
    if (*s->path)
        close(s->lock);
    *s = (struct scratch){.lock = -1};
}
