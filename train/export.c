#include "train/export.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char export_type_names[] = "f32, f16, bf16, q8_0, q4_0, q4_k, q6_k or q4_k_m";

bool export_type_by_name(struct export_type *out, const char *name)
{
    bool mixture = strcasecmp(name, "q4_k_m") == 0;
    enum dtype type = mixture ? DTYPE_Q4_K : dtype_by_name(name);
    if (type == DTYPE_COUNT)
        return false;
    *out = (struct export_type){mixture ? "q4_k_m" : dtype_info(type)->name, type, mixture};
    return true;
}

void export_summary_free(struct export_summary *summary)
{
    free(summary->files);
    *summary = (struct export_summary){0};
}

void export_count(struct export_summary *summary, const struct weight *from, enum dtype type)
{
    summary->n_tensors++;
    summary->n_of_type[type]++;
    summary->bytes_of_type[type] += (int64_t)dtype_row_bytes(type, from->cols) * from->rows;
}

int export_add_file(struct export_summary *summary, const char *path, const char *name, int n_tensors, struct plm_status *st)
{
    struct export_file *files = realloc(summary->files, (size_t)(summary->n_files + 1) * sizeof *files);
    if (!files)
        return status_no_memory(st, (size_t)(summary->n_files + 1) * sizeof *files, "the list of files");
    summary->files = files;
    struct export_file *f = &files[summary->n_files++];
    *f = (struct export_file){.n_tensors = n_tensors};
    snprintf(f->name, sizeof f->name, "%s", name);
    int code = sha256_file(path, f->sha256, &f->bytes, st);
    summary->bytes += f->bytes;
    return code;
}

/* The first element that is not finite, or -1. */
static int64_t find_not_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return i;
    return -1;
}

int export_tensor(const struct weight *from, const char *name, enum dtype type,
                  int (*write)(void *writer, const void *data, size_t bytes, struct plm_status *st), void *writer, struct plm_status *st)
{
    const size_t in_bytes = dtype_row_bytes(from->type, from->cols), out_bytes = dtype_row_bytes(type, from->cols);
    float *row = malloc((size_t)from->cols * sizeof *row);
    void *out = malloc(out_bytes);
    int code = row && out ? PLM_OK : status_no_memory(st, out_bytes, "a row of weights");
    for (int64_t r = 0; r < from->rows && !code; r++) {
        const void *stored = (const char *)from->data + (size_t)r * in_bytes;
        dtype_to_f32(from->type, row, stored, from->cols);
        int64_t bad = find_not_finite(row, from->cols);
        if (bad >= 0) {
            code = status_set(st, PLM_EFORMAT, "tensor '%s': row %lld, column %lld is %g; the weights are damaged, or training diverged", name,
                              (long long)r, (long long)bad, (double)row[bad]);
        } else if (from->type == type) {
            code = write(writer, stored, in_bytes, st);
        } else {
            dtype_from_f32(type, out, row, from->cols);
            dtype_to_f32(type, row, out, from->cols);
            bad = find_not_finite(row, from->cols);
            code = bad < 0 ? write(writer, out, out_bytes, st)
                           : status_set(st, PLM_EFORMAT, "tensor '%s': row %lld, column %lld is too large for type %s; choose another", name,
                                        (long long)r, (long long)bad, dtype_info(type)->name);
        }
    }
    free(row);
    free(out);
    return code;
}
