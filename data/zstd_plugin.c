/* The entry points by which HDF5 finds filter 32015 in a shared object on HDF5_PLUGIN_PATH. */
#include <H5PLextern.h>

#include "data/zstd_filter.h"

H5PL_type_t H5PLget_plugin_type(void)
{
    return H5PL_TYPE_FILTER;
}

const void *H5PLget_plugin_info(void)
{
    return zstd_filter_class();
}
