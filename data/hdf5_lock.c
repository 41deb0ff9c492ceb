#include "data/hdf5_lock.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool begun; /* guarded by lock */

void hdf5_enter(struct hdf5_session *s)
{
    pthread_mutex_lock(&lock);
    if (!begun) {
        H5dont_atexit(); /* files are closed by hand; HDF5's own clean-up loops after a malformed file was refused */
        begun = true;
    }
    H5Eget_auto2(H5E_DEFAULT, &s->print, &s->print_data);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void hdf5_leave(const struct hdf5_session *s)
{
    H5Eset_auto2(H5E_DEFAULT, s->print, s->print_data);
    pthread_mutex_unlock(&lock);
}

struct text {
    char *to;
    size_t capacity;
};

static herr_t copy_message(unsigned n, const H5E_error2_t *error, void *user)
{
    const struct text *t = user;
    if (n == 0)
        snprintf(t->to, t->capacity, "%s", error->desc);
    return 0;
}

const char *hdf5_error(char *to, size_t capacity)
{
    snprintf(to, capacity, "unknown");
    struct text t = {to, capacity};
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, copy_message, &t);
    return to;
}
