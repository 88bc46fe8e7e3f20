#include "utf8.h"

#include <string.h>

size_t utf8_decode(const char *at, const char *end, uint32_t *point)
{
    static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *byte = (const unsigned char *)at;
    size_t length;
    uint32_t value;

    if (at >= end)
        return 0;
    if (byte[0] < 0x80) {
        *point = byte[0];
        return 1;
    }
    if ((byte[0] & 0xe0) == 0xc0)
        length = 2;
    else if ((byte[0] & 0xf0) == 0xe0)
        length = 3;
    else if ((byte[0] & 0xf8) == 0xf0)
        length = 4;
    else
        return 0;
    if ((size_t)(end - at) < length)
        return 0;
    value = byte[0] & (0x7fU >> length);
    for (size_t i = 1; i < length; i++) {
        if ((byte[i] & 0xc0) != 0x80)
            return 0;
        value = (value << 6) | (byte[i] & 0x3fU);
    }
    if (value < lowest[length] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return 0;
    *point = value;
    return length;
}

size_t utf8_encode(uint32_t point, char out[4])
{
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    size_t length = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;

    for (size_t i = length - 1; i > 0; i--) {
        out[i] = (char)(0x80U | (point & 0x3fU));
        point >>= 6;
    }
    out[0] = (char)(lead[length] | point);
    return length;
}

bool utf8_valid(const char *text)
{
    const char *end = text + strlen(text);
    uint32_t point;

    while (text < end) {
        size_t length = utf8_decode(text, end, &point);

        if (length == 0)
            return false;
        text += length;
    }
    return true;
}
