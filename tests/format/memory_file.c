#include "tests/format/memory_file.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/mapped.h"

static const void *source;
static size_t source_size;

void memory_file_set(const void *data, size_t size)
{
    source = data;
    source_size = size;
}

int mapped_open(struct mapped_file *m, const char *path, struct plm_status *st)
{
    *m = (struct mapped_file){0};
    if (source_size == 0)
        return PLM_OK;
    unsigned char *copy = malloc(source_size);
    if (!copy)
        return status_no_memory(st, source_size, path);
    memcpy(copy, source, source_size);
    *m = (struct mapped_file){copy, source_size};
    return PLM_OK;
}

void mapped_close(struct mapped_file *m)
{
    free((void *)m->data);
    *m = (struct mapped_file){0};
}
