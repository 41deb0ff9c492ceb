/* Shards: tokenised documents in an HDF5 file (data.md 2.6).
 *
 *   /tokens       u16 (vocabulary up to 65,536) or u32 [n_tokens], chunked, filter 32015 (zstd); chunks written directly
 *   /doc_offsets  u64 [n_documents + 1], contiguous; document i is tokens[doc_offsets[i], doc_offsets[i + 1])
 *   /chunk_index  u64 [n_chunks][3], contiguous: file offset, stored bytes, XXH3-64 of the stored bytes of every chunk
 *   attributes of /: see struct shard_info; doc_offsets_xxh3, chunk_index_xxh3; `complete` = 1, written last
 *
 * HDF5 lays the file out (format v110: checksummed metadata) and describes it; token data is read with pread and decoded
 * outside of HDF5, by any number of threads. A file is taken to be hostile until checked (data.md 2.5). */
#ifndef DATA_SHARD_H
#define DATA_SHARD_H

#include <stdint.h>

#include "infer/base/status.h"

#define SHARD_CHUNK_TOKENS 1048576 /* tokens of a chunk unless the data are small */
#define SHARD_MAX_CHUNKS 256       /* HDF5 1.10 looks chunk addresses up in linear time */

struct shard_info {
    char tokenizer_sha256[65];  /* hexadecimal, of the tokenizer.json */
    char name[64];              /* of the data set */
    char tool_version[32];      /* of the program that wrote it */
    int64_t vocab_size;
    int64_t bos_id, eos_id, pad_id; /* -1: none */
    int64_t seed;
    int64_t text_bytes;         /* UTF-8 bytes of the text the tokens stand for */
    int64_t n_tokens, n_documents, n_chunks, chunk_tokens;
    int token_bytes;            /* 2 or 4 */
    int64_t stored_bytes;       /* of all chunks, compressed */
    int64_t file_bytes;
    uint64_t content_hash;      /* of documents and tokens as they are stored; 0 while a shard is written */
};

/* Writing */

struct shard_writer;

struct shard_writer_options {
    const char *tokenizer_sha256; /* 64 hexadecimal digits */
    const char *name;             /* NULL: "" */
    int64_t vocab_size;
    int64_t bos_id, eos_id, pad_id;
    int64_t seed;
    int64_t chunk_tokens;         /* 0: SHARD_CHUNK_TOKENS */
    int level;                    /* of zstd; 0: 3 */
    int n_threads;                /* that compress; 0: the caller does */
};

/* Writes to "PATH.tmp" until shard_writer_finish. */
int shard_writer_create(struct shard_writer **out, const char *path, const struct shard_writer_options *o,
                        struct plm_status *st);

/* Append one document of n > 0 tokens that stand for text_bytes bytes of text. */
int shard_writer_append(struct shard_writer *w, const int32_t *tokens, int64_t n, int64_t text_bytes, struct plm_status *st);

/* Tokens that still fit into SHARD_MAX_CHUNKS. */
int64_t shard_writer_room(const struct shard_writer *w);

/* Write the rest, flush, fsync and rename to the final path. *info (may be NULL) describes the file. Frees w either way; when
 * it fails, the temporary file is gone and a previous file at the path is untouched. */
int shard_writer_finish(struct shard_writer *w, struct shard_info *info, struct plm_status *st);

/* Give up: free and remove the temporary file. NULL is allowed. */
void shard_writer_abort(struct shard_writer *w);

/* Reading */

struct shard;         /* read-only after shard_open, may be shared by threads */
struct shard_decoder; /* scratch memory of one reading thread */

int shard_open(struct shard **out, const char *path, struct plm_status *st);
void shard_close(struct shard *s);

const struct shard_info *shard_information(const struct shard *s);
const uint64_t *shard_doc_offsets(const struct shard *s); /* (n_documents + 1), rising, first 0, last n_tokens */
const char *shard_path(const struct shard *s);

int shard_decoder_create(struct shard_decoder **out, struct plm_status *st);
void shard_decoder_free(struct shard_decoder *d);

/* Decode chunk i into tokens, which holds chunk_tokens * token_bytes bytes; checked: XXH3, zstd frame and checksum, exact
 * size, every token below vocab_size. Tokens past n_tokens in the last chunk are zero. */
int shard_read_chunk(const struct shard *s, int64_t chunk, struct shard_decoder *d, void *tokens, struct plm_status *st);

#endif
