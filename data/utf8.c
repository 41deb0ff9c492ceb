#include "data/utf8.h"

#include <string.h>

/* The sequence at text: returns its length when valid, else minus the length of the maximal invalid part. */
static int sequence(const unsigned char *text, size_t length)
{
    unsigned char lead = text[0], low = 0x80, high = 0xBF;
    int n;
    if (lead < 0x80)
        return lead ? 1 : -1;
    if (lead >= 0xC2 && lead <= 0xDF)
        n = 2;
    else if (lead >= 0xE0 && lead <= 0xEF)
        n = 3;
    else if (lead >= 0xF0 && lead <= 0xF4)
        n = 4;
    else
        return -1;
    if (lead == 0xE0)
        low = 0xA0;
    else if (lead == 0xED)
        high = 0x9F;
    else if (lead == 0xF0)
        low = 0x90;
    else if (lead == 0xF4)
        high = 0x8F;
    for (int i = 1; i < n; i++) {
        if ((size_t)i >= length || text[i] < low || text[i] > high)
            return -i;
        low = 0x80;
        high = 0xBF;
    }
    return n;
}

size_t utf8_valid_prefix(const char *text, size_t length)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t i = 0;
    while (i < length) {
        /* eight bytes of ASCII at once: no high bit and no zero byte */
        uint64_t word;
        if (i + 8 <= length) {
            memcpy(&word, p + i, 8);
            if (!((word | (word - 0x0101010101010101u)) & 0x8080808080808080u)) {
                i += 8;
                continue;
            }
        }
        int n = sequence(p + i, length - i);
        if (n < 0)
            break;
        i += (size_t)n;
    }
    return i;
}

size_t utf8_repair(const char *text, size_t length, char *out, int64_t *replaced)
{
    size_t i = 0, n = 0;
    while (i < length) {
        size_t valid = utf8_valid_prefix(text + i, length - i);
        memcpy(out + n, text + i, valid);
        i += valid;
        n += valid;
        if (i < length) {
            memcpy(out + n, "\xEF\xBF\xBD", 3);
            n += 3;
            i += (size_t)-sequence((const unsigned char *)text + i, length - i);
            ++*replaced;
        }
    }
    return n;
}
