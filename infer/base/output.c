#include "infer/base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRIES = 100 }; /* of others that remove or create the same name meanwhile */

bool output_is_device(const char *path)
{
    struct stat info;
    return !strncmp(path, "/dev/", 5) || !strncmp(path, "/proc/", 6) ||
           (stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode));
}

/* Remove what is there, unless a process that writes it holds its lock. */
static int remove_stale(const char *path, struct plm_status *st)
{
    const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    const int error = errno;
    if (fd < 0 && error == ENOENT)
        return PLM_OK;
    const bool held = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    int code = PLM_OK;
    if (held)
        code = status_set(st, PLM_EIO, "another process is writing '%s'; wait for it, or stop it", path);
    else if (unlink(path) != 0 && errno != ENOENT)
        code = status_set(st, PLM_EIO, "cannot remove '%s', which is in the way: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return code;
}

int output_create(int *fd, const char *path, struct plm_status *st)
{
    *fd = -1;
    if (output_is_device(path)) {
        *fd = open(path, O_WRONLY | O_CLOEXEC);
        return *fd >= 0 ? PLM_OK : status_set(st, PLM_EIO, "cannot open '%s': %s", path, strerror(errno));
    }
    for (int i = 0; i < TRIES; i++) {
        *fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
        if (*fd >= 0) {
            flock(*fd, LOCK_EX | LOCK_NB); /* a file system without locks: one writer less is noticed */
            return PLM_OK;
        }
        if (errno != EEXIST)
            break;
        const int code = remove_stale(path, st);
        if (code)
            return code;
    }
    return status_set(st, PLM_EIO, "cannot create '%s': %s", path, strerror(errno));
}

static int as_stream(FILE **out, int fd, const char *mode, const char *path, struct plm_status *st)
{
    *out = fdopen(fd, mode);
    if (*out)
        return PLM_OK;
    const int error = errno;
    close(fd);
    return status_set(st, PLM_EIO, "cannot open '%s': %s", path, strerror(error));
}

int output_create_stream(FILE **out, const char *path, struct plm_status *st)
{
    int fd;
    *out = NULL;
    const int code = output_create(&fd, path, st);
    return code ? code : as_stream(out, fd, "w", path, st);
}

int output_append_stream(FILE **out, const char *path, struct plm_status *st)
{
    struct stat info;
    *out = NULL;
    const int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (fd < 0)
        return errno == ELOOP ? status_set(st, PLM_EIO, "'%s' is a symbolic link, which is not written through; remove it", path)
                              : status_set(st, PLM_EIO, "cannot open '%s': %s", path, strerror(errno));
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return status_set(st, PLM_EIO, "'%s' is not a regular file, which is expected to append to; remove it", path);
    }
    return as_stream(out, fd, "a", path, st);
}
