/* The JSON reader on anything; what it takes for a string must survive being written and read again. */
#include "json.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void write_and_read_again(const char *text)
{
    static char buffer[65536], again[3 * 8192]; /* a byte that is not UTF-8 becomes three */
    struct json_writer writer;
    struct json_reader reader;

    json_writer_init(&writer, buffer, sizeof buffer);
    json_write_string(&writer, text, strlen(text));
    check(!writer.failed);
    json_reader_init(&reader, buffer, writer.used);
    check(json_string(&reader, again, sizeof again) && json_finish(&reader));
    if (utf8_valid(text))
        check(strcmp(text, again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char text[8192];
    struct json_reader reader;
    uint32_t number;
    bool whole;

    json_reader_init(&reader, (const char *)data, size);
    json_skip(&reader);
    whole = json_finish(&reader);
    check(!whole || !reader.failed);

    json_reader_init(&reader, (const char *)data, size);
    if (json_string(&reader, text, sizeof text)) {
        check(utf8_valid(text));
        write_and_read_again(text);
    }
    json_reader_init(&reader, (const char *)data, size);
    if (json_text(&reader, text, 16))
        check(strlen(text) < 16 && utf8_valid(text));
    json_reader_init(&reader, (const char *)data, size);
    if (json_unsigned(&reader, 300, &number))
        check(number <= 300);

    if (size < sizeof text) {
        memcpy(text, data, size);
        text[size] = '\0';
        write_and_read_again(text);
    }
    return 0;
}

