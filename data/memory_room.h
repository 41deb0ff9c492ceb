/* Libraries that end with a signal where memory runs out: their callers ask first. */
#ifndef DATA_MEMORY_ROOM_H
#define DATA_MEMORY_ROOM_H

#include <stddef.h>

#include "infer/base/status.h"

/* What HDF5 takes to open or create a file (its caches above all), and more. */
#define MEMORY_ROOM_HDF5 ((size_t)16 << 20)

/* PLM_ENOMEM when `bytes` more cannot be had at this moment; `what` is what they are for. Nothing is reserved. */
int memory_room(size_t bytes, const char *what, struct plm_status *st);

#endif
