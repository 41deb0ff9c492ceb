#include "data/memory_room.h"

#include <sys/mman.h>

int memory_room(size_t bytes, const char *what, struct plm_status *st)
{
    void *room = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED)
        return status_no_memory(st, bytes, what);
    munmap(room, bytes);
    return PLM_OK;
}
