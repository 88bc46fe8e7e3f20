#include "answer.h"

#include "utf8.h"

#include <string.h>

enum { CODE_DIGITS_MIN = 6, CODE_DIGITS_MAX = 8, YUBICO_OTP_LENGTH = 44 };

static const char decimal[] = "0123456789";
static const char modhex[] = "cbdefghijklnrtuv";

/* How many characters at the end of text are of a set. */
static size_t tail_of(const char *text, const char *set)
{
    size_t length = strlen(text), count = 0;

    while (count < length && strchr(set, text[length - count - 1]) != NULL)
        count++;
    return count;
}

bool answer_looks_like_code(const char *text)
{
    size_t digits = 0;

    if (strlen(text) == YUBICO_OTP_LENGTH)
        return strspn(text, modhex) == YUBICO_OTP_LENGTH;
    for (; *text != '\0'; text++) {
        if (strchr(decimal, *text) != NULL)
            digits++;
        else if (*text != ' ' && *text != '-')
            return false;
    }
    return digits >= CODE_DIGITS_MIN && digits <= CODE_DIGITS_MAX;
}

bool answer_may_hold_code(const char *text)
{
    return strspn(text, decimal) >= CODE_DIGITS_MIN || tail_of(text, decimal) >= CODE_DIGITS_MIN ||
           strspn(text, modhex) >= YUBICO_OTP_LENGTH || tail_of(text, modhex) >= YUBICO_OTP_LENGTH;
}

/* Where in text the byte stands that is sent as number `offset`; NULL when that is none or not a character's first. */
static char *place_of(char *text, size_t offset)
{
    static const size_t replaced = 3; /* bytes of U+FFFD, which is sent for each byte that is not UTF-8 */
    const char *end = text + strlen(text);
    size_t sent = 0;

    while (sent < offset && text < end) {
        uint32_t point;
        size_t length = utf8_decode(text, end, &point);

        sent += length > 0 ? length : replaced;
        text += length > 0 ? length : 1;
    }
    return sent == offset ? text : NULL;
}

bool answer_remove_code(char *answer, const struct reply_span *code)
{
    char *first = place_of(answer, code->start);
    char *rest = place_of(answer, (size_t)code->start + code->length);

    if (first == NULL || rest == NULL)
        return false;
    memmove(first, rest, strlen(rest) + 1);
    return true;
}
