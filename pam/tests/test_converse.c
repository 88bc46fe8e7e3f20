#include "support.h"

#include "converse.h"

#include <stdlib.h>

static const char *clean(const char *text)
{
    static char buffer[64];

    converse_sanitise(buffer, sizeof buffer, text);
    return buffer;
}

static void test_text_cannot_steer_a_terminal(void **state)
{
    (void)state;
    assert_string_equal(clean("plain text: "), "plain text: ");
    assert_string_equal(clean("\x1b[2Ja\x07\x7f" "b\r"), "[2Jab");
    assert_string_equal(clean("a\nb\tc"), "a b c");
    assert_string_equal(clean("\xc2\x9b" "2J"), "2J");                             /* C1 CSI */
    assert_string_equal(clean("\xe2\x80\xae" "evil\xe2\x81\xa6\xd8\x9c"), "evil"); /* U+202E, U+2066,
    U+061C */
    assert_string_equal(clean("\xf3\xa0\x81\x81x"), "x");                          /* tag U+E0041 */
    assert_string_equal(clean("caf\xc3\xa9 \xf0\x9f\x98\x80"), "caf\xc3\xa9 \xf0\x9f\x98\x80");
    assert_string_equal(clean("a\xff" "b"), "a");
}

static void test_text_is_cut_at_a_character(void **state)
{
    char small[6];

    (void)state;
    converse_sanitise(small, sizeof small, "abcd\xc3\xa9" "e");
    assert_string_equal(small, "abcd");
    converse_sanitise(small, sizeof small, "abc\xc3\xa9" "e");
    assert_string_equal(small, "abc\xc3\xa9");
}

static void test_notices_are_folded_before_the_prompt(void **state)
{
    static struct reply reply = {.notice_count = 3,
                                 .notices = {{NOTICE_INFO, "one"}, {NOTICE_ERROR, "wrong"},
                                 {NOTICE_TOUCH, "t\x1bwo"}}};
    char text[CONVERSE_TEXT_MAX];

    (void)state;
    converse_compose(text, &reply, true, "Code: ");
    assert_string_equal(text, "one\ntwo\nCode: ");
    converse_compose(text, &reply, false, "Code: ");
    assert_string_equal(text, "Code: ");
}

static void test_the_prompt_always_fits(void **state)
{
    static struct reply reply = {.notice_count = REPLY_NOTICES_MAX};
    char prompt[REPLY_TEXT_MAX], text[CONVERSE_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < REPLY_NOTICES_MAX; i++)
        memset(reply.notices[i].text, 'n', REPLY_TEXT_MAX - 1);
    memset(prompt, 'p', sizeof prompt - 1);
    prompt[sizeof prompt - 1] = '\0';
    converse_compose(text, &reply, true, prompt);
    assert_true(strlen(text) < CONVERSE_TEXT_MAX);
    assert_string_equal(text + strlen(text) - strlen(prompt), prompt);
}

static void test_the_code_is_the_last_six_digits(void **state)
{
    static const struct {
        const char *answer, *code;
    } cases[] = {
        {"secret123456", "123456"}, {"123456", "123456"}, {"pass99123456", "123456"}, {"secret12345", ""},
        {"", ""},
        {"secret123456 ", ""},      {"12345", ""},        {"\xc3\xa9""000000", "000000"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_string_equal(converse_code_of(cases[i].answer), cases[i].code);
}

static void test_only_codes_look_like_codes(void **state)
{
    static const char *const codes[] = {"123456", "1234567", "12345678", "123 456", "12-34-56", " 123456 ",
                                        "cccccccccccccccccccccccccccccccccccccccccccc"};
    static const char *const others[] = {"", "12345", "123456789", "12345a", "123456\n", "      ",
    "hunter2", "123.456",
                                         "ccccccccccccccccccccccccccccccccccccccccccc", ("\xef\xbc\x91" "23456"),
                                         "cccccccccccccccccccccccccccccccccccccccccccx"};

    (void)state;
    for (size_t i = 0; i < COUNT(codes); i++)
        assert_true(converse_looks_like_code(codes[i]));
    for (size_t i = 0; i < COUNT(others); i++)
        assert_false(converse_looks_like_code(others[i]));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_cannot_steer_a_terminal),
        cmocka_unit_test(test_text_is_cut_at_a_character),
        cmocka_unit_test(test_notices_are_folded_before_the_prompt),
        cmocka_unit_test(test_the_prompt_always_fits),
        cmocka_unit_test(test_the_code_is_the_last_six_digits),
        cmocka_unit_test(test_only_codes_look_like_codes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
