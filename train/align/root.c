#include "train/align/root.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHILD_CODE __attribute__((no_sanitize("address", "undefined")))

/* What an interpreter and its libraries need. A directory or file that is not there is left out; a link is made again
 * as a link. */
static const char *const system_paths[] = {"/usr",
                                           "/bin",
                                           "/sbin",
                                           "/lib",
                                           "/lib32",
                                           "/lib64",
                                           "/libx32",
                                           "/etc/ld.so.cache",
                                           "/etc/localtime",
                                           "/etc/alternatives",
                                           NULL};
static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", NULL};
static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"},
                                       {"/proc/self/fd/0", "/dev/stdin"},
                                       {"/proc/self/fd/1", "/dev/stdout"},
                                       {"/proc/self/fd/2", "/dev/stderr"},
                                       {"/tmp", "/dev/shm"}};
#define OLD "/old" /* the root as it was, while the new one is made */

/* ---- a new root ---- */

/* Linux 5.12 */
struct mount_attributes {
    uint64_t set, clear, propagation, user_namespace;
};
enum { ATTRIBUTE_READ_ONLY = 1, ATTRIBUTE_NO_SUID = 2, ATTRIBUTE_NO_DEV = 4, AT_EVERYTHING_BELOW = 0x8000 };

CHILD_CODE static bool set_attributes(const char *path, uint64_t set, int below)
{
    struct mount_attributes a = {.set = set};
    return syscall(SYS_mount_setattr, AT_FDCWD, path, below, &a, sizeof a) == 0;
}

/* Read-only, with what is mounted below it. Older kernels change one mount at a time: there nothing below it is shown.
 */
CHILD_CODE static bool bind(const char *from, const char *to, bool device)
{
    const uint64_t attributes = ATTRIBUTE_READ_ONLY | ATTRIBUTE_NO_SUID | (device ? 0 : ATTRIBUTE_NO_DEV);
    if (mount(from, to, NULL, MS_BIND | MS_REC, NULL))
        return false;
    if (set_attributes(to, device ? ATTRIBUTE_NO_SUID : attributes, AT_EVERYTHING_BELOW))
        return true;
    if (errno != ENOSYS || umount2(to, MNT_DETACH) || mount(from, to, NULL, MS_BIND, NULL))
        return false;
    return device || mount(NULL, to, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) == 0;
}

/* OLD + path. */
CHILD_CODE static bool old_path(const char *path, char out[PATH_MAX])
{
    size_t n = 0;
    for (const char *p = OLD; *p; p++)
        out[n++] = *p;
    for (; *path && n < PATH_MAX - 1; path++)
        out[n++] = *path;
    out[n] = 0;
    return !*path;
}

/* The directories above the last part of the path. */
CHILD_CODE static bool make_parents(const char *path)
{
    char part[PATH_MAX];
    for (size_t n = 0; path[n] && n < PATH_MAX - 1; n++) {
        part[n] = path[n];
        part[n + 1] = 0;
        if (n > 0 && path[n + 1] == '/' && mkdir(part, 0755) && errno != EEXIST)
            return false;
    }
    return true;
}

/* Show a path of the old root at the same place of the new one. */
CHILD_CODE static bool show(const char *path, bool device)
{
    char from[PATH_MAX], target[PATH_MAX];
    struct stat s;
    if (!old_path(path, from) || !make_parents(path))
        return false;
    const ssize_t n = readlink(from, target, sizeof target - 1);
    if (n > 0) {
        target[n] = 0;
        return symlink(target, path) == 0 || errno == EEXIST;
    }
    if (stat(from, &s))
        return errno == ENOENT || errno == EACCES;
    if (S_ISDIR(s.st_mode)) {
        if (mkdir(path, 0755) && errno != EEXIST)
            return false;
    } else {
        const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0)
            return false;
        close(fd);
    }
    return bind(from, path, device);
}

CHILD_CODE static bool show_all(const char *const *paths, bool device)
{
    for (; paths && *paths; paths++)
        if (!show(*paths, device))
            return false;
    return true;
}

CHILD_CODE const char *root_make(const char *const *paths, const char *tmp_options)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return "keep its mounts to itself";
    if (mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m,nr_inodes=2000"))
        return "mount a root of its own on /tmp";
    if (mkdir("/tmp" OLD, 0700) || syscall(SYS_pivot_root, "/tmp", "/tmp" OLD) || chdir("/"))
        return "make that its root (pivot_root)";
    if (!show_all(system_paths, false))
        return "show it /usr";
    if (mkdir("/dev", 0755) || !show_all(devices, true))
        return "show it /dev/null";
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1]))
            return "make links in /dev";
    if ((mkdir("/tmp", 0755) && errno != EEXIST) || mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, tmp_options))
        return "mount its working directory";
    if (!show_all(paths, false))
        return "show it the scorer's \"paths\"";
    /* its own processes; where the kernel does not let it, none */
    if (mkdir("/proc", 0755) ||
        (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) && errno != EPERM))
        return "mount /proc";
    if (umount2(OLD, MNT_DETACH) || rmdir(OLD))
        return "leave the old root";
    if (!set_attributes("/", ATTRIBUTE_READ_ONLY | ATTRIBUTE_NO_SUID | ATTRIBUTE_NO_DEV, 0) &&
        mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL))
        return "make its root read-only";
    return chdir("/tmp") ? "enter its working directory" : NULL;
}

/* ---- Landlock ---- */

enum { LANDLOCK_CREATE = 444, LANDLOCK_ADD = 445, LANDLOCK_RESTRICT = 446, LANDLOCK_BENEATH = 1, LANDLOCK_VERSION = 1 };
enum { MAY_EXECUTE = 1, MAY_WRITE = 2, MAY_READ = 4, MAY_LIST = 8, MAY_TRUNCATE = 1 << 14 };

struct landlock_rules {
    uint64_t files, net, scoped;
};
struct landlock_beneath {
    uint64_t allowed;
    int32_t parent;
} __attribute__((packed));

CHILD_CODE static bool allow(int rules, const char *path, uint64_t access)
{
    struct stat s;
    const int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == EACCES; /* not there, or not for us */
    if (fstat(fd, &s) == 0 && !S_ISDIR(s.st_mode))
        access &= MAY_EXECUTE | MAY_WRITE | MAY_READ | MAY_TRUNCATE;
    const struct landlock_beneath b = {access, fd};
    const bool ok = syscall(LANDLOCK_ADD, rules, LANDLOCK_BENEATH, &b, 0) == 0;
    close(fd);
    return ok;
}

CHILD_CODE bool root_restrict(const char *const *paths, const char *directory)
{
    const long version = syscall(LANDLOCK_CREATE, NULL, 0, LANDLOCK_VERSION);
    if (version < 1)
        return false;
    /* rights that exist in this version: 13 at first, then moving between directories, truncating, control of devices
     */
    const uint64_t all = (UINT64_C(1) << (version < 2 ? 13 : version < 3 ? 14 : version < 5 ? 15 : 16)) - 1;
    const struct landlock_rules r = {all, version < 4 ? 0 : 3, version < 6 ? 0 : 3};
    const int rules = (int)syscall(LANDLOCK_CREATE, &r, version < 4 ? 8 : version < 6 ? 16 : 24, 0);
    bool ok = rules >= 0;
    for (const char *const *p = system_paths; ok && *p; p++)
        ok = allow(rules, *p, MAY_EXECUTE | MAY_READ | MAY_LIST);
    for (; ok && paths && *paths; paths++)
        ok = allow(rules, *paths, MAY_EXECUTE | MAY_READ | MAY_LIST);
    for (const char *const *p = devices; ok && *p; p++)
        ok = allow(rules, *p, MAY_READ | MAY_WRITE);
    ok = ok && allow(rules, directory, all & ~(UINT64_C(1) << 15)) && syscall(LANDLOCK_RESTRICT, rules, 0) == 0;
    if (rules >= 0)
        close(rules);
    return ok;
}
