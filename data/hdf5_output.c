#include "data/hdf5_output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/output.h"

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

struct driver_info {
    struct hdf5_output *out;
};

struct output_file {
    H5FD_t base; /* first: HDF5 casts */
    struct hdf5_output *out;
    int fd;
    haddr_t end_of_space, end_of_file;
};

static H5FD_t *output_open(const char *name, unsigned flags, hid_t access, haddr_t max_address)
{
    (void)max_address;
    const struct driver_info *info = H5Pget_driver_info(access);
    struct output_file *f = calloc(1, sizeof *f);
    if (!info || !f) {
        free(f);
        return NULL;
    }
    f->out = info->out;
    struct plm_status st = {0};
    if (flags & H5F_ACC_CREAT)
        output_create(&f->fd, name, &st);
    else
        f->fd = open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    off_t size = f->fd >= 0 ? lseek(f->fd, 0, SEEK_END) : -1;
    if (size < 0) {
        f->out->error = errno;
        if (f->fd >= 0)
            close(f->fd);
        free(f);
        return NULL;
    }
    f->end_of_file = (haddr_t)size;
    return &f->base;
}

static herr_t output_close(H5FD_t *file)
{
    struct output_file *f = (struct output_file *)file;
    if (close(f->fd) != 0 && !f->out->error)
        f->out->error = errno;
    free(f);
    return 0;
}

static herr_t output_query(const H5FD_t *file, unsigned long *flags)
{
    (void)file;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_AGGREGATE_SMALLDATA;
    return 0;
}

static haddr_t output_get_eoa(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const struct output_file *)file)->end_of_space;
}

static herr_t output_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t address)
{
    (void)type;
    ((struct output_file *)file)->end_of_space = address;
    return 0;
}

static haddr_t output_get_eof(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const struct output_file *)file)->end_of_file;
}

static herr_t output_read(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t size, void *buffer)
{
    (void)type, (void)transfer;
    struct output_file *f = (struct output_file *)file;
    for (size_t done = 0; done < size;) {
        ssize_t got = pread(f->fd, (char *)buffer + done, size - done, (off_t)(address + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && !f->out->error)
            f->out->error = errno;
        if (got <= 0) { /* HDF5 expects zeros behind the end */
            memset((char *)buffer + done, 0, size - done);
            break;
        }
        done += (size_t)got;
    }
    return 0;
}

static herr_t output_write(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t size, const void *buffer)
{
    (void)type, (void)transfer;
    struct output_file *f = (struct output_file *)file;
    for (size_t done = 0; done < size && !f->out->error;) {
        ssize_t n = pwrite(f->fd, (const char *)buffer + done, size - done, (off_t)(address + done));
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR)
            f->out->error = n == 0 ? ENOSPC : errno;
    }
    if (address + size > f->end_of_file)
        f->end_of_file = address + size;
    return 0;
}

static herr_t output_truncate(H5FD_t *file, hid_t transfer, hbool_t closing)
{
    (void)transfer, (void)closing;
    struct output_file *f = (struct output_file *)file;
    if (f->end_of_space != f->end_of_file && !f->out->error && ftruncate(f->fd, (off_t)f->end_of_space) != 0)
        f->out->error = errno;
    f->end_of_file = f->end_of_space;
    return 0;
}

hid_t hdf5_output_use(hid_t access, struct hdf5_output *out)
{
    static const H5FD_class_t class = {
#ifdef H5FD_CLASS_VERSION
        .version = H5FD_CLASS_VERSION,
        .value = (H5FD_class_value_t)511, /* of the range for private drivers */
#endif
        .name = "plm_output",
        .maxaddr = INT64_MAX,
        .fc_degree = H5F_CLOSE_STRONG,
        .fapl_size = sizeof(struct driver_info),
        .open = output_open,
        .close = output_close,
        .query = output_query,
        .get_eoa = output_get_eoa,
        .set_eoa = output_set_eoa,
        .get_eof = output_get_eof,
        .read = output_read,
        .write = output_write,
        .truncate = output_truncate,
        .fl_map = H5FD_FLMAP_DICHOTOMY,
    };
    struct driver_info info = {out};
    hid_t driver = H5FDregister(&class);
    if (driver >= 0 && H5Pset_driver(access, driver, &info) < 0) {
        H5FDunregister(driver);
        return H5I_INVALID_HID;
    }
    return driver;
}
