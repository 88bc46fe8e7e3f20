#include "support.h"

#include "json.h"
#include "utf8.h"

#include <stdlib.h>

/* Reads the whole of `text` as one value; the copy without a NUL lets a sanitiser see a read past its end. */
static bool is_json(const char *text, size_t length)
{
    char *copy = malloc(length > 0 ? length : 1);
    struct json_reader reader;
    bool right;

    memcpy(copy, text, length);
    json_reader_init(&reader, copy, length);
    json_skip(&reader);
    right = json_finish(&reader);
    free(copy);
    return right;
}

static void test_accepts_json(void **state)
{
    static const char *const texts[] = {
        "{}", "[]", " [ 1 , -0.5e+3 , \"a\" ] ", "{\"a\":{\"b\":[null,true,false]}}", "\"\"", "0", "-0",
        "10", "1E9",
        "\"\\u00e9\\ud83d\\ude00\\n\\\\\\/\"", "\"\xc3\xa9\xf0\x9f\x98\x80\"",
        "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++)
        if (!is_json(texts[i], strlen(texts[i])))
            fail_msg("refused: %s", texts[i]);
}

static void test_refuses_what_is_not_json(void **state)
{
    static const char *const texts[] = {
        "", " ", "{", "}", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}",
        "{a:1}", "{1:1}",
        "{\"a\":1 \"b\":2}", "nul", "nulll", "True", "truefalse", "01", "-", "+1", "1.", ".5", "1e", "1e+",
        "0x10", "NaN",
        "Infinity", "\"", "\"\\\"", "\"\\x41\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\u0000\"", "\"\\ud83d\"",
        "\"\\ude00\"", "\"\\ud83d\\u0041\"", "\"\\ud83dx\"", "\"\n\"", "\"\t\"", "\"\x01\"", "\"\xff\"",
        "\"\xc3\"",
        "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe0\x80\xaf\"", "'a'", "[1] 2",
        "{} {}", "\xef\xbb\xbf{}",
        "[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]", "{\"a\":1]", "[1}", "/**/1",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++)
        if (is_json(texts[i], strlen(texts[i])))
            fail_msg("accepted: %s", texts[i]);
    assert_false(is_json("\"a\0b\"", 5));
    assert_false(is_json("{}\0", 3));
}

static void test_every_cut_of_a_message_is_refused(void **state)
{
    static const char text[] = "{\"a\":[1.5e3,\"\\u00e9\\ud83d\\ude00\xc3\xa9\",null,{\"b\":true}],\"c\":false}";

    (void)state;
    assert_true(is_json(text, sizeof text - 1));
    for (size_t length = 0; length < sizeof text - 1; length++)
        assert_false(is_json(text, length));
}

static void test_reads_strings(void **state)
{
    struct json_reader reader;
    char text[8];

    (void)state;
    json_reader_init(&reader, "\"caf\\u00e9\"", 11);
    assert_true(json_string(&reader, text, sizeof text));
    assert_string_equal(text, "caf\xc3\xa9");
    assert_true(json_finish(&reader));

    json_reader_init(&reader, "\"1234567\"", 9);
    assert_true(json_string(&reader, text, sizeof text));
    json_reader_init(&reader, "\"12345678\"", 10);
    assert_false(json_string(&reader, text, sizeof text));

    json_reader_init(&reader, "\"123456\xc3\xa9z\"", 11);
    assert_true(json_text(&reader, text, sizeof text));
    assert_string_equal(text, "123456"); /* cut at the character, and nothing after the cut */
    assert_true(json_finish(&reader));
}

static void test_member_names_are_compared_decoded_and_whole(void **state)
{
    static const char text[] = "{\"n\\u0061me\":1,\"namely\":2}";
    struct json_reader reader;
    char name[5];

    (void)state;
    json_reader_init(&reader, text, sizeof text - 1);
    assert_true(json_enter_object(&reader));
    assert_true(json_next_member(&reader, name, sizeof name));
    assert_string_equal(name, "name");
    assert_true(json_skip(&reader));
    assert_true(json_next_member(&reader, name, sizeof name));
    assert_string_equal(name, "");
    assert_true(json_skip(&reader));
    assert_false(json_next_member(&reader, name, sizeof name));
    assert_true(json_finish(&reader));
}

static void test_numbers_are_bounded(void **state)
{
    static const struct {
        const char *text;
        bool right;
        uint32_t value;
    } cases[] = {
        {"0", true, 0},     {"300", true, 300}, {"301", false, 0}, {"4294967296", false, 0},
        {"18446744073709551916", false, 0},
        {"-1", false, 0},   {"1.0", false, 0},  {"1e2", false, 0},
        {"\"1\"", false, 0},      {"null", false, 0},
        {"true", false, 0}, {"", false, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct json_reader reader;
        uint32_t value = 0;

        json_reader_init(&reader, cases[i].text, strlen(cases[i].text));
        assert_int_equal(json_unsigned(&reader, 300, &value), cases[i].right);
        if (cases[i].right)
            assert_int_equal(value, cases[i].value);
    }
}

static const char *written(const char *text, size_t limit)
{
    static char buffer[256];
    struct json_writer writer;

    json_writer_init(&writer, buffer, sizeof buffer - 1);
    json_write_string(&writer, text, limit);
    assert_false(writer.failed);
    buffer[writer.used] = '\0';
    return buffer;
}

static void test_writes_strings(void **state)
{
    (void)state;
    assert_string_equal(written("a\"b\\c\n\x1b\x7f", 99), "\"a\\\"b\\\\c\\u000a\\u001b\x7f\"");
    assert_string_equal(written("caf\xc3\xa9", 99), "\"caf\xc3\xa9\"");
    assert_string_equal(written("caf\xc3\xa9", 4), "\"caf\"");
    assert_string_equal(written("\xff\xc3(\xed\xa0\x80", 99),
                        "\"\xef\xbf\xbd\xef\xbf\xbd(\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    assert_string_equal(written("", 99), "\"\"");
}

static void test_what_is_written_can_be_read(void **state)
{
    char text[256], back[1024], buffer[2048];
    struct json_writer writer;
    struct json_reader reader;
    size_t used = 0;

    (void)state;
    for (uint32_t point = 1; point < 0x80; point++)
        text[used++] = (char)point;
    used += utf8_encode(0xe9, text + used);
    used += utf8_encode(0x20ac, text + used);
    used += utf8_encode(0x10ffff, text + used);
    text[used] = '\0';
    json_writer_init(&writer, buffer, sizeof buffer);
    json_write_string(&writer, text, sizeof text);
    json_reader_init(&reader, buffer, writer.used);
    assert_true(json_string(&reader, back, sizeof back));
    assert_true(json_finish(&reader));
    assert_string_equal(back, text);
}

static void test_writer_stops_at_the_buffers_end(void **state)
{
    char buffer[8] = "zzzzzzz";
    struct json_writer writer;

    (void)state;
    json_writer_init(&writer, buffer, 6);
    json_write(&writer, "1234");
    json_write_string(&writer, "abc", 99);
    assert_true(writer.failed);
    assert_true(writer.used <= 6);
    assert_string_equal(buffer + 6, "z");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts_json),
        cmocka_unit_test(test_refuses_what_is_not_json),
        cmocka_unit_test(test_every_cut_of_a_message_is_refused),
        cmocka_unit_test(test_reads_strings),
        cmocka_unit_test(test_member_names_are_compared_decoded_and_whole),
        cmocka_unit_test(test_numbers_are_bounded),
        cmocka_unit_test(test_writes_strings),
        cmocka_unit_test(test_what_is_written_can_be_read),
        cmocka_unit_test(test_writer_stops_at_the_buffers_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
