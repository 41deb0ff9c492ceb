#include "infer/base/mapped.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int mapped_open(struct mapped_file *m, const char *path, struct plm_status *st)
{
    *m = (struct mapped_file){0};
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe without a writer must not be waited for */
    if (fd < 0)
        return status_set(st, PLM_EIO, "cannot open '%s': %s", path, strerror(errno));
    struct stat info;
    int code = PLM_OK;
    if (fstat(fd, &info) != 0) {
        code = status_set(st, PLM_EIO, "cannot read the size of '%s': %s", path, strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        code = status_set(st, PLM_EINVAL, "'%s' is not a regular file", path);
    } else if (info.st_size > 0) {
        void *p = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            code = status_set(st, PLM_EIO, "cannot map '%s' (%lld bytes): %s", path, (long long)info.st_size, strerror(errno));
        else
            *m = (struct mapped_file){p, (size_t)info.st_size};
    }
    close(fd);
    return code;
}

void mapped_close(struct mapped_file *m)
{
    if (m->data)
        munmap((void *)m->data, m->size);
    *m = (struct mapped_file){0};
}

void mapped_release(const void *data, size_t size)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = ((uintptr_t)data + page - 1) / page * page, end = ((uintptr_t)data + size) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED); /* when it cannot, the pages just stay */
}
