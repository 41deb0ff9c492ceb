/* Log lines on stderr, or wherever the embedding application sends them. */
#ifndef INFER_BASE_LOG_H
#define INFER_BASE_LOG_H

#include "infer/base/status.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Replace the sink (NULL restores stderr). `line` has no newline. Called from any thread, one line at a time. */
void log_set_sink(void (*sink)(void *user, enum log_level level, const char *line), void *user);

/* Lines below this level are dropped; LOG_INFO at start. */
void log_set_level(enum log_level level);

void log_write(enum log_level level, const char *fmt, ...) PLM_PRINTF(2, 3);

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_write(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)

#endif
