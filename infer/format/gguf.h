/* GGUF files, version 3 (2 is read too), little-endian: metadata, tensor descriptions, aligned data. */
#ifndef INFER_FORMAT_GGUF_H
#define INFER_FORMAT_GGUF_H

#include "infer/format/safetensors.h"

enum gguf_value_type {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING, GGUF_ARRAY,
    GGUF_U64, GGUF_I64, GGUF_F64
};

#define GGUF_MAX_PARTS 9999

struct gguf;

/* `path` names part `no` (from 0) of `count`: NAME-00001-of-00003.gguf. *out receives the name of part `other`. PLM_EFORMAT when
 * `path` does not end so. */
int gguf_part_path(char *out, size_t size, const char *path, uint64_t no, uint64_t other, uint64_t count, struct plm_status *st);

/* Reader. Nothing is copied but tensor names and an index of string arrays; memory is proportional to the metadata. */

/* Map and validate everything: counts, string lengths, types, alignment, dims, offsets, overlaps, against the file size.
 * A tensor of a type this build cannot compute with is an error only when gguf_tensor is asked for it (the message names
 * it), so that metadata of any file can be read. A file that is one part of several (split.count above 1) is opened with all
 * the others, whichever is given: metadata are those of the first, and the tensors of all of them one list. The parts lie
 * beside each other under names that end in -00001-of-00003.gguf; PLM_EIO or PLM_EFORMAT names the part that is missing or of
 * another model. Data that the file does not align to their type are copied. */
int gguf_open(struct gguf **out, const char *path, struct plm_status *st);
void gguf_close(struct gguf *g);

bool gguf_has(const struct gguf *g, const char *key);
/* The i-th key in sorted order, not NUL-terminated; NULL beyond the last. */
const char *gguf_key(const struct gguf *g, size_t i, size_t *length);
/* Scalars convert between widths when the value fits (a bool reads as 0 or 1 in gguf_get_u64, an integer as a number in
 * gguf_get_f64). PLM_EFORMAT otherwise; the message names the key, what was found, what was expected. A string is in the
 * mapping and not NUL-terminated. */
int gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct plm_status *st);
int gguf_get_f64(const struct gguf *g, const char *key, double *out, struct plm_status *st);
int gguf_get_string(const struct gguf *g, const char *key, const char **out, size_t *length, struct plm_status *st);
/* Arrays: *n receives the number of elements, which must have type `want` (other integers pass for i32 when every value fits). */
int gguf_get_array(const struct gguf *g, const char *key, enum gguf_value_type want, uint64_t *n, struct plm_status *st);
/* Element i of an array of strings (in the mapping, not NUL-terminated; NULL and 0 when there is no such element), and of
 * integers that gguf_get_array gave as i32 (0 when there is none). */
void gguf_array_string(const struct gguf *g, const char *key, uint64_t i, const char **out, size_t *length);
int32_t gguf_array_i32(const struct gguf *g, const char *key, uint64_t i);

int gguf_n_tensors(const struct gguf *g);

/* The i-th tensor's name in file order, NULL beyond the last; owned by g. */
const char *gguf_tensor_name(const struct gguf *g, int i);
/* Fill *out for tensor `name`, valid until gguf_close; PLM_EFORMAT when missing, PLM_EUNSUPPORTED for a type this build
 * lacks. */
int gguf_tensor(const struct gguf *g, const char *name, struct stored_tensor *out, struct plm_status *st);

/* Writer, version 3, alignment 32. As with safetensors: the file is written in place, declared tensors' data must come in
 * order, and after an error every further call returns the same one. */
struct gguf_writer;
int gguf_create(struct gguf_writer **out, const char *path, struct plm_status *st);

/* Metadata, in call order; all must precede the first gguf_write. Values are copied. */
int gguf_set_u32(struct gguf_writer *w, const char *key, uint32_t v, struct plm_status *st);
int gguf_set_f32(struct gguf_writer *w, const char *key, float v, struct plm_status *st);
int gguf_set_bool(struct gguf_writer *w, const char *key, bool v, struct plm_status *st);
int gguf_set_string(struct gguf_writer *w, const char *key, const char *v, size_t length, struct plm_status *st);
int gguf_set_strings(struct gguf_writer *w, const char *key, const char *const *v, const size_t *lengths, uint64_t n,
                     struct plm_status *st);
int gguf_set_i32s(struct gguf_writer *w, const char *key, const int32_t *v, uint64_t n, struct plm_status *st);

/* Names have 1 to 63 bytes (ggml's limit); rows are whole blocks of the type. */
int gguf_declare(struct gguf_writer *w, const char *name, enum dtype type, int n_dims,
                 const int64_t *shape /* outermost first */, struct plm_status *st);
int gguf_write(struct gguf_writer *w, const void *data, size_t bytes, struct plm_status *st); /* as safetensors_write */
int gguf_finish(struct gguf_writer *w, struct plm_status *st);                                /* as safetensors_finish */
void gguf_discard(struct gguf_writer *w);                                                     /* as safetensors_discard */

#endif
