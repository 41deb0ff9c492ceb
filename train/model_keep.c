#include "train/model_keep.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/files.h"
#include "infer/base/output.h"
#include "train/files.h"
#include "train/manifest.h"

static int copy_file(const char *from, const char *to, struct plm_status *st)
{
    char buffer[1 << 16];
    FILE *in = fopen(from, "rb"), *out = NULL;
    if (in && output_create_stream(&out, to, st)) {
        fclose(in);
        return st ? (int)st->code : PLM_EIO;
    }
    bool ok = in && out;
    for (size_t n; ok && (n = fread(buffer, 1, sizeof buffer, in)) > 0;)
        ok = fwrite(buffer, 1, n, out) == n;
    ok = ok && !ferror(in) && fflush(out) == 0 && fsync(fileno(out)) == 0;
    const int error = errno;
    if (out)
        ok = fclose(out) == 0 && ok;
    if (in)
        fclose(in);
    return ok ? PLM_OK : status_set(st, PLM_EIO, "cannot copy '%s' to '%s': %s", from, to, strerror(error));
}

static bool is_kept(const char *name)
{
    return name[0] != '.' && strncmp(name, "optimizer", 9) != 0 && strcmp(name, "manifest.json") != 0;
}

enum { MAX_FILES = 256 };

static int take_files(const char *from, const char *to, char *names[MAX_FILES], int *n, struct plm_status *st)
{
    DIR *d = opendir(from);
    if (!d)
        return status_set(st, PLM_EIO, "cannot open directory '%s': %s", from, strerror(errno));
    int code = PLM_OK;
    for (struct dirent *e; !code && (e = readdir(d));) {
        char source[PATH_MAX], target[PATH_MAX];
        if (!is_kept(e->d_name))
            continue;
        if (*n == MAX_FILES || snprintf(source, sizeof source, "%s/%s", from, e->d_name) >= (int)sizeof source ||
            snprintf(target, sizeof target, "%s/%s", to, e->d_name) >= (int)sizeof target)
            code = status_set(st, PLM_ELIMIT, "'%s': too many files, or a path that is too long", from);
        else if (!(names[*n] = strdup(e->d_name)))
            code = status_no_memory(st, 0, "a file name");
        else if (++*n && link(source, target) != 0)
            code = copy_file(source, target, st);
    }
    closedir(d);
    return code;
}

int model_keep(const char *checkpoint, const char *parent, const char *name, struct plm_status *st)
{
    char temporary[PATH_MAX], final[PATH_MAX], *names[MAX_FILES];
    int n = 0;
    if (snprintf(temporary, sizeof temporary, "%s/.%s.tmp", parent, name) >= (int)sizeof temporary)
        return status_set(st, PLM_EINVAL, "path too long: '%s'", parent);
    snprintf(final, sizeof final, "%s/%s", parent, name);
    int code = directory_remove(temporary, st);
    if (!code)
        code = directory_create_own(temporary, st);
    if (!code)
        code = take_files(checkpoint, temporary, names, &n, st);
    if (!code)
        code = manifest_write(temporary, (const char *const *)names, n, st);
    if (!code)
        code = directory_sync(temporary, st);
    if (!code)
        code = directory_publish(temporary, final, st);
    for (int i = 0; i < n; i++)
        free(names[i]);
    return code ? code : directory_sync(parent, st);
}
