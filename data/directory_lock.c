#include "data/directory_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "infer/base/clock.h"
#include "infer/base/log.h"

enum { HOLDER_BYTES = 400 };

/* Who has it, for those who wait: a line in the lock file. */
static void write_holder(int fd)
{
    char host[128] = "?", command[160] = "?", when[32] = "?", line[HOLDER_BYTES];
    const time_t now = time(NULL);
    struct tm local;
    gethostname(host, sizeof host - 1);
    FILE *f = fopen("/proc/self/cmdline", "re");
    size_t n = f ? fread(command, 1, sizeof command - 1, f) : 0;
    if (f)
        fclose(f);
    for (size_t i = 0; i < n; i++)
        if (command[i] < ' ')
            command[i] = ' ';
    command[n ? n : 1] = 0;
    if (localtime_r(&now, &local))
        strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &local);
    const int bytes = snprintf(line, sizeof line, "process %ld on %s since %s: %s\n", (long)getpid(), host, when, command);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, line, (size_t)bytes, 0) != bytes)
        return; /* only for messages */
}

static void read_holder(int fd, char holder[HOLDER_BYTES])
{
    const ssize_t n = pread(fd, holder, HOLDER_BYTES - 1, 0);
    holder[n > 0 ? n : 0] = 0;
    for (char *p = holder; *p; p++)
        if (*p == '\n' || (unsigned char)*p < ' ' || (unsigned char)*p > '~')
            *p = ' ';
    for (size_t at = strlen(holder); at > 0 && holder[at - 1] == ' ';)
        holder[--at] = 0;
    if (!*holder)
        strcpy(holder, "another process");
}

static int open_lock(int *fd, const char *directory, struct plm_status *st)
{
    char path[PATH_MAX];
    struct stat info;
    if (snprintf(path, sizeof path, "%s/" DIRECTORY_LOCK, directory) >= (int)sizeof path)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", directory);
    *fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (*fd < 0)
        return status_set(st, PLM_EIO, "cannot create '%s': %s%s", path, strerror(errno),
                          errno == ELOOP ? " (it is a link, which is not followed)" : "");
    if (fstat(*fd, &info) == 0 && S_ISREG(info.st_mode))
        return PLM_OK;
    return status_set(st, PLM_EIO, "'%s' is not a regular file; remove it", path);
}

int directory_lock(int *lock, const char *directory, double seconds, struct plm_status *st)
{
    int fd = -1, code = open_lock(&fd, directory, st);
    const double start = seconds_now();
    char holder[HOLDER_BYTES];
    bool said = false;
    *lock = -1;
    while (!code && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EINTR)
            continue;
        if (errno != EWOULDBLOCK) {
            code = status_set(st, PLM_EIO, "cannot lock '%s': %s", directory, strerror(errno));
            break;
        }
        read_holder(fd, holder);
        if (seconds_now() - start >= seconds) {
            code = status_set(st, PLM_EINVAL, "another process is writing in '%s' (%s), and did not end within %g s; wait for it, or stop it",
                              directory, holder, seconds);
        } else if (!said) {
            log_info("waiting for '%s': it is held by %s", directory, holder);
            said = true;
        }
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    if (code) {
        if (fd >= 0)
            close(fd);
        return code;
    }
    write_holder(fd);
    *lock = fd;
    return PLM_OK;
}

void directory_unlock(int lock)
{
    if (lock >= 0)
        close(lock);
}
