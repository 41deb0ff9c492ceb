#include "infer/base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void (*current_sink)(void *, enum log_level, const char *);
static void *sink_user;
static enum log_level threshold = LOG_INFO;

void log_set_sink(void (*sink)(void *user, enum log_level level, const char *line), void *user)
{
    pthread_mutex_lock(&lock);
    current_sink = sink;
    sink_user = user;
    pthread_mutex_unlock(&lock);
}

void log_set_level(enum log_level level)
{
    pthread_mutex_lock(&lock);
    threshold = level;
    pthread_mutex_unlock(&lock);
}

void log_write(enum log_level level, const char *fmt, ...)
{
    static const char *const prefix[] = {"debug: ", "", "warning: ", "error: "};
    char line[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    pthread_mutex_lock(&lock);
    if (level >= threshold) {
        if (current_sink)
            current_sink(sink_user, level, line);
        else
            fprintf(stderr, "%s%s\n", prefix[level], line);
    }
    pthread_mutex_unlock(&lock);
}
