/* A simulation of Vera's pluto-lzo: "pluto-lzo c|d SOURCE TARGET".
 *
 * The format: the length of the content as four bytes, little-endian, then one raw LZO1X stream. Like the
 * real program, it reads whole files into memory. Like the one known reimplementation, it exits with 0
 * even for damaged content, so the caller has to verify the result.
 *
 * With a file /tmp/pluto-lzo.hangs it never ends, for tests of timeouts.
 */
#include <lzo/lzo1x.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned char *read_all(const char *path, lzo_uint *length)
{
    FILE *file = fopen(path, "rb");
    unsigned char *bytes;
    long size;

    if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) < 0)
        return NULL;
    rewind(file);
    bytes = malloc(size + 1);
    if (!bytes || fread(bytes, 1, size, file) != (size_t)size)
        return NULL;
    fclose(file);
    *length = size;
    return bytes;
}

int main(int argc, char **argv)
{
    lzo_uint source_length = 0, target_length, start = 0;
    unsigned char *source, *target;
    FILE *file;

    if (argc != 4 || (strcmp(argv[1], "c") && strcmp(argv[1], "d")))
        return fputs("usage: pluto-lzo {c|d} source target\n", stderr), 1;
    if (access("/tmp/pluto-lzo.hangs", F_OK) == 0)
        for (;;)
            pause();
    source = read_all(argv[2], &source_length);
    if (!source || lzo_init() != LZO_E_OK)
        return fprintf(stderr, "cannot read %s\n", argv[2]), 2;

    if (argv[1][0] == 'c') {
        void *memory = malloc(LZO1X_1_MEM_COMPRESS);

        target = malloc(4 + source_length + source_length / 16 + 67);
        lzo1x_1_compress(source, source_length, target + 4, &target_length, memory);
        for (int i = 0; i < 4; i++)
            target[i] = source_length >> (8 * i);
        target_length += 4;
    } else {
        if (source_length < 4)
            return 0;
        start = 4;
        target_length = source[0] | source[1] << 8 | source[2] << 16 | (lzo_uint)source[3] << 24;
        target = calloc(1, target_length + 1);
        if (!target)
            return 3;
        lzo1x_decompress_safe(source + start, source_length - start, target, &target_length, NULL);
    }

    file = fopen(argv[3], "wb");
    if (!file)
        return fprintf(stderr, "cannot write %s\n", argv[3]), 2;
    fwrite(target, 1, target_length, file);
    fclose(file);
    return 0;
}
