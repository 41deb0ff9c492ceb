/* The registered HDF5 filter 32015, zstd. The same code is registered in process and built as a plugin, so that h5dump
 * and h5py read what we write (Debian 12 has no such plugin). */
#ifndef DATA_ZSTD_FILTER_H
#define DATA_ZSTD_FILTER_H

#include <hdf5.h>

#define ZSTD_FILTER_ID 32015

/* cd_values: [0] compression level (as hdf5plugin writes it); [1], optional: bytes of a decoded chunk, above which a frame
 * is refused. Frames carry their content size and a checksum; frames of unknown size are refused. */
const H5Z_class2_t *zstd_filter_class(void);

#endif
