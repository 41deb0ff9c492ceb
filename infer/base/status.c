#include "infer/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int status_set(struct plm_status *st, enum plm_code code, const char *fmt, ...)
{
    if (st) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(st->message, sizeof st->message, fmt, args);
        va_end(args);
        st->code = code;
    }
    return code;
}

int status_prefix(struct plm_status *st, const char *fmt, ...)
{
    if (!st)
        return PLM_EINTERNAL;
    char old[sizeof st->message];
    memcpy(old, st->message, sizeof old);
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(st->message, sizeof st->message, fmt, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof st->message)
        snprintf(st->message + n, sizeof st->message - (size_t)n, ": %s", old);
    return st->code ? (int)st->code : PLM_EINTERNAL;
}

int status_no_memory(struct plm_status *st, size_t bytes, const char *what)
{
    return status_set(st, PLM_ENOMEM, "out of memory: cannot allocate %.1f MiB for %s", (double)bytes / 1048576.0, what);
}

const char *plm_code_name(int code)
{
    switch (code) {
    case PLM_OK: return "ok";
    case PLM_EINVAL: return "invalid argument";
    case PLM_EIO: return "input/output error";
    case PLM_ENOMEM: return "out of memory";
    case PLM_EFORMAT: return "malformed file";
    case PLM_EUNSUPPORTED: return "unsupported";
    case PLM_ELIMIT: return "limit exceeded";
    case PLM_ESTOPPED: return "stopped";
    case PLM_ECOMM: return "communication error";
    case PLM_EINTERNAL: return "internal error";
    default: return "unknown code";
    }
}
