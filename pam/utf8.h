/* UTF-8, one code point at a time (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF). */
#ifndef OTPBRIDGE_UTF8_H
#define OTPBRIDGE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The code point at `at` and its length in bytes, 1 to 4; 0 when these bytes are not UTF-8. */
size_t utf8_decode(const char *at, const char *end, uint32_t *point);

/* Writes `point`, which must be a Unicode scalar value, and returns its length in bytes, 1 to 4. */
size_t utf8_encode(uint32_t point, char out[4]);

/* Whether all of a NUL-terminated string is UTF-8. */
bool utf8_valid(const char *text);

#endif
