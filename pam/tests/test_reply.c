#include "support.h"

#include "reply.h"

#include <security/_pam_types.h>

static struct reply reply;

static bool read_step(const char *text)
{
    return reply_read(&reply, REPLY_STEP, text, strlen(text));
}

#define STEP(step) "{\"parameters\":{\"session\":\"s\",\"step\":" step "}}"

static void test_reads_verdicts(void **state)
{
    static const struct {
        const char *text;
        int code;
    } cases[] = {
        {STEP("{\"verdict\":\"success\"}"), PAM_SUCCESS},
        {STEP("{\"notices\":[],\"prompts\":[],\"verdict\":\"auth_err\",\"retryAfter\":null}"), PAM_AUTH_ERR},
        {STEP("{\"verdict\":\"ignore\",\"new\":{\"field\":[1]}}"), PAM_IGNORE},
        {STEP("{\"verdict\":\"SUCCESS\"}"), PAM_AUTHINFO_UNAVAIL},
        {STEP("{\"verdict\":\"\"}"), PAM_AUTHINFO_UNAVAIL},
        {STEP("{\"verdict\":\"success \"}"), PAM_AUTHINFO_UNAVAIL},
        {"{\"new\":0,\"error\":null,\"continues\":null,\"parameters\":{\"step\":{\"verdict\":\"success\"}}}", PAM_SUCCESS},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_true(read_step(cases[i].text));
        assert_true(reply.judged);
        assert_int_equal(reply.verdict, cases[i].code);
    }
}

static void test_reads_prompts_and_notices(void **state)
{
    (void)state;
    assert_true(read_step(STEP("{\"notices\":[{\"style\":\"touch\",\"text\":\"T\"},{\"style\":\"error\",\"text\":\"E\"},"
                               "{\"style\":\"unheard\",\"text\":\"I\"}],"
                               "\"prompts\":[{\"style\":\"hidden\",\"text\":\"A\"},{\"text\":\"B\",\"style\":\"visible\"},"
                               "{\"style\":\"unheard\",\"text\":\"C\",\"more\":1}],\"verdict\":null}")));
    assert_false(reply.judged);
    assert_string_equal(reply.session, "s");
    assert_int_equal(reply.prompt_count, 3);
    assert_false(reply.prompts[0].visible);
    assert_true(reply.prompts[1].visible);
    assert_false(reply.prompts[2].visible);
    assert_string_equal(reply.prompts[1].text, "B");
    assert_int_equal(reply.notice_count, 3);
    assert_int_equal(reply.notices[0].style, NOTICE_TOUCH);
    assert_int_equal(reply.notices[1].style, NOTICE_ERROR);
    assert_int_equal(reply.notices[2].style, NOTICE_INFO);
}

static void test_reads_where_the_code_is(void **state)
{
    (void)state;
    assert_true(read_step(STEP("{\"verdict\":\"success\",\"code\":{\"start\":7,\"length\":6,\"more\":[1]}}")));
    assert_true(reply.has_code);
    assert_int_equal(reply.code.start, 7);
    assert_int_equal(reply.code.length, 6);
    assert_true(read_step(STEP("{\"verdict\":\"ignore\",\"code\":null}")));
    assert_false(reply.has_code);
    assert_true(read_step(STEP("{\"verdict\":\"ignore\"}")));
    assert_false(reply.has_code);
}

static void test_reads_errors(void **state)
{
    (void)state;
    assert_true(read_step("{\"parameters\":{\"step\":7},\"error\":\"org.varlink.service.PermissionDenied\"}"));
    assert_int_equal(reply.error, REPLY_PERMISSION_DENIED);
    assert_false(reply.judged);
    assert_true(read_step("{\"error\":\"org.otpbridge.Verify.UnknownStack\",\"parameters\":{\"stack\":\"x\"}}"));
    assert_int_equal(reply.error, REPLY_UNKNOWN_STACK);
    assert_true(read_step("{\"error\":\"com.example.Any\",\"parameters\":{\"session\":\"s\",\"step\":{\"verdict\":\"success\"}}}"));
    assert_int_equal(reply.error, REPLY_OTHER_ERROR);
    assert_false(reply.judged);
    assert_int_equal(reply.verdict, PAM_AUTHINFO_UNAVAIL);
}

static void test_refuses_wrong_shapes(void **state)
{
    static const char *const texts[] = {
        "", "null", "[]", "\"success\"", "{}", "{\"parameters\":null}", "{\"parameters\":[]}",
        "{\"parameters\":{}}",
        "{\"error\":1}", "{\"continues\":\"true\",\"parameters\":{\"step\":{\"verdict\":\"success\"}}}",
        STEP("{}"), STEP("null"), STEP("[]"), STEP("{\"verdict\":0}"), STEP("{\"verdict\":[\"success\"]}"),
        STEP("{\"verdict\":\"success\",\"verdict\":\"auth_err\"}"),
        STEP("{\"verdict\":\"auth_err\",\"v\\u0065rdict\":\"success\"}"),
        STEP("{\"verdict\":null,\"verdict\":\"success\"}"),
        STEP("{\"verdict\":\"success\",\"code\":[7,6]}"), STEP("{\"verdict\":\"success\",\"code\":{}}"),
        STEP("{\"verdict\":\"success\",\"code\":{\"start\":7}}"),
        STEP("{\"verdict\":\"success\",\"code\":{\"length\":6}}"),
        STEP("{\"verdict\":\"success\",\"code\":{\"start\":null,\"length\":6}}"),
        STEP("{\"verdict\":\"success\",\"code\":{\"start\":-7,\"length\":6}}"),
        STEP("{\"verdict\":\"success\",\"code\":{\"start\":7,\"length\":6.5}}"),
        STEP("{\"verdict\":\"success\",\"code\":{\"start\":65536,\"length\":6}}"),
        STEP("{\"verdict\":\"success\",\"code\":{\"start\":0,\"length\":4294967296}}"),
        STEP("{\"verdict\":\"success\",\"code\":{\"start\":7,\"length\":6,\"start\":7}}"),
        STEP("{\"verdict\":\"success\",\"code\":null,\"code\":{\"start\":7,\"length\":6}}"),
        STEP("{\"verdict\":\"success\",\"retryAfter\":-1}"),
        STEP("{\"verdict\":\"success\",\"retryAfter\":1.5}"),
        STEP("{\"verdict\":\"maxtries\",\"retryAfter\":99999999999}"),
        STEP("{\"verdict\":\"success\",\"prompts\":[{\"style\":\"hidden\",\"text\":\"A\"}]}"),
        STEP("{\"prompts\":[{\"style\":\"hidden\"}]}"), STEP("{\"prompts\":[{\"text\":\"A\"}]}"),
        STEP("{\"prompts\":[7]}"),
        STEP("{\"prompts\":[{\"style\":\"hidden\",\"text\":7}]}"), STEP("{\"prompts\":{}}"),
        STEP("{\"notices\":[{}],\"verdict\":\"success\"}"),
        "{\"parameters\":{\"step\":{\"prompts\":[{\"style\":\"hidden\",\"text\":\"A\"}]}}}",
        "{\"parameters\":{\"session\":\"\",\"step\":{\"prompts\":[{\"style\":\"hidden\",\"text\":\"A\"}]}}}",
        "{\"parameters\":{\"session\":7,\"step\":{\"verdict\":\"success\"}}}",
        "{\"continues\":true,\"parameters\":{\"session\":\"s\",\"step\":{\"verdict\":\"success\"}}}",
        "{\"continues\":true,\"parameters\":{\"session\":\"s\",\"step\":{\"prompts\":[{\"style\":\"hidden\",\"text\":\"A\"}]}}}",
        "{\"parameters\":{\"verdict\":\"success\"}}",
        "{\"parameters\":{\"step\":{\"verdict\":\"auth_err\"}},\"parameters\":{\"step\":{\"verdict\":\"success\"}}}",
        "{\"parameters\":{\"step\":{\"verdict\":\"auth_err\"},\"step\":{\"verdict\":\"success\"}}}",
        STEP("{\"verdict\":\"success\"}") "x", STEP("{\"verdict\":\"success\""),
        STEP("{\"verdict\":\"succ\\u0000ess\"}"),
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++)
        if (read_step(texts[i]))
            fail_msg("accepted: %s", texts[i]);
}

static void test_counts_and_lengths_are_bounded(void **state)
{
    static const char prompt[] = "{\"style\":\"hidden\",\"text\":\"A\"}";

    (void)state;
    for (int count = REPLY_PROMPTS_MAX; count <= REPLY_PROMPTS_MAX + 1; count++) {
        char text[1024] = "{\"parameters\":{\"session\":\"s\",\"step\":{\"prompts\":[";

        for (int i = 0; i < count; i++) {
            strcat(text, i == 0 ? "" : ",");
            strcat(text, prompt);
        }
        strcat(text, "]}}}");
        assert_int_equal(read_step(text), count == REPLY_PROMPTS_MAX);
    }
    for (int length = REPLY_SESSION_MAX - 1; length <= REPLY_SESSION_MAX; length++) {
        char text[1024] = "{\"parameters\":{\"session\":\"";

        memset(text + strlen(text), 's', (size_t)length);
        strcat(text, "\",\"step\":{\"verdict\":\"success\"}}}");
        assert_int_equal(read_step(text), length < REPLY_SESSION_MAX);
    }
}

/* Writes a step with `count` notices of `length` bytes each. */
static void write_notices(char *text, int count, size_t length)
{
    strcpy(text, "{\"parameters\":{\"session\":\"s\",\"step\":{\"notices\":[");
    text += strlen(text);
    for (int i = 0; i < count; i++) {
        text = stpcpy(text, i == 0 ? "{\"style\":\"info\",\"text\":\"" : ",{\"style\":\"info\",\"text\":\"");
        memset(text, 'a' + i, length);
        text = stpcpy(text + length, "\"}");
    }
    strcpy(text, "],\"verdict\":\"success\"}}}");
}

static void test_all_notices_together_are_cut(void **state)
{
    static char text[65536];

    (void)state;
    write_notices(text, REPLY_NOTICES_MAX, 1024);
    assert_true(read_step(text));
    assert_int_equal(reply.notice_count, REPLY_NOTICES_MAX);
    for (int i = 0; i < REPLY_NOTICES_MAX; i++) {
        size_t length = strlen(reply.notices[i].text);

        assert_int_equal(length, i < REPLY_NOTICES_MAX - 1 ? 1024 : 1024 - REPLY_NOTICES_MAX);
        assert_int_equal(reply.notices[i].text[0], 'a' + i);
        assert_int_equal(reply.notices[i].text[length - 1], 'a' + i);
    }
    for (size_t length = REPLY_NOTICES_SIZE - 3; length < REPLY_NOTICES_SIZE + 3; length++) {
        write_notices(text, 2, length);
        assert_true(read_step(text));
        assert_int_equal(strlen(reply.notices[0].text), length < REPLY_NOTICES_SIZE ? length : REPLY_NOTICES_SIZE - 1);
        assert_int_equal(strlen(reply.notices[1].text), length == REPLY_NOTICES_SIZE - 3 ? 1 : 0);
        assert_int_equal(reply.verdict, PAM_SUCCESS);
    }
}

static void test_account_replies_are_their_own_shape(void **state)
{
    static const char verdict[] = "{\"parameters\":{\"verdict\":\"success\"}}";
    static const char step[] = STEP("{\"verdict\":\"success\"}");
    static const char more[] = "{\"continues\":true,\"parameters\":{\"verdict\":\"success\"}}";

    (void)state;
    assert_true(reply_read(&reply, REPLY_VERDICT, verdict, strlen(verdict)));
    assert_int_equal(reply.verdict, PAM_SUCCESS);
    assert_false(reply_read(&reply, REPLY_VERDICT, step, strlen(step)));
    assert_false(reply_read(&reply, REPLY_VERDICT, more, strlen(more)));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_verdicts),
        cmocka_unit_test(test_reads_prompts_and_notices),
        cmocka_unit_test(test_reads_where_the_code_is),
        cmocka_unit_test(test_reads_errors),
        cmocka_unit_test(test_refuses_wrong_shapes),
        cmocka_unit_test(test_counts_and_lengths_are_bounded),
        cmocka_unit_test(test_all_notices_together_are_cut),
        cmocka_unit_test(test_account_replies_are_their_own_shape),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
