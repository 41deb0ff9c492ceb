/* embed OUT.c FILE...: the bytes of each file as an array embedded_NAME (NUL after it) with embedded_NAME_size, in C. NAME is the file's with "_" for what a
 * name in C cannot have. Runs while plm is built. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

static void put_name(FILE *out, const char *path)
{
    const char *slash = strrchr(path, '/');
    fputs("embedded_", out);
    for (const char *p = slash ? slash + 1 : path; *p; p++)
        fputc(isalnum((unsigned char)*p) ? *p : '_', out);
}

static int put_file(FILE *out, const char *path)
{
    FILE *in = fopen(path, "rb");
    if (!in)
        return -1;
    unsigned long n = 0;
    fputs("extern const unsigned char ", out);
    put_name(out, path);
    fputs("[];\nconst unsigned char ", out);
    put_name(out, path);
    fputs("[] = {", out);
    for (int byte; (byte = fgetc(in)) != EOF; n++)
        fprintf(out, "%s%d,", n % 32 ? "" : "\n", byte);
    fputs("0};\nextern const size_t ", out);
    put_name(out, path);
    fputs("_size;\nconst size_t ", out);
    put_name(out, path);
    fprintf(out, "_size = %lu;\n", n);
    const int failed = ferror(in);
    fclose(in);
    return failed ? -1 : 0;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: embed OUT.c FILE...\n");
        return 2;
    }
    FILE *out = fopen(argv[1], "w");
    if (!out) {
        perror(argv[1]);
        return 1;
    }
    fputs("#include <stddef.h>\n", out);
    for (int i = 2; i < argc; i++)
        if (put_file(out, argv[i]) != 0) {
            perror(argv[i]);
            fclose(out);
            return 1;
        }
    const int failed = ferror(out);
    if (fclose(out) != 0 || failed) {
        perror(argv[1]);
        return 1;
    }
    return 0;
}
