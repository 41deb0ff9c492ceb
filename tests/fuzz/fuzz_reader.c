/* Bytes as a file to read: the first byte chooses the kind. Every document that comes out must be valid UTF-8 within the
 * limits, and what went in must be accounted for. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "data/reader.h"
#include "data/utf8.h"
#include "infer/base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void drop(void *user, enum log_level level, const char *line)
{
    (void)user, (void)level, (void)line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const kinds[] = {"txt", "jsonl", "txt.gz", "jsonl.gz", "txt.zst", "jsonl.zst"};
    if (size == 0)
        return 0;
    log_set_sink(drop, NULL);
    char path[64];
    snprintf(path, sizeof path, "fuzz-reader-%ld.%s", (long)getpid(), kinds[data[0] % 6]);
    FILE *f = fopen(path, "wb");
    if (!f)
        abort();
    fwrite(data + 1, 1, size - 1, f);
    fclose(f);
    const char *input = path;
    struct reader_options o = {.max_document = 64, .max_line = 512};
    struct plm_status st = {0};
    struct reader *r;
    if (reader_open(&r, &input, 1, &o, &st))
        abort();
    struct document doc;
    int64_t n = 0;
    while (reader_next(r, &doc, &st) == PLM_OK && doc.text) {
        /* repair can make a piece of 64 bytes three times as long */
        if (doc.length == 0 || doc.length > 3 * 64 || utf8_valid_prefix(doc.text, doc.length) != doc.length || doc.line < 1)
            abort();
        n++;
    }
    if (n != reader_statistics(r)->documents)
        abort();
    reader_close(r);
    unlink(path);
    return 0;
}
