/* Directories made, and the files of a list of inputs: files as they are, directories walked recursively in byte order of the names, so that
 * the order is the same on every machine and in every locale. */
#ifndef DATA_FILES_H
#define DATA_FILES_H

#include <stdint.h>

#include "infer/base/status.h"

struct file_list {
    char **paths;          /* (n), each malloc'ed */
    int64_t n, capacity;
    int64_t n_ignored;     /* inside directories: links to directories or to nothing, sockets, devices, pipes */
};

/* Append the files of `path`. Names that start with a dot are left out inside directories, links to files are followed,
 * links to directories are not (they could form a cycle). suffix: only names that end so; NULL: all. */
int file_list_add(struct file_list *l, const char *path, const char *suffix, struct plm_status *st);
void file_list_free(struct file_list *l);

/* Create a directory and the missing ones above it; one that is there is fine, also behind a link: where a user wants his output. */
int directory_create(const char *path, struct plm_status *st);

/* The same within a directory of ours: the last part of the path is no link. */
int directory_create_own(const char *path, struct plm_status *st);

#endif
