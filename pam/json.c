#include "json.h"

#include "utf8.h"

#include <string.h>

enum overflow { OVERFLOW_REFUSED, OVERFLOW_CUT, OVERFLOW_IS_EMPTY };

static bool fail(struct json_reader *reader)
{
    reader->failed = true;
    return false;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static void skip_space(struct json_reader *reader)
{
    while (reader->at < reader->end && *reader->at != '\0' && strchr(" \t\n\r", *reader->at) != NULL)
        reader->at++;
}

/* Takes `c` after white space; says false, without failing, when something else is next. */
static bool take(struct json_reader *reader, char c)
{
    if (reader->failed)
        return false;
    skip_space(reader);
    if (reader->at == reader->end || *reader->at != c)
        return false;
    reader->at++;
    return true;
}

static bool expect(struct json_reader *reader, char c)
{
    return take(reader, c) || fail(reader);
}

static bool take_word(struct json_reader *reader, const char *word)
{
    size_t length = strlen(word);

    if (reader->failed)
        return false;
    skip_space(reader);
    if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length) != 0)
        return false;
    reader->at += length;
    return true;
}

void json_reader_init(struct json_reader *reader, const char *text, size_t length)
{
    *reader = (struct json_reader){.at = text, .end = text + length};
}

static bool enter(struct json_reader *reader, char bracket)
{
    if (!expect(reader, bracket))
        return false;
    if (reader->depth == JSON_DEPTH_MAX)
        return fail(reader);
    reader->depth++;
    reader->fresh |= 1U << reader->depth;
    return true;
}

static bool next(struct json_reader *reader, char bracket)
{
    uint32_t bit = 1U << reader->depth;

    if (take(reader, bracket)) {
        reader->depth--;
        return false;
    }
    if (reader->fresh & bit)
        reader->fresh &= ~bit;
    else if (!expect(reader, ','))
        return false;
    return !reader->failed;
}

bool json_enter_object(struct json_reader *reader)
{
    return enter(reader, '{');
}

bool json_enter_array(struct json_reader *reader)
{
    return enter(reader, '[');
}

bool json_next_element(struct json_reader *reader)
{
    return next(reader, ']');
}

static bool read_hex4(struct json_reader *reader, uint32_t *value)
{
    *value = 0;
    if (reader->end - reader->at < 4)
        return fail(reader);
    for (int i = 0; i < 4; i++) {
        char c = *reader->at++;
        uint32_t digit;

        if (is_digit(c))
            digit = (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (uint32_t)(c - 'a') + 10;
        else if (c >= 'A' && c <= 'F')
            digit = (uint32_t)(c - 'A') + 10;
        else
            return fail(reader);
        *value = (*value << 4) | digit;
    }
    return true;
}

/* The code point after `\u`: one escape, or the two of a surrogate pair. Lone surrogates and U+0000 are refused. */
static bool read_unicode_escape(struct json_reader *reader, uint32_t *point)
{
    uint32_t low;

    if (!read_hex4(reader, point) || *point == 0)
        return fail(reader);
    if (*point < 0xd800 || *point > 0xdfff)
        return true;
    if (*point > 0xdbff || reader->end - reader->at < 2 || reader->at[0] != '\\' || reader->at[1] != 'u')
        return fail(reader);
    reader->at += 2;
    if (!read_hex4(reader, &low) || low < 0xdc00 || low > 0xdfff)
        return fail(reader);
    *point = 0x10000 + ((*point - 0xd800) << 10) + (low - 0xdc00);
    return true;
}

static bool read_character(struct json_reader *reader, uint32_t *point)
{
    static const char escapes[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    const char *escape;
    size_t length;

    if (*reader->at != '\\') {
        length = utf8_decode(reader->at, reader->end, point);
        if (length == 0 || *point < 0x20)
            return fail(reader);
        reader->at += length;
        return true;
    }
    reader->at++;
    if (reader->at == reader->end || *reader->at == '\0')
        return fail(reader);
    if (*reader->at == 'u') {
        reader->at++;
        return read_unicode_escape(reader, point);
    }
    escape = strchr(escapes, *reader->at++);
    if (escape == NULL)
        return fail(reader);
    *point = (uint32_t)meanings[escape - escapes];
    return true;
}

static bool read_string(struct json_reader *reader, char *text, size_t size, enum overflow overflow)
{
    size_t used = 0;
    bool full = false;

    if (!expect(reader, '"'))
        return false;
    while (reader->at < reader->end && *reader->at != '"') {
        char bytes[4];
        uint32_t point;
        size_t length;

        if (!read_character(reader, &point))
            return false;
        length = utf8_encode(point, bytes);
        full = full || size - used <= length;
        if (full)
            continue;
        memcpy(text + used, bytes, length);
        used += length;
    }
    if (reader->at == reader->end || (full && overflow == OVERFLOW_REFUSED))
        return fail(reader);
    reader->at++;
    text[full && overflow == OVERFLOW_IS_EMPTY ? 0 : used] = '\0';
    return true;
}

bool json_next_member(struct json_reader *reader, char *name, size_t size)
{
    return next(reader, '}') && read_string(reader, name, size, OVERFLOW_IS_EMPTY) && expect(reader, ':');
}

bool json_string(struct json_reader *reader, char *text, size_t size)
{
    return read_string(reader, text, size, OVERFLOW_REFUSED);
}

bool json_text(struct json_reader *reader, char *text, size_t size)
{
    return read_string(reader, text, size, OVERFLOW_CUT);
}

bool json_take_null(struct json_reader *reader)
{
    return take_word(reader, "null");
}

bool json_bool(struct json_reader *reader, bool *value)
{
    *value = take_word(reader, "true");
    return *value || take_word(reader, "false") || fail(reader);
}

static bool take_digits(struct json_reader *reader)
{
    const char *start = reader->at;

    while (reader->at < reader->end && is_digit(*reader->at))
        reader->at++;
    return reader->at > start;
}

/* Takes one character of `set` if it is next, without skipping white space. */
static bool take_one_of(struct json_reader *reader, const char *set)
{
    if (reader->at == reader->end || *reader->at == '\0' || strchr(set, *reader->at) == NULL)
        return false;
    reader->at++;
    return true;
}

static bool skip_number(struct json_reader *reader)
{
    take_one_of(reader, "-");
    if (!take_one_of(reader, "0") && !take_digits(reader))
        return fail(reader);
    if (take_one_of(reader, ".") && !take_digits(reader))
        return fail(reader);
    if (take_one_of(reader, "eE")) {
        take_one_of(reader, "+-");
        if (!take_digits(reader))
            return fail(reader);
    }
    return true;
}

bool json_unsigned(struct json_reader *reader, uint32_t max, uint32_t *value)
{
    const char *start;
    uint64_t sum = 0;

    if (reader->failed)
        return false;
    skip_space(reader);
    start = reader->at;
    if (!skip_number(reader))
        return false;
    for (const char *digit = start; digit < reader->at; digit++) {
        if (!is_digit(*digit))
            return fail(reader);
        sum = sum * 10 + (uint64_t)(*digit - '0');
        if (sum > max)
            return fail(reader);
    }
    *value = (uint32_t)sum;
    return true;
}

bool json_skip(struct json_reader *reader)
{
    char scratch[1];
    bool truth;

    if (reader->failed)
        return false;
    skip_space(reader);
    if (reader->at == reader->end)
        return fail(reader);
    switch (*reader->at) {
    case '{':
        json_enter_object(reader);
        while (json_next_member(reader, scratch, sizeof scratch))
            json_skip(reader); /* as deep as JSON_DEPTH_MAX at most */
        return !reader->failed;
    case '[':
        json_enter_array(reader);
        while (json_next_element(reader))
            json_skip(reader);
        return !reader->failed;
    case '"':
        return read_string(reader, scratch, sizeof scratch, OVERFLOW_IS_EMPTY);
    case 't':
    case 'f':
        return json_bool(reader, &truth);
    case 'n':
        return json_take_null(reader) || fail(reader);
    default:
        return skip_number(reader);
    }
}

bool json_finish(struct json_reader *reader)
{
    if (reader->failed)
        return false;
    skip_space(reader);
    return reader->depth == 0 && reader->at == reader->end;
}

void json_writer_init(struct json_writer *writer, char *buffer, size_t size)
{
    *writer = (struct json_writer){.buffer = buffer, .size = size};
}

static void put(struct json_writer *writer, const char *bytes, size_t length)
{
    if (writer->failed || writer->size - writer->used < length) {
        writer->failed = true;
        return;
    }
    memcpy(writer->buffer + writer->used, bytes, length);
    writer->used += length;
}

void json_write(struct json_writer *writer, const char *json)
{
    put(writer, json, strlen(json));
}

static void put_character(struct json_writer *writer, uint32_t point)
{
    static const char hex[] = "0123456789abcdef";
    char bytes[4];

    if (point < 0x20) {
        json_write(writer, "\\u00");
        put(writer, &hex[point >> 4], 1);
        put(writer, &hex[point & 0xf], 1);
        return;
    }
    if (point == '"' || point == '\\')
        put(writer, "\\", 1);
    put(writer, bytes, utf8_encode(point, bytes));
}

void json_write_string(struct json_writer *writer, const char *text, size_t limit)
{
    const char *end = text + strlen(text);
    size_t taken = 0;

    put(writer, "\"", 1);
    while (text < end) {
        uint32_t point;
        size_t length = utf8_decode(text, end, &point);

        if (length == 0) {
            length = 1;
            point = 0xfffd;
        }
        taken += length;
        if (taken > limit)
            break;
        put_character(writer, point);
        text += length;
    }
    put(writer, "\"", 1);
}
