#include "tests/text/random_text.h"

#include "infer/base/random.h"
#include "infer/text/utf8.h"

static const uint32_t nasty[] = {
    'a', 'b', 'z', 'A', 's', 'S', 't', 'T', 'r', 'e', 'E', 'v', 'm', 'M', 'l', 'L', 'd', 'D', '\'', '\'', '\'', '\'',
    ' ', ' ', ' ', '\t', '\n', '\n', '\r', 0x0B, 0x0C, 0x1C, 0x1F, 0x00, 0x7F, '.', ',', '!', '<', '|', '>', '0',
    '1', '9', 0x85, 0xA0, 0xAD, 0xB2, 0xBC, 0xC9, 0xE9, 0x17F, 0x130, 0x131, 0x300, 0x301, 0x302, 0x323, 0x327, 0x338,
    0x340, 0x344, 0x345, 0x378, 0x37E, 0x660, 0x653, 0x654, 0x93C, 0x915, 0x94D, 0x958, 0x9C7, 0x9BE, 0x9D7, 0xDD9,
    0xDCF, 0xDCA, 0xF71, 0xF72, 0xF73, 0x1025, 0x102E, 0x1100, 0x1112, 0x1161, 0x1175, 0x11A8, 0x11C2, 0x1680, 0x180E,
    0x1E9B, 0x1ED7, 0x1FC1, 0x2000, 0x200A, 0x200B, 0x200D, 0x2028, 0x2029, 0x202F, 0x205F, 0x2126, 0x212A, 0x212B,
    0x2160, 0x2ADC, 0x3000, 0x3046, 0x3099, 0x4E2D, 0xAC00, 0xAC01, 0xD7A3, 0xF900, 0xFB1D, 0xFB06, 0xFEFF, 0xFF9E,
    0xFFFD, 0xFFFF, 0x11099, 0x110BA, 0x11131, 0x11127, 0x11935, 0x11930, 0x1D15E, 0x1D165, 0x1D16D, 0x1F680, 0x1F3FD,
    0x2F801, 0x2FA1D, 0xE0001, 0x10FFFF};

uint64_t random_below(struct random_source *r, uint64_t n)
{
    return random_u64(r->seed, RANDOM_TEST, 0, r->index++) % n;
}

uint32_t random_point(struct random_source *r)
{
    static const uint32_t limits[] = {0x80, 0x3000, 0x10000, 0x20000, 0x110000};
    if (random_below(r, 8))
        return nasty[random_below(r, sizeof nasty / sizeof nasty[0])];
    uint32_t c = (uint32_t)random_below(r, limits[random_below(r, 5)]);
    return c >= 0xD800 && c <= 0xDFFF ? 0xFFFD : c;
}

size_t random_text(struct random_source *r, size_t n, char *out)
{
    size_t used = 0;
    for (size_t count = random_below(r, n + 1); count > 0; count--)
        used += utf8_encode(random_point(r), (unsigned char *)out + used);
    return used;
}

void random_broken_bytes(struct random_source *r, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++) {
        unsigned k = (unsigned)random_below(r, 3);
        /* ASCII, continuation bytes without a lead, bytes that never occur in UTF-8 */
        out[i] = (char)(k == 0 ? random_below(r, 0x80) : k == 1 ? 0x80 + random_below(r, 0x42) : 0xF5 + random_below(r, 11));
    }
}
