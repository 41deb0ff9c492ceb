/* Bytes as a shard: open it and decode every chunk. HDF5 sees only what passed the check of the signature. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "data/shard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5"; /* HDF5 1.10 leaks when it refuses a malformed file */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[64];
    if (!path[0])
        snprintf(path, sizeof path, "fuzz-shard-%ld.h5", (long)getpid());
    FILE *f = fopen(path, "wb");
    if (!f)
        abort();
    fwrite(data, 1, size, f);
    fclose(f);
    struct plm_status st = {0};
    struct shard *s;
    struct shard_decoder *decoder = NULL;
    if (shard_open(&s, path, &st) == PLM_OK && shard_decoder_create(&decoder, &st) == PLM_OK) {
        const struct shard_info *info = shard_information(s);
        void *chunk = malloc((size_t)info->chunk_tokens * (size_t)info->token_bytes);
        for (int64_t c = 0; chunk && c < info->n_chunks; c++)
            if (shard_read_chunk(s, c, decoder, chunk, &st))
                break;
        free(chunk);
    }
    shard_decoder_free(decoder);
    shard_close(s);
    unlink(path);
    return 0;
}
