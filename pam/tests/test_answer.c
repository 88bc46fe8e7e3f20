#include "support.h"

#include "answer.h"

#define MODHEX_22 "cbdefghijklnrtuvcbdefg"
#define YUBICO_OTP MODHEX_22 MODHEX_22

static void test_only_codes_look_like_codes(void **state)
{
    static const char *const codes[] = {"123456", "1234567", "12345678", "123 456", "12-34-56", " 123456 ", YUBICO_OTP};
    static const char *const others[] = {"", "12345", "123456789", "12345a", "123456\n", "      ", "hunter2", "123.456",
                                         MODHEX_22 "c", ("\xef\xbc\x91" "23456"), YUBICO_OTP "x", YUBICO_OTP "c"};

    (void)state;
    for (size_t i = 0; i < COUNT(codes); i++)
        assert_true(answer_looks_like_code(codes[i]));
    for (size_t i = 0; i < COUNT(others); i++)
        assert_false(answer_looks_like_code(others[i]));
}

static void test_what_may_hold_a_code(void **state)
{
    static const char *const may[] = {"hunter2pw123456", "123456hunter2pw", "123456", "x0123456789", "\xff" "123456",
                                      "pw" YUBICO_OTP, YUBICO_OTP "pw", YUBICO_OTP};
    static const char *const may_not[] = {"", "hunter2pw", "12345", "hunter12345", "12345hunter", "hunter123456!",
                                          "!123456hunter", "123 456", "x" MODHEX_22 "x" MODHEX_22, MODHEX_22};

    (void)state;
    for (size_t i = 0; i < COUNT(may); i++)
        assert_true(answer_may_hold_code(may[i]));
    for (size_t i = 0; i < COUNT(may_not); i++)
        assert_false(answer_may_hold_code(may_not[i]));
}

static void test_what_is_left_without_the_code(void **state)
{
    static const struct {
        const char *answer;
        struct reply_span code;
        const char *left; /* NULL: refused */
    } cases[] = {
        {"secret123456", {6, 6}, "secret"},
        {"12345678secret", {0, 8}, "secret"},
        {"se123456cret", {2, 6}, "secret"},
        {"123456", {0, 6}, ""},
        {"secret", {0, 0}, "secret"},
        {"secret", {6, 0}, "secret"},
        {"", {0, 0}, ""},
        {"p\xc3\xa4ss123456", {5, 6}, "p\xc3\xa4ss"},
        {"p\xe4ss123456", {6, 6}, "p\xe4ss"},             /* U+FFFD is sent for the byte that is not UTF-8 */
        {"\xe4\xf6" "123456\xfc", {6, 6}, "\xe4\xf6\xfc"},
        {"\xe4" "1", {0, 3}, "1"},
        {"secret", {7, 0}, NULL},
        {"secret", {1, 6}, NULL},
        {"", {0, 1}, NULL},
        {"secret", {REPLY_SPAN_MAX, REPLY_SPAN_MAX}, NULL},
        {"p\xc3\xa4ss", {2, 1}, NULL},                    /* half of a character */
        {"p\xc3\xa4ss", {0, 2}, NULL},
        {"p\xe4ss", {1, 1}, NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char answer[32];

        strcpy(answer, cases[i].answer);
        assert_int_equal(answer_remove_code(answer, &cases[i].code), cases[i].left != NULL);
        assert_string_equal(answer, cases[i].left != NULL ? cases[i].left : cases[i].answer);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_codes_look_like_codes),
        cmocka_unit_test(test_what_may_hold_a_code),
        cmocka_unit_test(test_what_is_left_without_the_code),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
