#include "tests/fuzz/fuzz_files.h"

#include <dirent.h>
#include <string.h>
#include <unistd.h>

static char directory[64];

static void remove_directory(void)
{
    DIR *d = opendir(directory);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.')
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(directory);
}

const char *fuzz_directory(void)
{
    if (!directory[0]) {
        snprintf(directory, sizeof directory, "fuzz-files-XXXXXX");
        if (!mkdtemp(directory))
            abort();
        atexit(remove_directory);
    }
    return directory;
}

const char *fuzz_path(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", fuzz_directory(), name);
    return path;
}

void fuzz_write(const char *name, const void *data, size_t size)
{
    FILE *f = fopen(fuzz_path(name), "wb");
    if (!f || (size && fwrite(data, size, 1, f) != 1) || fclose(f))
        abort();
}

void fuzz_edit(unsigned char *file, size_t file_size, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i + 3 <= size && file_size; i += 3)
        file[(size_t)(data[i] | data[i + 1] << 8) % file_size] = data[i + 2];
}

void fuzz_write_text(const char *name, const char *good, const uint8_t *data, size_t size)
{
    const size_t n = strlen(good);
    if (size == 0 || data[0] % 2 == 0) {
        fuzz_write(name, data + (size > 0), size - (size > 0));
        return;
    }
    unsigned char *text = malloc(n);
    if (!text)
        abort();
    memcpy(text, good, n);
    fuzz_edit(text, n, data + 1, size - 1);
    fuzz_write(name, text, n);
    free(text);
}
