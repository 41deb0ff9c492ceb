#include "data/files.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcmp(s + n - m, suffix);
}

/* Takes ownership of `path`, also when it fails. */
static int append(struct file_list *l, char *path, struct plm_status *st)
{
    if (l->n == l->capacity) {
        int64_t capacity = l->capacity ? 2 * l->capacity : 64;
        char **grown = realloc(l->paths, (size_t)capacity * sizeof *grown);
        if (!grown) {
            free(path);
            return status_no_memory(st, (size_t)capacity * sizeof *grown, "a list of files");
        }
        l->paths = grown;
        l->capacity = capacity;
    }
    l->paths[l->n++] = path;
    return PLM_OK;
}

/* Names in the directory, sorted. */
static int directory_names(struct file_list *names, const char *path, struct plm_status *st)
{
    DIR *dir = opendir(path);
    if (!dir)
        return status_set(st, PLM_EIO, "cannot open directory '%s': %s", path, strerror(errno));
    int code = PLM_OK;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno)
                code = status_set(st, PLM_EIO, "cannot read directory '%s': %s", path, strerror(errno));
            break;
        }
        if (entry->d_name[0] == '.')
            continue;
        char *name = strdup(entry->d_name);
        code = name ? append(names, name, st) : status_no_memory(st, strlen(entry->d_name), "a file name");
        if (code)
            break;
    }
    closedir(dir);
    if (!code && names->n > 1)
        qsort(names->paths, (size_t)names->n, sizeof *names->paths, compare_names);
    return code;
}

static int add_directory(struct file_list *l, const char *path, const char *suffix, struct plm_status *st)
{
    struct file_list names = {0};
    int code = directory_names(&names, path, st);
    size_t length = strlen(path);
    const char *slash = length && path[length - 1] == '/' ? "" : "/";
    for (int64_t i = 0; !code && i < names.n; i++) {
        char *child;
        if (asprintf(&child, "%s%s%s", path, slash, names.paths[i]) < 0) {
            code = status_no_memory(st, length + strlen(names.paths[i]), "a file name");
            break;
        }
        struct stat own, target;
        if (lstat(child, &own) != 0 || stat(child, &target) != 0) {
            if (errno == ENOENT) /* a link to nothing, or a file removed meanwhile */
                l->n_ignored++;
            else
                code = status_set(st, PLM_EIO, "cannot look at '%s': %s", child, strerror(errno));
            free(child);
        } else if (S_ISDIR(own.st_mode)) {
            code = add_directory(l, child, suffix, st);
            free(child);
        } else if (!S_ISREG(target.st_mode)) {
            l->n_ignored++;
            free(child);
        } else if (suffix && !ends_with(child, suffix)) {
            free(child);
        } else {
            code = append(l, child, st);
        }
    }
    file_list_free(&names);
    return code;
}

int file_list_add(struct file_list *l, const char *path, const char *suffix, struct plm_status *st)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return status_set(st, PLM_EIO, "cannot open '%s': %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode))
        return add_directory(l, path, suffix, st);
    if (!S_ISREG(info.st_mode))
        return status_set(st, PLM_EINVAL, "'%s' is neither a regular file nor a directory", path);
    char *copy = strdup(path);
    return copy ? append(l, copy, st) : status_no_memory(st, strlen(path), "a file name");
}

void file_list_free(struct file_list *l)
{
    for (int64_t i = 0; i < l->n; i++)
        free(l->paths[i]);
    free(l->paths);
    *l = (struct file_list){0};
}

int directory_create(const char *path, struct plm_status *st)
{
    char part[PATH_MAX];
    if (!*path || strlen(path) >= sizeof part)
        return status_set(st, PLM_EINVAL, "'%.100s' is not a usable directory name", path);
    strcpy(part, path);
    for (char *p = part + 1;; p++) {
        if (*p != '/' && *p != 0)
            continue;
        bool last = *p == 0;
        *p = 0;
        struct stat info;
        if (mkdir(part, 0777) != 0 && !(errno == EEXIST && stat(part, &info) == 0 && S_ISDIR(info.st_mode)))
            return status_set(st, PLM_EIO, "cannot create directory '%s': '%s': %s", path, part,
                              strerror(errno == EEXIST ? ENOTDIR : errno));
        if (last)
            return PLM_OK;
        *p = '/';
    }
}

int directory_create_own(const char *path, struct plm_status *st)
{
    struct stat info;
    int code = directory_create(path, st);
    if (!code && (lstat(path, &info) != 0 || !S_ISDIR(info.st_mode)))
        code = status_set(st, PLM_EIO, "'%s' is a symbolic link, which is not written through; remove it", path);
    return code;
}
