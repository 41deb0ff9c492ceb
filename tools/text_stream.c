#include "tools/text_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "data/utf8.h"

/* Bytes at the end of text that begin a character and may become one with what follows. */
static size_t unfinished(const char *text, size_t n)
{
    for (size_t i = 1; i <= 3 && i <= n; i++) {
        const unsigned char lead = (unsigned char)text[n - i];
        const size_t needed = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 1;
        if ((lead & 0xC0) == 0x80)
            continue;
        if (needed <= i || lead > 0xF4)
            return 0;
        char whole[5];
        memcpy(whole, text + n - i, i);
        /* Is it one with some continuation? Only the first one is restricted. */
        static const unsigned char seconds[] = {0x80, 0x90, 0xA0};
        for (int k = 0; k < 3; k++) {
            for (size_t j = i; j < needed; j++)
                whole[j] = (char)(j == 1 ? seconds[k] : 0x80);
            if (utf8_valid_prefix(whole, needed) == needed)
                return i;
        }
        return 0;
    }
    return 0;
}

static int write_repaired(FILE *f, const char *text, size_t n, struct plm_status *st)
{
    int64_t replaced = 0;
    char *clean = malloc(3 * n + 1);
    if (!clean)
        return status_no_memory(st, 3 * n + 1, "a text");
    const size_t bytes = utf8_repair(text, n, clean, &replaced);
    errno = 0;
    const bool ok = fwrite(clean, 1, bytes, f) == bytes && fflush(f) == 0;
    free(clean);
    return ok ? PLM_OK : status_set(st, PLM_EIO, "the text cannot be written: %s", strerror(errno ? errno : EIO));
}

int text_stream_put(struct text_stream *s, FILE *f, const char *bytes, size_t n, struct plm_status *st)
{
    if (n == 0)
        return PLM_OK;
    char *all = malloc(s->n_held + n);
    if (!all)
        return status_no_memory(st, s->n_held + n, "a text");
    memcpy(all, s->held, s->n_held);
    memcpy(all + s->n_held, bytes, n);
    n += s->n_held;
    s->n_held = unfinished(all, n);
    memcpy(s->held, all + n - s->n_held, s->n_held);
    const int code = n > s->n_held ? write_repaired(f, all, n - s->n_held, st) : PLM_OK;
    free(all);
    return code;
}

int text_stream_end(struct text_stream *s, FILE *f, struct plm_status *st)
{
    const size_t n = s->n_held;
    s->n_held = 0;
    return n ? write_repaired(f, s->held, n, st) : PLM_OK;
}
