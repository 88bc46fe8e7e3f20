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

static const char *clean_lines(const char *text)
{
    static char buffer[2 * CONVERSE_LINE_MAX];

    size_t length = converse_sanitise_lines(buffer, sizeof buffer, text);

    assert_int_equal(strlen(buffer), length);
    return buffer;
}

static void test_a_notice_keeps_its_lines(void **state)
{
    (void)state;
    assert_string_equal(clean_lines("one\ntwo\r\n\n\tthree\n\r\n"), "one\ntwo\n\n three");
    assert_string_equal(clean_lines("\xe2\x96\x88\xe2\x96\x80 \n\x1b[2J\xe2\x80\xa8\x7f"), "\xe2\x96\x88\xe2\x96\x80 \n[2J");
    assert_string_equal(clean_lines("\n\n"), "");
    assert_string_equal(clean_lines(""), "");
}

static void test_a_line_is_cut_at_a_character_and_the_next_is_not(void **state)
{
    char text[2 * CONVERSE_LINE_MAX] = "";

    (void)state;
    memset(text, 'x', CONVERSE_LINE_MAX - 1);
    strcat(text, "\xc3\xa9yz\nnext");
    assert_string_equal(strchr(clean_lines(text), '\n'), "\nnext");
    assert_int_equal(strlen(clean_lines(text)), CONVERSE_LINE_MAX - 1 + strlen("\nnext"));
}

static void test_notices_are_folded_before_the_prompt(void **state)
{
    static struct reply reply = {.notice_count = 4,
                                 .notices = {{NOTICE_INFO, "one\n1\n"}, {NOTICE_ERROR, "wrong"},
                                 {NOTICE_TOUCH, "t\x1bwo"}, {NOTICE_INFO, "\n"}}};
    char text[CONVERSE_TEXT_MAX];

    (void)state;
    converse_compose(text, &reply, true, "Code: ");
    assert_string_equal(text, "one\n1\ntwo\nCode: ");
    converse_compose(text, &reply, false, "Code: ");
    assert_string_equal(text, "Code: ");
}

static void test_the_prompt_always_fits(void **state)
{
    static struct reply reply = {.notice_count = REPLY_NOTICES_MAX};
    static char long_notice[REPLY_NOTICES_SIZE], prompt[REPLY_TEXT_MAX], text[CONVERSE_TEXT_MAX + 1];

    (void)state;
    memset(long_notice, 'n', sizeof long_notice - 1);
    for (size_t i = 0; i < sizeof long_notice - 1; i += 100)
        long_notice[i] = '\n';
    memset(prompt, 'p', sizeof prompt - 1);
    for (size_t cut = 1; cut < sizeof prompt; cut++) {
        prompt[sizeof prompt - cut] = '\0';
        for (size_t i = 0; i < REPLY_NOTICES_MAX; i++)
            reply.notices[i].text = i == 0 ? long_notice + cut : i == 1 ? prompt : long_notice + i;
        text[CONVERSE_TEXT_MAX] = 'x';
        converse_compose(text, &reply, true, prompt);
        assert_int_equal(text[CONVERSE_TEXT_MAX], 'x');
        assert_true(strlen(text) < CONVERSE_TEXT_MAX);
        assert_string_equal(text + strlen(text) - strlen(prompt), prompt);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_cannot_steer_a_terminal),
        cmocka_unit_test(test_text_is_cut_at_a_character),
        cmocka_unit_test(test_a_notice_keeps_its_lines),
        cmocka_unit_test(test_a_line_is_cut_at_a_character_and_the_next_is_not),
        cmocka_unit_test(test_notices_are_folded_before_the_prompt),
        cmocka_unit_test(test_the_prompt_always_fits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
