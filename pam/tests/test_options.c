#include "support.h"

#include "options.h"

struct complaints {
    int count;
    const char *last;
};

static void note(void *context, const char *argument, const char *problem)
{
    struct complaints *complaints = context;

    assert_non_null(problem);
    complaints->count++;
    complaints->last = argument;
}

static void test_defaults(void **state)
{
    struct complaints complaints = {0};
    struct options options;

    (void)state;
    assert_true(options_read(&options, 0, NULL, note, &complaints));
    assert_null(options.socket);
    assert_int_equal(options.timeout, 10);
    assert_null(options.stack);
    assert_null(options.prompt);
    assert_int_equal(options.first_pass, FIRST_PASS_UNUSED);
    assert_false(options.forward_pass || options.nullok || options.echo || options.debug);
}

static void test_every_option(void **state)
{
    const char *argv[] = {"socket=/a/b", "stack=ssh-2.x_", "timeout=300",  "prompt=Code = now: ",
    "try_first_pass",
                          "forward_pass", "nouserok",      "echo-verification-code", "debug"};
    struct complaints complaints = {0};
    struct options options;

    (void)state;
    assert_true(options_read(&options, COUNT(argv), argv, note, &complaints));
    assert_int_equal(complaints.count, 0);
    assert_string_equal(options.socket, "/a/b");
    assert_string_equal(options.stack, "ssh-2.x_");
    assert_string_equal(options.prompt, "Code = now: ");
    assert_int_equal(options.timeout, 300);
    assert_int_equal(options.first_pass, FIRST_PASS_TRY);
    assert_true(options.forward_pass && options.nullok && options.echo && options.debug);
}

static void test_names_that_admins_know(void **state)
{
    const char *argv[] = {"authtok_prompt=P", "nullok", "use_first_pass", "echo_verification_code"};
    struct complaints complaints = {0};
    struct options options;

    (void)state;
    assert_true(options_read(&options, COUNT(argv), argv, note, &complaints));
    assert_string_equal(options.prompt, "P");
    assert_int_equal(options.first_pass, FIRST_PASS_ONLY);
    assert_true(options.nullok && options.echo);
}

static void test_every_wrong_option_is_reported(void **state)
{
    static const char *const wrong[] = {
        "", "=", "nul", "nullok=", "nullok=1", "nullokay", "NULLOK", "socket", "socket=",
        "socket=relative/path", "stack=",
        "stack=a b", "stack=../x", "timeout", "timeout=", "timeout=0", "timeout=301", "timeout=-1",
        "timeout=1s", "timeout= 5",
        "timeout=4294967297", "timeout=99999999999999999999", "prompt=", "prompt", "forward_pass=8",
        "debug=yes", "alwaysok",
        "allow_readonly", "secret=/x",
        "stack=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "socket=/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        const char *argv[] = {"debug", wrong[i], "nullok"};
        struct complaints complaints = {0};
        struct options options;

        if (options_read(&options, COUNT(argv), argv, note, &complaints))
            fail_msg("accepted: %s", wrong[i]);
        assert_int_equal(complaints.count, 1);
        assert_ptr_equal(complaints.last, wrong[i]);
    }
}

static void test_all_are_read_to_the_end(void **state)
{
    const char *argv[] = {"tiemout=5", "socket=x", "use_first_pass", "try_first_pass", "stack=portal"};
    struct complaints complaints = {0};
    struct options options;

    (void)state;
    assert_false(options_read(&options, COUNT(argv), argv, note, &complaints));
    assert_int_equal(complaints.count, 3);
    assert_string_equal(complaints.last, "try_first_pass");
    assert_string_equal(options.stack, "portal");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_every_option),
        cmocka_unit_test(test_names_that_admins_know),
        cmocka_unit_test(test_every_wrong_option_is_reported),
        cmocka_unit_test(test_all_are_read_to_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
