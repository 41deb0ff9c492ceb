/* One thread at a time in HDF5: the serial library has one global lock at best, and an MPI build has none (data.md 2.4).
 * Between hdf5_enter and hdf5_leave HDF5 prints nothing; its messages become part of our own. */
#ifndef DATA_HDF5_LOCK_H
#define DATA_HDF5_LOCK_H

#include <hdf5.h>

struct hdf5_session {
    H5E_auto2_t print;
    void *print_data;
};

void hdf5_enter(struct hdf5_session *s);
void hdf5_leave(const struct hdf5_session *s);

/* The innermost message of the failure that just happened ("unknown" when HDF5 left none); inside a session. */
const char *hdf5_error(char *to, size_t capacity);

#endif
