/* manifest.json: name, size and SHA-256 of every file of a directory. Written last, it says that the rest is complete. */
#ifndef TRAIN_MANIFEST_H
#define TRAIN_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "infer/base/status.h"

#define SHA256_HEX 65 /* 64 digits and NUL */

int sha256_bytes(const void *data, size_t bytes, char hex[SHA256_HEX], struct plm_status *st);

/* *size receives the bytes read (NULL allowed). */
int sha256_file(const char *path, char hex[SHA256_HEX], int64_t *size, struct plm_status *st);

/* Write DIR/manifest.json for the n named files of DIR as a whole, and fsync it: a killed process leaves none, never a part. */
int manifest_write(const char *dir, const char *const *names, int n, struct plm_status *st);

/* Check every file that DIR/manifest.json lists. PLM_EFORMAT when the manifest is missing or malformed, or a file is
 * missing or differs in size or checksum: the message names the file, what was expected and what was found. */
int manifest_verify(const char *dir, struct plm_status *st);

#endif
