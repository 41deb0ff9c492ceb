/* Reads TensorBoard event files back: TFRecord framing and protobuf by hand, from their specifications, not from the writer. */
#ifndef TESTS_TRAIN_EVENTS_H
#define TESTS_TRAIN_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event {
    double wall_time;
    int64_t step;
    char version[32];
    int session_status; /* 0: none */
    char tag[1100];     /* empty: no value */
    bool has_scalar;
    float scalar;
    char plugin[16];
    int dtype;
    char text[4096];
};

/* The bitwise CRC32C, and what TFRecord makes of it. */
uint32_t crc32c(const unsigned char *data, size_t size);
uint32_t crc32c_masked(const unsigned char *data, size_t size);

/* All events of one file; every length and checksum is asserted (cmocka). */
int events_read(const char *path, struct event *out, int limit);

/* The path of the i-th event file of a directory in byte order of the names: false when there are fewer. */
bool events_path(const char *dir, int i, char *path, size_t size);

#endif
