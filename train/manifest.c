#include "train/manifest.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "infer/base/mapped.h"
#include "train/files.h"

#define MANIFEST "manifest.json"
#define READ_BYTES (1 << 20)

static int digest_fail(struct plm_status *st)
{
    return status_set(st, PLM_EINTERNAL, "libcrypto cannot compute SHA-256");
}

static void digest_hex(const unsigned char *digest, char hex[SHA256_HEX])
{
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

int sha256_bytes(const void *data, size_t bytes, char hex[SHA256_HEX], struct plm_status *st)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    if (!EVP_Digest(data, bytes, digest, NULL, EVP_sha256(), NULL))
        return digest_fail(st);
    digest_hex(digest, hex);
    return PLM_OK;
}

int sha256_file(const char *path, char hex[SHA256_HEX], int64_t *size, struct plm_status *st)
{
    struct stat info;
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    FILE *f = fd >= 0 ? fdopen(fd, "rb") : NULL;
    if (!f) {
        const int error = errno;
        if (fd >= 0)
            close(fd);
        return status_set(st, error == ENOENT ? PLM_EFORMAT : PLM_EIO, "cannot open '%s': %s", path, strerror(error));
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        fclose(f);
        return status_set(st, PLM_EFORMAT, "'%s' is not a regular file", path);
    }
    unsigned char *buffer = malloc(READ_BYTES), digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int code = PLM_OK;
    int64_t total = 0;
    if (!buffer || !ctx)
        code = status_no_memory(st, READ_BYTES, "reading a file");
    else if (!EVP_DigestInit_ex(ctx, EVP_sha256(), NULL))
        code = digest_fail(st);
    while (!code) {
        size_t n = fread(buffer, 1, READ_BYTES, f);
        if (ferror(f))
            code = status_set(st, PLM_EIO, "cannot read '%s': %s", path, strerror(errno));
        else if (!EVP_DigestUpdate(ctx, buffer, n))
            code = digest_fail(st);
        total += (int64_t)n;
        if (n < READ_BYTES)
            break;
    }
    if (!code && !EVP_DigestFinal_ex(ctx, digest, NULL))
        code = digest_fail(st);
    if (!code) {
        digest_hex(digest, hex);
        if (size)
            *size = total;
    }
    EVP_MD_CTX_free(ctx);
    free(buffer);
    fclose(f);
    return code;
}

static int path_join(char out[PATH_MAX], const char *dir, const char *name, struct plm_status *st)
{
    if (snprintf(out, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX)
        return status_set(st, PLM_ELIMIT, "the path '%.100s.../%s' is too long", dir, name);
    return PLM_OK;
}

int manifest_write(const char *dir, const char *const *names, int n, struct plm_status *st)
{
    json_t *files = json_object();
    int code = files ? PLM_OK : status_no_memory(st, 0, "a manifest");
    for (int i = 0; i < n && !code; i++) {
        char path[PATH_MAX], hex[SHA256_HEX];
        int64_t size = 0;
        code = path_join(path, dir, names[i], st);
        if (!code)
            code = sha256_file(path, hex, &size, st);
        if (!code && json_object_set_new(files, names[i], json_pack("{s:I, s:s}", "bytes", (json_int_t)size, "sha256", hex)))
            code = status_no_memory(st, 0, "a manifest");
    }
    json_t *root = code ? NULL : json_pack("{s:s, s:i, s:O}", "format", "plm-manifest", "version", 1, "files", files);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    if (!code && !text)
        code = status_no_memory(st, 0, "a manifest");
    char path[PATH_MAX];
    if (!code)
        code = path_join(path, dir, MANIFEST, st);
    if (!code)
        code = file_replace(path, text, strlen(text), st);
    free(text);
    json_decref(root);
    json_decref(files);
    return code;
}

static int verify_file(const char *dir, const char *name, const json_t *entry, struct plm_status *st)
{
    const json_t *bytes = json_object_get(entry, "bytes"), *sha256 = json_object_get(entry, "sha256");
    if (!*name || strchr(name, '/') || !json_is_integer(bytes) || !json_is_string(sha256))
        return status_set(st, PLM_EFORMAT, "%s/" MANIFEST ": malformed entry '%.80s'", dir, name);
    char path[PATH_MAX], hex[SHA256_HEX];
    int64_t size = 0;
    int code = path_join(path, dir, name, st);
    if (!code)
        code = sha256_file(path, hex, &size, st);
    if (code)
        return code;
    if (size != json_integer_value(bytes))
        return status_set(st, PLM_EFORMAT, "'%s' has %lld bytes, expected %lld: it was cut off or changed after it was "
                          "written", path, (long long)size, (long long)json_integer_value(bytes));
    if (strcmp(hex, json_string_value(sha256)) != 0)
        return status_set(st, PLM_EFORMAT, "'%s' is corrupt: its SHA-256 is %s, expected %.64s", path, hex,
                          json_string_value(sha256));
    return PLM_OK;
}

int manifest_verify(const char *dir, struct plm_status *st)
{
    char path[PATH_MAX];
    int code = path_join(path, dir, MANIFEST, st);
    if (code)
        return code;
    if (access(path, F_OK) != 0)
        return errno == ENOENT ? status_set(st, PLM_EFORMAT, "'%s' is incomplete: it has no " MANIFEST, dir)
                               : status_set(st, PLM_EIO, "cannot look at '%s': %s", path, strerror(errno));
    struct mapped_file file;
    code = mapped_open(&file, path, st);
    if (code)
        return code;
    json_error_t error;
    json_t *root = json_loadb(file.data ? (const char *)file.data : "", file.size, JSON_REJECT_DUPLICATES, &error);
    mapped_close(&file);
    if (!root)
        return status_set(st, json_error_code(&error) == json_error_out_of_memory ? PLM_ENOMEM : PLM_EFORMAT, "%s:%d:%d: %s", path, error.line,
                          error.column, error.text);
    const char *name;
    json_t *entry, *files = json_object_get(root, "files");
    const char *format = json_string_value(json_object_get(root, "format"));
    if (!format || strcmp(format, "plm-manifest") != 0 || json_object_size(files) == 0)
        code = status_set(st, PLM_EFORMAT, "%s: not a manifest of plm.c with files in it", path);
    json_object_foreach(files, name, entry) {
        if (!code)
            code = verify_file(dir, name, entry, st);
    }
    json_decref(root);
    return code;
}
