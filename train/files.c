#include "train/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "infer/base/log.h"
#include "infer/base/output.h"

int file_write_synced(const char *path, const char *text, size_t bytes, struct plm_status *st)
{
    int fd, code = output_create(&fd, path, st);
    if (code)
        return code;
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = write(fd, text + done, bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    bool ok = done == bytes && (fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP); /* a device has nothing to sync */
    int error = errno;
    if (close(fd) != 0 && ok) {
        ok = false;
        error = errno;
    }
    return ok ? PLM_OK : status_set(st, PLM_EIO, "cannot write '%s': %s", path, strerror(error));
}

int file_replace(const char *path, const char *text, size_t bytes, struct plm_status *st)
{
    char temporary[PATH_MAX];
    if (output_is_device(path))
        return file_write_synced(path, text, bytes, st);
    if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", path);
    int code = file_write_synced(temporary, text, bytes, st);
    if (!code && rename(temporary, path) != 0)
        code = status_set(st, PLM_EIO, "cannot rename '%s' to '%s': %s", temporary, path, strerror(errno));
    if (code)
        unlink(temporary);
    return code;
}

static bool file_holds(const char *path, const char *text, size_t bytes)
{
    struct stat info;
    const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    bool same = fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode) &&
                (size_t)info.st_size == bytes;
    char buffer[4096];
    for (size_t done = 0; same && done < bytes;) {
        const ssize_t n = read(fd, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR)
            continue;
        same = n > 0 && (size_t)n <= bytes - done && !memcmp(buffer, text + done, (size_t)n);
        done += n > 0 ? (size_t)n : 0;
    }
    if (fd >= 0)
        close(fd);
    return same;
}

int file_update(const char *path, const char *text, size_t bytes, struct plm_status *st)
{
    return file_holds(path, text, bytes) ? PLM_OK : file_replace(path, text, bytes, st);
}

int directory_sync(const char *path, struct plm_status *st)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return status_set(st, PLM_EIO, "cannot open directory '%s': %s", path, strerror(errno));
    int failed = fsync(fd);
    int error = errno;
    close(fd);
    if (failed && error != EINVAL && error != ENOTSUP) /* file systems that cannot sync a directory */
        return status_set(st, PLM_EIO, "cannot sync directory '%s': %s", path, strerror(error));
    return PLM_OK;
}

int directory_remove(const char *path, struct plm_status *st)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat info;
    if (fd < 0 && lstat(path, &info) == 0 && S_ISLNK(info.st_mode)) /* only the link: what it points to is not ours */
        return unlink(path) == 0 ? PLM_OK : status_set(st, PLM_EIO, "cannot remove the link '%s': %s", path, strerror(errno));
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d)
        return errno == ENOENT ? PLM_OK : status_set(st, PLM_EIO, "cannot open directory '%s': %s", path, strerror(errno));
    int code = PLM_OK;
    for (struct dirent *e; !code && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && unlinkat(dirfd(d), e->d_name, 0) != 0)
            code = status_set(st, PLM_EIO, "cannot remove '%s/%s': %s", path, e->d_name, strerror(errno));
    closedir(d);
    if (!code && rmdir(path) != 0)
        code = status_set(st, PLM_EIO, "cannot remove directory '%s': %s", path, strerror(errno));
    return code;
}

int directory_publish(const char *temporary, const char *final, struct plm_status *st)
{
    if (rename(temporary, final) == 0)
        return PLM_OK;
    if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR) /* ENOTDIR: a link, which is replaced, not followed */
        return status_set(st, PLM_EIO, "cannot rename '%s' to '%s': %s", temporary, final, strerror(errno));
    if (renameat2(AT_FDCWD, temporary, AT_FDCWD, final, RENAME_EXCHANGE) == 0) {
        struct plm_status left = {0}; /* the new one is in place: an old one that cannot be removed is no failure */
        if (directory_remove(temporary, &left))
            log_warn("%s", left.message);
        return PLM_OK;
    }
    int code = directory_remove(final, st); /* a file system that cannot exchange */
    if (!code && rename(temporary, final) != 0)
        code = status_set(st, PLM_EIO, "cannot rename '%s' to '%s': %s", temporary, final, strerror(errno));
    return code;
}
