#include "tests/format/memory_file.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/mapped.h"

static const void *source;
static size_t source_size;
static const void *second;
static size_t second_size;

void memory_file_set(const void *data, size_t size)
{
    source = data;
    source_size = size;
}

void memory_file_set_second(const void *data, size_t size)
{
    second = data;
    second_size = size;
}

int mapped_open(struct mapped_file *m, const char *path, struct plm_status *st)
{
    const bool is_second = second && strstr(path, "-00002-of-");
    const size_t size = is_second ? second_size : source_size;
    *m = (struct mapped_file){0};
    if (size == 0)
        return PLM_OK;
    unsigned char *copy = malloc(size);
    if (!copy)
        return status_no_memory(st, size, path);
    memcpy(copy, is_second ? second : source, size);
    *m = (struct mapped_file){copy, size};
    return PLM_OK;
}

void mapped_close(struct mapped_file *m)
{
    free((void *)m->data);
    *m = (struct mapped_file){0};
}
