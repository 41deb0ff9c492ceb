/* An HDF5 file driver for writing that never fails towards HDF5. HDF5 1.10 cannot close a file whose writes failed (it
 * crashes or loops at exit), so a failed write is remembered here, later ones are dropped, and the caller, who looks at
 * `error` after every call, reports it. */
#ifndef DATA_HDF5_OUTPUT_H
#define DATA_HDF5_OUTPUT_H

#include <hdf5.h>

struct hdf5_output {
    int error; /* errno of the first operation that failed; 0: none */
};

/* Make files created with the access list `access` go through the driver; `out` must outlive them. Returns the driver's id,
 * for H5FDunregister when they are closed, or a negative number. */
hid_t hdf5_output_use(hid_t access, struct hdf5_output *out);

#endif
