/*
 * JSON (RFC 8259) without allocation: a strict pull reader over one message, and a writer into a fixed buffer.
 *
 * Both remember failure: after the first thing that does not fit, every call fails and nothing moves any more.
 * So a caller may read or write a whole message and ask once, at the end, whether all of it was right.
 */
#ifndef OTPBRIDGE_JSON_H
#define OTPBRIDGE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JSON_DEPTH_MAX = 16 };

struct json_reader {
    const char *at;
    const char *end;
    unsigned depth;
    uint32_t fresh; /* bit n: no member of the container at depth n was read yet */
    bool failed;
};

void json_reader_init(struct json_reader *reader, const char *text, size_t length);

/* Containers. Between enter and the `next` that returns false, each `next` must be followed by reading one value. */
bool json_enter_object(struct json_reader *reader);
bool json_enter_array(struct json_reader *reader);
bool json_next_element(struct json_reader *reader);

/* The next member's name; "" when it does not fit into `size` bytes (so it is none that the caller looks for). */
bool json_next_member(struct json_reader *reader, char *name, size_t size);

/* Takes a null if one is next. Says false, without failing, when another value is next. */
bool json_take_null(struct json_reader *reader);

bool json_bool(struct json_reader *reader, bool *value);

/* A whole number from 0 to `max`, without fraction or exponent. */
bool json_unsigned(struct json_reader *reader, uint32_t max, uint32_t *value);

/* A string that must fit into `size` bytes with its terminating NUL. \u0000 is refused in every string. */
bool json_string(struct json_reader *reader, char *text, size_t size);

/* The same, but cut before the first character that does not fit. */
bool json_text(struct json_reader *reader, char *text, size_t size);

/* Any one value, checked and thrown away. */
bool json_skip(struct json_reader *reader);

/* Whether the message was read to its end and all of it was right. */
bool json_finish(struct json_reader *reader);

struct json_writer {
    char *buffer;
    size_t size;
    size_t used;
    bool failed;
};

void json_writer_init(struct json_writer *writer, char *buffer, size_t size);

/* Copies JSON text as it is. */
void json_write(struct json_writer *writer, const char *json);

/*
 * Writes a string value: at most `limit` bytes of `text`, cut at a character; bytes that are not UTF-8 become
 * U+FFFD one by one.
 */
void json_write_string(struct json_writer *writer, const char *text, size_t limit);

#endif
